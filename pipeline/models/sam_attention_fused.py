"""Attention of Segment Anything's image encoder as one kernel, from projections to what is projected back (Triton).

Queries, keys and values are read where the projection left them and results are written where the next one reads them:
windows, heads, padding and relative positions are arithmetic on addresses, so that nothing is copied, laid out anew or
kept. Softmax is taken as it goes (FlashAttention: Dao et al., 2022). Sums are in float32.

Keys are taken in blocks of whole rows of the window. A query's bias is q . R(its row - the key's) + q . R(its column -
the key's). Both tables are multiplied with the query once, and a block's numbers are picked by products with zeros and
ones, since columns of registers cannot be addressed.
"""
# ruff: noqa: N803, PLR0915 - Triton's constants are capitals by custom; a kernel cannot be cut into functions of few lines

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

LOG2_E = 1.4426950408889634


class Setting(NamedTuple):
    """Queries of a program, keys of a block at most, and how Triton compiles it."""

    queries: int
    keys: int
    warps: int
    stages: int


WINDOWS, WHOLE = Setting(128, 64, 4, 2), Setting(128, 64, 8, 3)
"""The fastest of eight each for ViT-B and ViT-H on an H200 (tests/benchmarks/RESULTS.md)."""


def attend(qkv: Tensor, bias: Tensor, rows: Tensor, columns: Tensor, heads: int, side: int) -> Tensor:
    """(B, h, w, 3 * heads * C) -> (B, h, w, heads * C), contiguous: attention within windows of `side` by `side`.

    bias: (3 * heads * C,), what stands in for tokens of a window beyond the grid; rows, columns: the relative positions
    down and across by query minus key, from -(side - 1) on, (2 * side - 1, C). All contiguous, float16 or bfloat16.
    """
    count, height, width, wide = qkv.shape
    channels = wide // (3 * heads)
    down, across = triton.cdiv(height, side), triton.cdiv(width, side)
    constants, setting = constants_of(channels, heads, side, whole=(height, width) == (side, side))
    out = qkv.new_empty(count, height, width, heads * channels)
    _attend[(triton.cdiv(side * constants["WIDTH"], setting.queries), count * down * across * heads)](
        qkv,
        bias,
        rows,
        columns,
        out,
        channels**-0.5 * LOG2_E,
        LOG2_E,
        height,
        width,
        down,
        across,
        **constants,
        num_warps=setting.warps,
        num_stages=setting.stages,
    )
    return out


