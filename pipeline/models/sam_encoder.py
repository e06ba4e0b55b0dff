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
- matrix products in `dtype`, on GPUs convolutions as well; the residual stream and layer norms stay float32.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
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
        self._patch, self._neck = encoder.patch_embed.proj, encoder.neck
        if device.type != "cpu":
            self._patch, self._neck = copy.deepcopy((self._patch, self._neck))
            for layer in (self._patch, *self._neck):
                if isinstance(layer, nn.Conv2d):
                    layer.to(dtype).to(memory_format=torch.channels_last)
        self._position = encoder.pos_embed
        grid = encoder.pos_embed.shape[1]
        attention = attention or attention_on(device, dtype)
        self.blocks = nn.ModuleList(_Block(block, grid, dtype, attention, float8) for block in encoder.blocks)
        self.to(device)
        self.device = device

    def forward(self, images: Tensor) -> Tensor:
        patches = self._patch(images.to(self._patch.weight.dtype)).permute(0, 2, 3, 1)
        x = patches.contiguous() + self._position  # or each layer norm would copy it
        for block in self.blocks:
            x = block(x)
        x = x.permute(0, 3, 1, 2)
        for layer in self._neck:
            x = layer(x.to(layer.weight.dtype))
        return x


class _Block(nn.Module):
    def __init__(self, block: Any, grid: int, dtype: torch.dtype, attention: Attention, float8: bool) -> None:
        super().__init__()
        self._norm1, self._norm2 = block.norm1, block.norm2
        window, side, linear = block.window_size, block.window_size or grid, Float8Linear if float8 else Linear
        self._attention = AttentionLayer(block.attn, window, side, dtype, attention, linear)
        self._up, self._down = linear(block.mlp.lin1, dtype, gelu=True), linear(block.mlp.lin2, dtype)
        self._dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> the same."""
        x = x + self._attention(self._norm1(x).to(self._dtype))
        tokens = self._norm2(x).to(self._dtype).flatten(0, 2)
        step = MLP_TOKENS[x.device.type]
        parts = [self._down(self._up(part)) for part in tokens.split(step)]
        return x + (parts[0] if len(parts) == 1 else torch.cat(parts)).view_as(x)
