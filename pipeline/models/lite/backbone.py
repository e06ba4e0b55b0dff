"""EfficientNet-Lite0 as a feature extractor, its batch norms folded into the convolutions.

Architecture: Tan & Le, "EfficientNet" (ICML 2019), Lite variant: ReLU6, no squeeze-and-excitation, fixed stem. Folding
freezes the ImageNet statistics, so an output never depends on its neighbours in a batch, and makes training faster.

Not here: the classifier's head, and where ImageNet weights come from (`lite/training/imagenet.py`).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

# kernel, stride of the first block, expansion, output channels, blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
STEM_CHANNELS = 32
FROZEN_BLOCKS = 3  # with the stem: edges and textures at strides 2 and 4, as ImageNet left them; costly to train
# Last block of each stride 2, 4, 8, 16, 32 and its channels.
TAPS = {0: 16, 2: 24, 4: 40, 10: 112, 15: 320}


class SameConv(nn.Conv2d):
    """Convolution with TensorFlow's SAME padding of even inputs: at stride 2 the odd pixel is at the bottom right."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, 0 if stride == 2 else kernel // 2, groups=groups)
        before = (kernel - 2) // 2
        self.extra = (before, kernel - 2 - before) * 2 if stride == 2 else None

    def forward(self, x: Tensor) -> Tensor:
        if self.extra is not None:
            x = F.pad(x, self.extra)
        if self.groups == 1 or x.device.type != "cpu":
            return super().forward(x)
        with torch.autocast("cpu", enabled=False):  # depthwise gradients are several times slower in bf16 on CPUs
            return super().forward(x.float())


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise kxk, project 1x1; added to its input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = inputs * expansion
        self.expand = SameConv(inputs, inner, 1) if expansion > 1 else None
        self.depthwise = SameConv(inner, inner, kernel, stride, groups=inner)
        self.project = SameConv(inner, outputs, 1)
        self.adds_input = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        inner = x if self.expand is None else F.relu6(self.expand(x))
        out = self.project(F.relu6(self.depthwise(inner)))
        return out + x if self.adds_input else out


class Lite0Backbone(nn.Module):
    """(B, 3, S, S) normalised RGB, S a multiple of 32 -> features at strides 2, 4, 8, 16, 32 (channels: TAPS)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, STEM_CHANNELS, 3, 2)
        blocks, inputs = [], STEM_CHANNELS
        for kernel, first_stride, expansion, outputs, count in STAGES:
            for index in range(count):
                blocks.append(InvertedResidual(inputs, outputs, kernel, 1 if index else first_stride, expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        for module in (self.stem, *self.blocks[:FROZEN_BLOCKS]):
            module.requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, taps = F.relu6(self.stem(images)), []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in TAPS:
                taps.append(x)
        return taps

    def inverted_residuals(self) -> list[InvertedResidual]:
        """The blocks with their type, which torch's containers hide."""
        return [block for block in self.blocks if isinstance(block, InvertedResidual)]


@torch.no_grad()
def fold(conv: SameConv, weight: Tensor, bn: dict[str, Tensor], eps: float) -> None:
    """Set `conv` to a bias-free convolution of `weight` followed by a batch norm in inference mode."""
    scale = bn["weight"] / torch.sqrt(bn["running_var"] + eps)
    conv.weight.copy_(weight * scale[:, None, None, None])
    if conv.bias is not None:
        conv.bias.copy_(bn["bias"] - bn["running_mean"] * scale)
