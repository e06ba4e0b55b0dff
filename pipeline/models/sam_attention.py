"""Attention with decomposed relative positions, as Segment Anything's image encoder has it, in three ways."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812
from segment_anything.modeling.image_encoder import get_rel_pos
from torch import Tensor, nn

from pipeline.models.hardware import runs_triton
from pipeline.models.sam_linear import Linear

BIAS_ELEMENTS = {"cpu": 1 << 24, "cuda": 1 << 28}
SCORES_AT_ONCE = 1 << 22
"""On CPUs, of four heads and ROWS_AT_ONCE rows of queries in SAM's grid, or of about a hundred heads in windows."""
MANY_TOKENS = 1024
ROWS_AT_ONCE = 4  # of the queries of many tokens

Attention = Literal["bias", "folded", "flex", "fused"]
"""How relative positions enter: as a bias of the scores; folded into queries and keys, which is the same sum; added to
each score within the kernel (torch's flex_attention: for tokens of a whole image, folded in windows); or in a kernel of
our own, which spares every copy as well (`sam_attention_fused.py`: bfloat16 and float16, GPUs)."""
WIDTH_MULTIPLE = 8  # of channels, for the fused kernels


def attention_on(device: torch.device, dtype: torch.dtype) -> Attention:
    """The fastest way of those that a device has."""
    if device.type == "cpu":
        return "bias"
    return "fused" if dtype != torch.float32 and runs_triton() else "folded"


class AttentionLayer(nn.Module):
    """Of all tokens with one another, or within windows of `window` tokens on a side (0: all)."""

    _rows: Tensor
    _columns: Tensor
    _places: Tensor

    def __init__(
        self, attention: Any, window: int, side: int, dtype: torch.dtype, kind: Attention, linear: type[Linear]
    ) -> None:
        super().__init__()
        self._heads, self._window = attention.num_heads, window
        self._kind: Attention = "folded" if window and kind == "flex" else kind
        self._qkv, self._out = linear(attention.qkv, dtype), linear(attention.proj, dtype)
        with torch.no_grad():
            rows, columns = (get_rel_pos(side, side, axis) for axis in (attention.rel_pos_h, attention.rel_pos_w))
        if self._kind == "folded":  # the scores' scale is applied to all channels, and positions are not to be scaled
            rows, columns = (axis * rows.shape[-1] ** 0.5 for axis in (rows, columns))
            self.register_buffer("_places", places_of(side, rows.shape[-1]).to(rows.device, dtype))
        if self._kind == "fused":
            rows, columns = (torch.cat([axis[0].flip(0)[:-1], axis[:, 0]]) for axis in (rows, columns))
        # (side, side, C): query row, key row; fused: (2 * side - 1, C), query minus key from -(side - 1) on
        self.register_buffer("_rows", rows.to(dtype))
        self.register_buffer("_columns", columns.to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        """(B, h, w, C) -> (B, h, w, C)."""
        count, height, width, channels = x.shape
        qkv = self._qkv(x)
        if self._kind == "fused":
            from pipeline.models.sam_attention_fused import attend  # Triton comes with torch for GPUs alone

            side = self._window or height
            return self._out(attend(qkv, self._qkv.bias, self._rows, self._columns, self._heads, side))
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
        if self._kind == "folded":
            return _attend_folded(by_head, by_row, by_column, self._places)
        if self._kind == "flex":
            return _attend_flex(by_head, by_row, by_column)
        if query.device.type == "cpu" and query.dtype == torch.bfloat16:
            return _attend_by_products(by_head, by_row, by_column)
        step = max(1, BIAS_ELEMENTS[query.device.type] // (count * self._heads * width * height * width))
        parts = []
        for top in range(0, height, step):
            rows = slice(top, top + step)
            bias = (by_row[:, :, rows, :, :, None] + by_column[:, :, rows, :, None, :]).flatten(4).flatten(2, 3)
            parts.append(F.scaled_dot_product_attention(grid[:, :, rows].flatten(2, 3), key, value, attn_mask=bias))
        return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


def places_of(side: int, channels: int) -> Tensor:
    """Which row and which column each of side * side tokens is in: (side * side, channels to be added to keys).

    Two ones in each row; filled up with zeros so that `channels` and these are a multiple of WIDTH_MULTIPLE.
    """
    at = torch.eye(side)
    both = torch.cat([at.repeat_interleave(side, 0), at.repeat(side, 1)], 1)
    return F.pad(both, (0, -(channels + 2 * side) % WIDTH_MULTIPLE))


def _attend_folded(by_head: Tensor, by_row: Tensor, by_column: Tensor, places: Tensor) -> Tensor:
    """Attention whose relative positions are channels: q . k + q . row(k) + q . column(k) is one product.

    by_head: (3, B, heads, h * w, C); by_row, by_column: (B, heads, h, w, h) and (B, heads, h, w, w), over the scores'
    scale; places: as `places_of`. Values are as wide as the rest, since the fused kernels want that.
    """
    query, key, value = by_head.unbind(0)
    channels, added = query.shape[-1], places.shape[-1]
    rest = added - by_row.shape[-1] - by_column.shape[-1]
    positions = [by_row.flatten(2, 3), by_column.flatten(2, 3)]
    if rest:
        positions.append(by_row.new_zeros(()).expand(*query.shape[:3], rest))
    wide_query = torch.cat([query, *positions], -1)
    wide_key = torch.cat([key, places.expand(*key.shape[:2], -1, -1)], -1)
    wide_value = F.pad(value, (0, added))
    out = F.scaled_dot_product_attention(wide_query, wide_key, wide_value, scale=channels**-0.5)
    return out[..., :channels]


def _attend_flex(by_head: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention that adds the relative positions to each score where it is computed. Fast where it is compiled."""
    from torch.nn.attention.flex_attention import flex_attention  # imports the compiler

    query, key, value = by_head.unbind(0)
    width = by_column.shape[-1]
    rows, columns = by_row.flatten(2, 3), by_column.flatten(2, 3)

    def added(score: Tensor, image: Tensor, head: Tensor, at: Tensor, to: Tensor) -> Tensor:
        return score + rows[image, head, at, to // width] + columns[image, head, at, to % width]

    return flex_attention(query, key, value, score_mod=added)


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
            scores = bias_of(rows[some, block], columns[some, block])
            scores.baddbmm_(queries[some, block].flatten(1, 2), keys[some].transpose(1, 2))
            attended = torch.bmm(torch.softmax(scores, -1), values[some])
            out[some, block] = attended.unflatten(1, (-1, width))
    return out.unflatten(0, (count, heads)).flatten(2, 3)


def bias_of(rows: Tensor, columns: Tensor) -> Tensor:
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
