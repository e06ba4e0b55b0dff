"""Layers of `lite` that torch has in another form."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel: no statistics over space or batch."""

    def forward(self, x: Tensor) -> Tensor:
        channels_last = x.permute(0, 2, 3, 1)
        if not x.is_cuda:
            return super().forward(channels_last).permute(0, 3, 1, 2)
        with torch.autocast("cuda", enabled=False):  # it would go through memory in float32; sums are in float32 anyway
            weight, bias = self.weight.to(x.dtype), self.bias.to(x.dtype)
            return F.layer_norm(channels_last, self.normalized_shape, weight, bias, self.eps).permute(0, 3, 1, 2)


class PictureConv(nn.Conv2d):
    """A convolution of few channels. On GPUs zeros fill them up to what the matrix units take."""

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type == "cpu":
            return super().forward(x)
        missing = (0, 0) * 2 + (0, -self.in_channels % 8)
        wide = F.pad(x, missing).contiguous(memory_format=torch.channels_last)
        return F.conv2d(wide, F.pad(self.weight, missing), self.bias, padding=self.padding)
