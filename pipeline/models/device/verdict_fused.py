"""Sums that `verdict.py` takes around masks' outlines, as kernels (Triton) that work where there is an outline only.

As operators of torch they write and read windows of every cell of every canvas, of which outlines are a hundredth.
Each block of cells leaves sums of its own, added up afterwards, so that the same input gives the same bytes.
"""
# ruff: noqa: N803 - Triton's constants are capitals by custom

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pipeline.models.device.verdict import Evidence, Reduction

ROWS, COLUMNS = 8, 32  # cells of a block: outlines are thin
WARPS = 4
PACKED_AT_ONCE = 256


def contrast_sums(masks: tuple[Tensor, Tensor], reduction: Reduction) -> Tensor:
    """As verdict._contrast_sums: (2, N, 2) float32."""
    number, height, width = masks[0].shape
    reach, side = reduction.reach, reduction.squares.shape[1]
    packed = torch.empty(masks[0].shape, dtype=torch.int32, device=masks[0].device)
    _pack[number, height, triton.cdiv(width, PACKED_AT_ONCE)](
        masks[0].view(torch.uint8), masks[1].view(torch.uint8), reduction.squares, reduction.image, reduction.rows,
        reduction.columns, reduction.beside, packed, height, width, side, BLOCK=PACKED_AT_ONCE,
    )  # fmt: skip
    grid = number, triton.cdiv(height - 2 * reach, ROWS), triton.cdiv(width - 2 * reach, COLUMNS)
    sums = torch.zeros(*grid, 2, 2, dtype=torch.float32, device=packed.device)
    _contrast[grid](
        packed, reduction.cells, sums, height, width, REACH=reach, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS
    )
    return sums.sum((1, 2)).transpose(0, 1)


def evidence_sums(evidence: Evidence) -> Tensor:
    """As verdict._evidence_sums: (N, 7) float32."""
    fused, refined, given, bounds, radius = evidence
    number, side = fused.shape[:2]
    grid = number, triton.cdiv(side, ROWS), triton.cdiv(side, COLUMNS)
    sums = torch.zeros(*grid, 7, dtype=torch.float32, device=fused.device)
    _evidence[grid](
        fused, refined.view(torch.uint8), given.view(torch.uint8), bounds, radius.int(), sums, side,
        ROWS=ROWS, COLUMNS=COLUMNS, num_warps=WARPS,
    )  # fmt: skip
    return sums.sum((1, 2))