def constants_of(channels: int, heads: int, side: int, whole: bool) -> tuple[dict[str, int], Setting]:
    """What the kernel is compiled for."""
    width = max(16, triton.next_power_of_2(side))
    setting = WHOLE if whole and width == side else WINDOWS
    constants = {
        "HEADS": heads,
        "CHANNELS": channels,
        "SIDE": side,
        "LANES": max(16, triton.next_power_of_2(channels)),
        "WIDTH": width,
        "ROWS": max(1, setting.keys // width),
        "DISTANCES": triton.next_power_of_2(2 * side - 1),
        "WHOLE": setting is WHOLE,
        "QUERIES": setting.queries,
    }
    return constants, setting


@triton.jit
def _attend(  # type: ignore[no-untyped-def]  # Triton reads annotations
    qkv,
    bias,
    rows,
    columns,
    out,
    scale,
    log2_e,
    height,
    width,
    down,
    across,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    LANES: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DISTANCES: tl.constexpr,
    WHOLE: tl.constexpr,
    QUERIES: tl.constexpr,
):
    """One head of one window: QUERIES of its tokens, WIDTH to a row of the window, against all of its keys.

    LANES, WIDTH, DISTANCES: powers of two that hold channels, a row, and the tables. WHOLE: one window, and no padding.
    """
    of = tl.program_id(1)
    head, window = of % HEADS, of // HEADS
    left, top = (window % across) * SIDE, (window // across % down) * SIDE
    base = (window // (across * down)).to(tl.int64) * height * width
    stride: tl.constexpr = 3 * HEADS * CHANNELS
    lane = tl.arange(0, LANES)
    filled = lane < CHANNELS

    place = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    row, column = place // WIDTH, place % WIDTH
    y, x = top + row, left + column
    there = ((row < SIDE) & (column < SIDE) & (y < height) & (x < width))[:, None] & filled[None, :]
    token = (base + y * width + x)[:, None]
    q = tl.load(qkv + token * stride + (head * CHANNELS + lane)[None, :], mask=there, other=0.0)

    distance = tl.arange(0, DISTANCES)
    table = distance[None, :] * CHANNELS + lane[:, None]
    known = (distance < 2 * SIDE - 1)[None, :] & filled[:, None]
    by_row = tl.dot(q, tl.load(rows + table, mask=known, other=0.0)) * log2_e
    by_column = tl.dot(q, tl.load(columns + table, mask=known, other=0.0)) * log2_e
    step = tl.arange(0, WIDTH)
    from_row = row[:, None] - step[None, :] + (SIDE - 1)
    from_column = column[:, None] - step[None, :] + (SIDE - 1)
    row_bias = tl.gather(by_row, tl.minimum(tl.maximum(from_row, 0), DISTANCES - 1), 1).to(q.dtype)
    column_bias = tl.gather(by_column, tl.minimum(tl.maximum(from_column, 0), DISTANCES - 1), 1)

    key = tl.arange(0, ROWS * WIDTH)
    key_row, key_column = key // WIDTH, key % WIDTH
    of_key = ((HEADS + head) * CHANNELS + lane)[None, :]
    of_value = ((2 * HEADS + head) * CHANNELS + lane)[None, :]
    key_beyond = tl.load(bias + of_key, mask=filled[None, :], other=0.0)
    value_beyond = tl.load(bias + of_value, mask=filled[None, :], other=0.0)
    most = tl.full([QUERIES], -1e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    summed = tl.zeros([QUERIES, LANES], tl.float32)
    for first in range(0, SIDE, ROWS):
        key_y, key_x = top + first + key_row, left + key_column
        at = (base + key_y * width + key_x)[:, None] * stride
        real = (first + key_row < SIDE) & (key_column < SIDE)
        if WHOLE:
            k = tl.load(qkv + at + of_key, mask=filled[None, :], other=0.0)
            v = tl.load(qkv + at + of_value, mask=filled[None, :], other=0.0)
        else:
            inside = ((key_y < height) & (key_x < width))[:, None]
            loads = inside & real[:, None] & filled[None, :]
            k = tl.where(inside, tl.load(qkv + at + of_key, mask=loads, other=0.0), key_beyond)
            v = tl.where(inside, tl.load(qkv + at + of_value, mask=loads, other=0.0), value_beyond)
        picks_row = (step[:, None] == (first + key_row)[None, :]).to(q.dtype)
        scores = tl.dot(q, tl.trans(k)) * scale + tl.dot(row_bias, picks_row)
        if ROWS == 1:
            scores += column_bias
        else:
            picks_column = (step[:, None] == key_column[None, :]).to(q.dtype)
            scores += tl.dot(column_bias.to(q.dtype), picks_column)
        if not WHOLE:
            scores = tl.where(real[None, :], scores, float("-inf"))
        highest = tl.maximum(most, tl.max(scores, 1))
        weights = tl.exp2(scores - highest[:, None])
        shrunk = tl.exp2(most - highest)
        total = total * shrunk + tl.sum(weights, 1)
        summed = tl.dot(weights.to(q.dtype), v, summed * shrunk[:, None])
        most = highest
    written = out + token * (HEADS * CHANNELS) + (head * CHANNELS + lane)[None, :]
    tl.store(written, (summed / total[:, None]).to(q.dtype), mask=there)
