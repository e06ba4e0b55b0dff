"""A residual sum and the layer norm of it as one kernel (Triton): what reads and writes memory alone, done once."""
# ruff: noqa: N803 - Triton's constants are capitals by custom

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

WARPS = 4


def add_and_norm(x: Tensor, added: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + added, (..., C) float32, and its layer norm over C in the dtype of `added`.

    x: (..., C) float32; added: the same form, float16 or bfloat16; weight, bias: (C,) float32. All contiguous.
    """
    total, normed = torch.empty_like(x), torch.empty_like(added)
    channels = x.shape[-1]
    lanes = triton.next_power_of_2(channels)
    _add_and_norm[(x.numel() // channels,)](
        x, added, weight, bias, total, normed, CHANNELS=channels, LANES=lanes, EPS=eps, num_warps=WARPS
    )
    return total, normed


@triton.jit
def _add_and_norm(  # type: ignore[no-untyped-def]  # Triton reads annotations
    x, added, weight, bias, total, normed, CHANNELS: tl.constexpr, LANES: tl.constexpr, EPS: tl.constexpr
):
    """One token."""
    lane = tl.arange(0, LANES)
    filled = lane < CHANNELS
    at = tl.program_id(0).to(tl.int64) * CHANNELS + lane
    values = tl.load(x + at, mask=filled, other=0.0) + tl.load(added + at, mask=filled, other=0.0).to(tl.float32)
    tl.store(total + at, values, mask=filled)
    centred = tl.where(filled, values - tl.sum(values, 0) / CHANNELS, 0.0)
    scale = tl.rsqrt(tl.sum(centred * centred, 0) / CHANNELS + EPS)
    answer = centred * scale * tl.load(weight + lane, mask=filled, other=0.0)
    answer += tl.load(bias + lane, mask=filled, other=0.0)
    tl.store(normed + at, answer.to(normed.dtype.element_ty), mask=filled)