@triton.jit
def _evidence(  # type: ignore[no-untyped-def]  # Triton reads annotations
    fused, refined, given, bounds, radius, sums, side, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """One block of one mask."""
    mask = tl.program_id(0).to(tl.int64)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    top, left = tl.load(bounds + 4 * mask), tl.load(bounds + 4 * mask + 1)
    bottom, right = tl.load(bounds + 4 * mask + 2), tl.load(bounds + 4 * mask + 3)
    there = ((y >= top) & (y < bottom))[:, None] & ((x >= left) & (x < right))[None, :]
    if tl.sum(tl.sum(there.to(tl.int32), 1), 0) > 0:
        at = (mask * side + y)[:, None] * side + x[None, :]
        logit = tl.load(fused + at, mask=there, other=0.0)
        of_refined = tl.load(refined + at, mask=there, other=0).to(tl.float32)
        of_given = tl.load(given + at, mask=there, other=0).to(tl.float32)
        chance = tl.where(there, 1 / (1 + tl.exp(-tl.minimum(tl.maximum(logit, -30.0), 30.0))), 0.0)
        reach = tl.load(radius + mask)
        inside = tl.zeros((ROWS, COLUMNS), tl.int32)
        outside = inside
        for down in range(-reach, reach + 1):
            row = y + down
            for across in range(-reach, reach + 1):
                column = x + across
                seen = ((row >= top) & (row < bottom))[:, None] & ((column >= left) & (column < right))[None, :]
                place = (mask * side + row)[:, None] * side + column[None, :]
                value = tl.load(refined + place, mask=seen, other=0).to(tl.int32)
                inside |= value
                outside |= seen.to(tl.int32) - value
        band = (there & (inside > 0) & (outside > 0)).to(tl.float32)
        block = (mask * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
        to = sums + 7 * block
        tl.store(to, tl.sum(tl.sum(chance, 1), 0))
        tl.store(to + 1, tl.sum(tl.sum(chance * of_refined, 1), 0))
        tl.store(to + 2, tl.sum(tl.sum(of_refined, 1), 0))
        tl.store(to + 3, tl.sum(tl.sum(chance * of_given, 1), 0))
        tl.store(to + 4, tl.sum(tl.sum(of_given, 1), 0))
        tl.store(to + 5, tl.sum(tl.sum(tl.abs(logit) * band, 1), 0))
        tl.store(to + 6, tl.sum(tl.sum(band, 1), 0))


@triton.jit
def _pack(  # type: ignore[no-untyped-def]  # Triton reads annotations
    refined, given, squares, image, rows, columns, beside, packed, height, width, side, BLOCK: tl.constexpr
):
    """A cell's mean red, green and blue, and whether it is in one mask and in the other, from the lowest bits on."""
    mask, y = tl.program_id(0).to(tl.int64), tl.program_id(1)
    x = tl.program_id(2) * BLOCK + tl.arange(0, BLOCK)
    there = x < width
    step = tl.load(beside + mask)
    row = tl.load(rows + mask * height + y)
    column = tl.load(columns + mask * width + x, mask=there, other=0)
    next_row, next_column = tl.minimum(row + step, side - 1), tl.minimum(column + step, side - 1)
    picture = squares + tl.load(image + mask) * side * side * 3
    at = (mask * height + y) * width + x
    value = tl.load(refined + at, mask=there, other=0).to(tl.int32) << 24
    value |= tl.load(given + at, mask=there, other=0).to(tl.int32) << 25
    for channel in tl.static_range(3):
        total = tl.load(picture + (row * side + column) * 3 + channel, mask=there, other=0).to(tl.int32)
        total += tl.load(picture + (row * side + next_column) * 3 + channel, mask=there, other=0).to(tl.int32)
        total += tl.load(picture + (next_row * side + column) * 3 + channel, mask=there, other=0).to(tl.int32)
        total += tl.load(picture + (next_row * side + next_column) * 3 + channel, mask=there, other=0).to(tl.int32)
        value |= ((total + 2) // 4) << (8 * channel)  # rounded as OpenCV does
    tl.store(packed + at, value, mask=there)


@triton.jit
def _contrast(  # type: ignore[no-untyped-def]  # Triton reads annotations
    packed, cells, sums, height, width, REACH: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):
    """One block of one pair of masks."""
    mask = tl.program_id(0).to(tl.int64)
    y = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    x = tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS)
    high, wide = tl.load(cells + 2 * mask), tl.load(cells + 2 * mask + 1)
    block = (mask * tl.num_programs(1) + tl.program_id(1)) * tl.num_programs(2) + tl.program_id(2)
    own = _masks(packed, mask, y, x, high, wide, height, width, REACH)
    inner = own
    for down in range(-1, 2):
        for across in range(-1, 2):
            inner &= _masks(packed, mask, y + down, x + across, high, wide, height, width, REACH)
    edges = own & ~inner
    for which in tl.static_range(2):
        edge = (edges >> which) & 1
        if tl.sum(tl.sum(edge, 1), 0) > 0:
            there = (y < high)[:, None] & (x < wide)[None, :]
            weight = tl.zeros((ROWS, COLUMNS), tl.int32)
            red, green, blue = weight, weight, weight
            red_in, green_in, blue_in = weight, weight, weight
            for down in range(2 * REACH + 1):
                for across in range(2 * REACH + 1):
                    at = (mask * height + y + down)[:, None] * width + (x + across)[None, :]
                    value = tl.load(packed + at, mask=there, other=0)
                    inside = (value >> (24 + which)) & 1
                    weight += inside
                    red += value & 255
                    green += (value >> 8) & 255
                    blue += (value >> 16) & 255
                    red_in += (value & 255) * inside
                    green_in += ((value >> 8) & 255) * inside
                    blue_in += ((value >> 16) & 255) * inside
            outer = (2 * REACH + 1) * (2 * REACH + 1) - weight
            by_red = _difference(red_in, red, weight, outer)
            by_green = _difference(green_in, green, weight, outer)
            by_blue = _difference(blue_in, blue, weight, outer)
            counted = (edge > 0) & (outer > 0)
            distance = tl.sqrt(by_red * by_red + by_green * by_green + by_blue * by_blue)
            tl.store(sums + 4 * block + 2 * which, tl.sum(tl.sum(tl.where(counted, distance, 0.0), 1), 0))
            tl.store(sums + 4 * block + 2 * which + 1, tl.sum(tl.sum(counted.to(tl.float32), 1), 0))


@triton.jit
def _masks(packed, mask, y, x, high, wide, height, width, REACH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether cells, counted without borders, are in each mask: int32 of two bits, 0 outside of the canvas."""
    there = ((y >= 0) & (y < high))[:, None] & ((x >= 0) & (x < wide))[None, :]
    at = (mask * height + y + REACH)[:, None] * width + (x + REACH)[None, :]
    return tl.load(packed + at, mask=there, other=0) >> 24


@triton.jit
def _difference(inner, total, weight, outer):  # type: ignore[no-untyped-def]
    """Of the mean of a colour inside and outside."""
    inside = inner.to(tl.float32) / tl.maximum(weight, 1).to(tl.float32)
    return inside - (total - inner).to(tl.float32) / tl.maximum(outer, 1).to(tl.float32)
