"""Segment Anything's image encoder (ViT with windows and decomposed relative positions), fast; the same function.

What segment_anything/modeling/image_encoder.py computes, with its weights, but

- the (heads, 4096, 4096) scores of an image are never in memory: attention is torch's fused kernel, or on CPUs in
  bfloat16 two products, for a block of queries at a time;
- relative positions are a bias on CPUs; on GPUs, where a bias is traffic and shuts out the fastest kernels, they are
  more channels of queries and keys, or all of attention is one kernel (`sam_attention.py`);
- windows that stick out of the image's grid are padded after the projections, not before: a padded token's are the
  biases, and nothing is projected back for it;
- the MLP's wide middle layer is computed for a block of tokens at a time on CPUs, where it would not fit a cache, and
  in bfloat16 with its GELU in one call;
- the patches' convolution is one product on GPUs, where it has no fast kernel for three channels;
- a residual sum and the layer norm of it are one kernel where attention is (`sam_norm_fused.py`);
- matrix products in `dtype`, on GPUs convolutions as well; the residual stream and layer norms stay float32.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor, nn

from pipeline.models.sam_attention import Attention, AttentionLayer, attention_on
from pipeline.models.sam_linear import MLP_TOKENS, Float8Linear, Linear


def preferred_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32. (A CPU without it is slower in bfloat16.)"""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bf16 else torch.float32


class FastEncoder(nn.Module):
    """(B, 3, S, S) normalised RGB float32 -> (B, out_chans, S/16, S/16) float32, as ImageEncoderViT."""

    def __init__(
        self,
        encoder: ImageEncoderViT,
        dtype: torch.dtype = torch.float32,
        attention: Attention | None = None,
        float8: bool = False,
    ) -> None:
        """Takes the encoder's tensors (copies, in another dtype); `encoder` itself is left as it is.

        attention: None for the device's own. float8: whether linear layers multiply in 8 bits (`Float8Linear`).
        """
        super().__init__()
        device = encoder.pos_embed.device
        self._patch: nn.Module = encoder.patch_embed.proj
        self._neck = encoder.neck
        if device.type != "cpu":
            self._patch, self._neck = Patches(encoder.patch_embed.proj, dtype), copy.deepcopy(self._neck)
            for layer in self._neck:
                if isinstance(layer, nn.Conv2d):
                    layer.to(dtype).to(memory_format=torch.channels_last)
        self._position = encoder.pos_embed
        grid = encoder.pos_embed.shape[1]
        attention = attention or attention_on(device, dtype)
        self.blocks = nn.ModuleList(_Block(block, grid, dtype, attention, float8) for block in encoder.blocks)
        self.to(device)
        self.device = device

    def forward(self, images: Tensor) -> Tensor:
        added = self._patch(images).permute(0, 2, 3, 1).contiguous()  # or each layer norm would copy it
        x = self._position.expand(added.shape).contiguous()
        for block in self.blocks:
            x, added = block(x, added)
        x = (x + added).permute(0, 3, 1, 2)
        for layer in self._neck:
            x = layer(x.to(layer.weight.dtype))
        return x


class Patches(nn.Module):
    """A convolution whose steps are as long as its kernel is wide, as one product."""

    _weight: Tensor
    _bias: Tensor | None

    def __init__(self, convolution: nn.Conv2d, dtype: torch.dtype) -> None:
        super().__init__()
        self._side = int(convolution.kernel_size[0])
        self.register_buffer("_weight", convolution.weight.detach().flatten(1).to(dtype))
        self.register_buffer("_bias", None if convolution.bias is None else convolution.bias.detach().to(dtype))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, C, h, w), channels last in memory."""
        side = self._side
        down, across = (size // side for size in images.shape[2:])
        cut = images.to(self._weight.dtype).unflatten(3, (across, side)).unflatten(2, (down, side))
        patches = cut.permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, h, w, 3 * side * side)
        return F.linear(patches, self._weight, self._bias).permute(0, 3, 1, 2)


class SumNorm(nn.Module):
    """A residual sum, and the layer norm of it in `dtype`."""

    def __init__(self, norm: nn.LayerNorm, dtype: torch.dtype, fused: bool) -> None:
        super().__init__()
        self._norm, self._dtype, self._fused = norm, dtype, fused

    def forward(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """(..., C) float32 and the same in `dtype` -> their sum, float32, and its norm."""
        if self._fused:
            from pipeline.models.sam_norm_fused import add_and_norm  # Triton comes with torch for GPUs alone

            return add_and_norm(x, added, self._norm.weight, self._norm.bias, self._norm.eps)
        total = x + added
        return total, self._norm(total).to(self._dtype)


class _Block(nn.Module):
    def __init__(self, block: Any, grid: int, dtype: torch.dtype, attention: Attention, float8: bool) -> None:
        super().__init__()
        self._norm1, self._norm2 = (SumNorm(norm, dtype, attention == "fused") for norm in (block.norm1, block.norm2))
        window, side, linear = block.window_size, block.window_size or grid, Float8Linear if float8 else Linear
        self._attention = AttentionLayer(block.attn, window, side, dtype, attention, linear)
        self._up, self._down = linear(block.mlp.lin1, dtype, gelu=True), linear(block.mlp.lin2, dtype)

    def forward(self, x: Tensor, added: Tensor) -> tuple[Tensor, Tensor]:
        """The residual stream, (B, h, w, C) float32, and what is yet to be added to it -> the same."""
        x, normed = self._norm1(x, added)
        x, normed = self._norm2(x, self._attention(normed))
        step = MLP_TOKENS[x.device.type]
        parts = [self._down(self._up(part)) for part in normed.flatten(0, 2).split(step)]
        return x, (parts[0] if len(parts) == 1 else torch.cat(parts)).view_as(x)
