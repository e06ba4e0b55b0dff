"""Attention of Segment Anything's image encoder as one kernel, from projections to what is projected back (Triton).

Queries, keys and values are read where the projection left them and results are written where the next one reads them:
windows, heads, padding and relative positions are arithmetic on addresses, so that nothing is copied, laid out anew or
kept. Softmax is taken as it goes (FlashAttention: Dao et al., 2022). Sums are in float32.

Keys are taken in blocks of whole rows of the window. A query's bias is q . R(its row - the key's) + q . R(its column -
the key's). Both tables are multiplied with the query once, and a block's numbers are picked by products with zeros and
ones, since columns of registers cannot be addressed. Registers are powers of two wide: 80 channels are 64 and 16.
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
"""The fastest of those tried for ViT-B and ViT-H on an H200 (tests/benchmarks/RESULTS.md)."""


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
        height,
        width,
        down,
        across,
        **constants,
        num_warps=setting.warps,
        num_stages=setting.stages,
    )
    return out


def constants_of(channels: int, heads: int, side: int, whole: bool) -> tuple[dict[str, float], Setting]:
    """What the kernel is compiled for."""
    width = max(16, triton.next_power_of_2(side))
    lanes = max(16, triton.next_power_of_2(channels + 1) // 2)  # the largest power of two that is not more
    setting = WHOLE if whole and width == side else WINDOWS
    constants = {
        "HEADS": heads,
        "CHANNELS": channels,
        "SIDE": side,
        "LANES": lanes,
        "REST": max(16, triton.next_power_of_2(channels - lanes)) if channels > lanes else 0,
        "WIDTH": width,
        "ROWS": max(1, setting.keys // width),
        "DISTANCES": triton.next_power_of_2(2 * side - 1),
        "WHOLE": setting is WHOLE,
        "QUERIES": setting.queries,
        "SCALE": channels**-0.5 * LOG2_E,
        "LOG2_E": LOG2_E,
    }
    return constants, setting


@triton.jit
def _attend(  # type: ignore[no-untyped-def]  # Triton reads annotations
    qkv,
    bias,
    rows,
    columns,
    out,
    height,
    width,
    down,
    across,
    HEADS: tl.constexpr,
    CHANNELS: tl.constexpr,
    SIDE: tl.constexpr,
    LANES: tl.constexpr,
    REST: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    DISTANCES: tl.constexpr,
    WHOLE: tl.constexpr,
    QUERIES: tl.constexpr,
    SCALE: tl.constexpr,
    LOG2_E: tl.constexpr,
):
    """One head of one window: QUERIES of its tokens, WIDTH to a row of the window, against all of its keys.

    LANES, REST: powers of two that together hold the channels; REST is 0 where LANES do. WIDTH, DISTANCES: such as hold
    a row and the tables. WHOLE: one window, no padding. SCALE: of scores, LOG2_E: of biases, both for exp2.
    """
    of = tl.program_id(1)
    head, window = of % HEADS, of // HEADS
    left, top = (window % across) * SIDE, (window // across % down) * SIDE
    base = (window // (across * down)).to(tl.int64) * height * width
    stride: tl.constexpr = 3 * HEADS * CHANNELS
    inner: tl.constexpr = HEADS * CHANNELS
    lane = tl.arange(0, LANES)[None, :]
    filled = lane < CHANNELS
    more = LANES + tl.arange(0, REST if REST else 1)[None, :]
    more_filled = more < CHANNELS

    place = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    row, column = place // WIDTH, place % WIDTH
    y, x = top + row, left + column
    there = ((row < SIDE) & (column < SIDE) & (y < height) & (x < width))[:, None]
    token = (base + y * width + x)[:, None]
    of_query = qkv + token * stride + head * CHANNELS
    q = tl.load(of_query + lane, mask=there & filled, other=0.0)

    distance = tl.arange(0, DISTANCES)[None, :]
    known = distance < 2 * SIDE - 1
    table, in_table = distance * CHANNELS + tl.trans(lane), known & tl.trans(filled)
    by_row = tl.dot(q, tl.load(rows + table, mask=in_table, other=0.0))
    by_column = tl.dot(q, tl.load(columns + table, mask=in_table, other=0.0))
    if REST:
        more_q = tl.load(of_query + more, mask=there & more_filled, other=0.0)
        table, in_table = distance * CHANNELS + tl.trans(more), known & tl.trans(more_filled)
        by_row += tl.dot(more_q, tl.load(rows + table, mask=in_table, other=0.0))
        by_column += tl.dot(more_q, tl.load(columns + table, mask=in_table, other=0.0))
    step = tl.arange(0, WIDTH)
    from_row = row[:, None] - step[None, :] + (SIDE - 1)
    from_column = column[:, None] - step[None, :] + (SIDE - 1)
    row_bias = (tl.gather(by_row, tl.minimum(tl.maximum(from_row, 0), DISTANCES - 1), 1) * LOG2_E).to(q.dtype)
    column_bias = tl.gather(by_column, tl.minimum(tl.maximum(from_column, 0), DISTANCES - 1), 1) * LOG2_E

    key = tl.arange(0, ROWS * WIDTH)
    key_row, key_column = key // WIDTH, key % WIDTH
    of_key, of_value = inner + head * CHANNELS, 2 * inner + head * CHANNELS
    most = tl.full([QUERIES], -1e30, tl.float32)
    total = tl.zeros([QUERIES], tl.float32)
    summed = tl.zeros([QUERIES, LANES], tl.float32)
    more_summed = tl.zeros([QUERIES, REST if REST else 1], tl.float32)
    for first in range(0, SIDE, ROWS):
        key_y, key_x = top + first + key_row, left + key_column
        at = (base + key_y * width + key_x)[:, None] * stride
        real = (first + key_row < SIDE) & (key_column < SIDE)
        inside = ((key_y < height) & (key_x < width))[:, None]
        k = _loaded(qkv, bias, at, of_key + lane, filled, inside, real[:, None], WHOLE)
        v = _loaded(qkv, bias, at, of_value + lane, filled, inside, real[:, None], WHOLE)
        scores = tl.dot(q, tl.trans(k))
        if REST:
            more_k = _loaded(qkv, bias, at, of_key + more, more_filled, inside, real[:, None], WHOLE)
            more_v = _loaded(qkv, bias, at, of_value + more, more_filled, inside, real[:, None], WHOLE)
            scores = tl.dot(more_q, tl.trans(more_k), scores)
        picks_row = (step[:, None] == (first + key_row)[None, :]).to(q.dtype)
        scores = scores * SCALE + tl.dot(row_bias, picks_row)
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
        weights = weights.to(q.dtype)
        summed = tl.dot(weights, v, summed * shrunk[:, None])
        if REST:
            more_summed = tl.dot(weights, more_v, more_summed * shrunk[:, None])
        most = highest
    written = out + token * inner + head * CHANNELS
    tl.store(written + lane, (summed / total[:, None]).to(q.dtype), mask=there & filled)
    if REST:
        tl.store(written + more, (more_summed / total[:, None]).to(q.dtype), mask=there & more_filled)


@triton.jit
def _loaded(qkv, bias, at, channel, filled, inside, real, WHOLE: tl.constexpr):  # type: ignore[no-untyped-def]
    """Keys or values of a block of tokens, a row each: beyond the grid, in a window that sticks out, the bias."""
    if WHOLE:
        return tl.load(qkv + at + channel, mask=filled, other=0.0)
    found = tl.load(qkv + at + channel, mask=inside & real & filled, other=0.0)
    return tl.where(inside, found, tl.load(bias + channel, mask=filled, other=0.0))
