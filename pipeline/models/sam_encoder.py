"""Segment Anything's image encoder (ViT with windows and decomposed relative positions), fast; the same function.

What segment_anything/modeling/image_encoder.py computes, with its weights, but

- the (heads, 4096, 4096) scores of an image are never in memory: attention is torch's fused kernel, on CPUs in bfloat16
  two products, for a block of queries at a time with the relative positions as its bias;
- windows that stick out of the image's grid are padded after the projections, not before: a padded token's are the
  biases, and nothing is projected back for it;
- the MLP's wide middle layer is computed for a block of tokens at a time on CPUs, where it would not fit a cache, and
  in bfloat16 with its GELU in one call;
- matrix products in `dtype`; the residual stream, layer norms and the neck stay float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn

from pipeline.models.fused import cpu_multiplies_bf16

BIAS_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}
SCORES_AT_ONCE = 1 << 22
"""On CPUs, of four heads and ROWS_AT_ONCE rows of queries in SAM's grid, or of about a hundred heads in windows."""
MANY_TOKENS = 1024
ROWS_AT_ONCE = 4  # of the queries of many tokens
MLP_TOKENS = {"cpu": 1024, "cuda": 1 << 30}


def preferred_dtype(device: str) -> torch.dtype:
    """bfloat16 where the hardware multiplies it, else float32. (A CPU without it is slower in bfloat16.)"""
    if device.startswith("cuda"):
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    has_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return torch.bfloat16 if has_bf16 else torch.float32


class FastEncoder(nn.Module):
    """(B, 3, S, S) normalised RGB float32 -> (B, out_chans, S/16, S/16) float32, as ImageEncoderViT."""

    def __init__(self, encoder: ImageEncoderViT, dtype: torch.dtype = torch.float32) -> None:
        """Takes the encoder's tensors (copies, in another dtype); `encoder` itself is left as it is."""
        super().__init__()
        device = encoder.pos_embed.device
        self._patch, self._neck = encoder.patch_embed.proj, encoder.neck
        self._position = encoder.pos_embed
        grid = encoder.pos_embed.shape[1]
        self.blocks = nn.ModuleList(_Block(block, grid, dtype) for block in encoder.blocks)
        self.to(device)
        self.device = device

    def forward(self, images: Tensor) -> Tensor:
        x = self._patch(images).permute(0, 2, 3, 1).contiguous() + self._position  # or each layer norm would copy it
        for block in self.blocks:
            x = block(x)
        return self._neck(x.permute(0, 3, 1, 2))


class CompiledEncoder:
    """A FastEncoder whose blocks go through torch.compile: two kinds, with windows and without, for all of them.

    Compiled for one batch size: fewer images are filled up with zeros, more are taken in turns. What was compiled is
    kept on disk (`TORCHINDUCTOR_CACHE_DIR`), so that the next process starts warm.
    """

    def __init__(self, encoder: FastEncoder, batch: int) -> None:
        options = {}
        if "deterministic" in torch._inductor.list_options():  # the same kernels in every process, not a race's winners
            options["deterministic"] = True
        for block in encoder.blocks:
            block.compile(fullgraph=True, dynamic=False, options=options)
        self._run, self._batch = encoder, batch

    def __call__(self, images: Tensor) -> Tensor:
        """As FastEncoder."""
        parts = images.split(self._batch)
        filled = F.pad(parts[-1], (0, 0) * 3 + (0, self._batch - len(parts[-1])))
        encoded = [self._run(part) for part in (*parts[:-1], filled)]
        return torch.cat(encoded)[: len(images)]


class _Block(nn.Module):
    def __init__(self, block: Any, grid: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._norm1, self._norm2 = block.norm1, block.norm2
        self._attention = _Attention(block.attn, block.window_size, block.window_size or grid, dtype)
        self._up, self._down = _Linear(block.mlp.lin1, dtype, gelu=True), _Linear(block.mlp.lin2, dtype)
        self._dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> the same."""
        x = x + self._attention(self._norm1(x).to(self._dtype))
        tokens = self._norm2(x).to(self._dtype).flatten(0, 2)
        step = MLP_TOKENS[x.device.type]
        parts = [self._down(self._up(part)) for part in tokens.split(step)]
        return x + (parts[0] if len(parts) == 1 else torch.cat(parts)).view_as(x)


class _Attention(nn.Module):
    """Of all tokens with one another, or within windows of `window` tokens on a side (0: all)."""

    def __init__(self, attention: Any, window: int, side: int, dtype: torch.dtype) -> None:
        super().__init__()
        self._heads, self._window = attention.num_heads, window
        self._qkv, self._out = _Linear(attention.qkv, dtype), _Linear(attention.proj, dtype)
        with torch.no_grad():
            rows, columns = (get_rel_pos(side, side, axis) for axis in (attention.rel_pos_h, attention.rel_pos_w))
        self.register_buffer("_rows", rows.to(dtype))  # (side, side, C): query row, key row
        self.register_buffer("_columns", columns.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        count, height, width, channels = x.shape
        qkv = self._qkv(x)
        if not self._window:
            by_head = qkv.view(count, height * width, 3, self._heads, -1).permute(2, 0, 3, 1, 4).contiguous()
            return self._out(self._attend(by_head, height, width).transpose(1, 2).reshape(x.shape))
        side = self._window
        down, across = -(-height // side), -(-width // side)
        padded = self._padded(qkv, down * side, across * side)
        windows = padded.view(count, down, side, across, side, 3, self._heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
        by_head = windows.reshape(3, count * down * across, self._heads, side * side, -1)
        out = self._attend(by_head, side, side).view(count, down, across, self._heads, side, side, -1)
        out = out.permute(0, 1, 4, 2, 5, 3, 6).reshape(count, down * side, across * side, channels)
        return self._out(out[:, :height, :width].contiguous())  # torch takes another, slower way for what is not

    def _padded(self, qkv: Tensor, height: int, width: int) -> Tensor:
        """(B, h, w, 3C) -> (B, height, width, 3C), with the biases below and to the right."""
        own_height, own_width = qkv.shape[1:3]
        if (own_height, own_width) == (height, width):
            return qkv
        padded = qkv.new_empty(qkv.shape[0], height, width, qkv.shape[3])
        padded[:, :own_height, :own_width] = qkv
        padded[:, :own_height, own_width:] = padded[:, own_height:] = self._qkv.bias
        return padded

    def _attend(self, by_head: Tensor, height: int, width: int) -> Tensor:
        """Queries, keys and values (3, B, heads, h * w, C) -> (B, heads, h * w, C)."""
        query, key, value = by_head.unbind(0)
        count = query.shape[0]
        grid = query.unflatten(2, (height, width))
        # Contiguous, so that their sum is, or it would be copied.
        by_row = torch.einsum("bnhwc,hkc->bnhwk", grid, self._rows).contiguous()
        by_column = torch.einsum("bnhwc,wkc->bnhwk", grid, self._columns).contiguous()
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            return _attend_by_products(by_head, by_row, by_column)
        step = max(1, BIAS_ELEMENTS[query.device.type] // (count * self._heads * width * height * width))
        parts = []
        for top in range(0, height, step):
            rows = slice(top, top + step)
            bias = (by_row[:, :, rows, :, :, None] + by_column[:, :, rows, :, None, :]).flatten(4).flatten(2, 3)
            parts.append(F.scaled_dot_product_attention(grid[:, :, rows].flatten(2, 3), key, value, attn_mask=bias))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def _attend_by_products(by_head: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention in bfloat16 as two matrix products, a few heads and rows of queries at a time.

    On CPUs faster than torch's fused kernel, whose products are of tiles too small for their units. Scores are rounded
    to bfloat16, as torch.autocast does; the softmax itself is computed in float32.
    by_head: (3, B, heads, h * w, C); by_row, by_column: (B, heads, h, w, h) and (B, heads, h, w, w).
    Returns (B, heads, h * w, C).
    """
    count, heads, height, width, _ = by_row.shape
    queries, keys, values = by_head.flatten(1, 2).unbind(0)
    queries = (queries * queries.shape[-1] ** -0.5).unflatten(1, (height, width))
    rows, columns = by_row.flatten(0, 1), by_column.flatten(0, 1)
    rows_at_once = ROWS_AT_ONCE if height * width >= MANY_TOKENS else height
    heads_at_once = max(1, SCORES_AT_ONCE // (rows_at_once * width * height * width))
    out = torch.empty_like(queries)
    for first in range(0, count * heads, heads_at_once):
        some = slice(first, first + heads_at_once)
        for top in range(0, height, rows_at_once):
            block = slice(top, top + rows_at_once)
            scores = _bias(rows[some, block], columns[some, block])
            scores.baddbmm_(queries[some, block].flatten(1, 2), keys[some].transpose(1, 2))
            attended = torch.bmm(torch.softmax(scores, -1), values[some])
            out[some, block] = attended.unflatten(1, (-1, width))
    return out.unflatten(0, (count, heads)).flatten(2, 3)


def _bias(rows: Tensor, columns: Tensor) -> Tensor:
    """(N, q, w, h) and (N, q, w, w): every sum of a row's and a column's -> (N, q * w, h * w).

    Within windows a product with zeros and ones, whose sums are the same to the bit: broadcasting has to stop at each
    row of so few keys.
    """
    height, width = rows.shape[-1], columns.shape[-1]
    if height * width >= MANY_TOKENS:
        bias = rows[..., None] + columns[..., None, :]
    else:
        of_row = torch.eye(height, dtype=rows.dtype).repeat_interleave(width, 1)
        of_column = torch.eye(width, dtype=rows.dtype).repeat(1, height)
        bias = torch.cat([rows, columns], -1).flatten(0, 2) @ torch.cat([of_row, of_column])
    return bias.view(len(rows), -1, height * width)


class _Linear(nn.Module):
    """A linear layer in `dtype`, with a GELU behind it where asked.

    In bfloat16 on CPUs one call of oneDNN does both, with weights laid out for it once (operators that TorchInductor
    emits); F.linear lays them out anew each time, and GELU goes through memory once more.
    """

    _weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: bool = False) -> None:
        super().__init__()
        self._activation = "gelu" if gelu else "none"
        weight, bias = linear.weight.detach().to(dtype), linear.bias.detach().to(dtype)
        packed = _has_onednn(weight)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, MLP_TOKENS["cpu"]) if packed else None
        self.register_buffer("_weight", None if packed else weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self._packed is not None:
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self._activation, [], "none")
        out = F.linear(x, self._weight, self.bias)
        return F.gelu(out) if self._activation == "gelu" else out


def _has_onednn(weight: Tensor) -> bool:
    """Whether oneDNN's linear layers are there and worth it for this tensor."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and cpu_multiplies_bf16()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
