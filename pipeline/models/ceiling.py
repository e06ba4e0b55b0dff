"""What the device can do: its rate of matrix products, and the memory that was used."""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from pipeline.models.protocol import MaskModel

ENOUGH_S = 5.0


def matmul_tflops(device: str, dtype: str = "float32") -> float:
    """The best of several products of square matrices, in TFLOP/s: the ceiling to hold a network against."""
    side, tries = (8192, 20) if device.startswith("cuda") else (1024, 20)
    first, second = (torch.randn(side, side, device=device).to(getattr(torch, dtype)) for _ in range(2))
    best, begun = float("inf"), time.perf_counter()
    for _ in range(tries):
        settle(device)
        started = time.perf_counter()
        torch.mm(first, second)
        settle(device)
        best = min(best, time.perf_counter() - started)
        if time.perf_counter() - begun > ENOUGH_S:  # bfloat16 on a CPU that has no instructions for it
            break
    return 2 * side**3 / best / 1e12


def counted_tflop(model: MaskModel) -> float:
    """Of the encoder for one image: what it multiplies while it encodes a black one, two operations for each pair.

    In float32, where the model takes others by autocast: a counter is given operators that autocast does not reach.
    """
    square = np.zeros((model.input_side, model.input_side, 3), np.uint8)
    dtype = getattr(model, "autocast_dtype", None)
    try:
        if dtype is not None:
            model.autocast_dtype = torch.float32  # type: ignore[attr-defined]
        with FlopCounterMode(display=False) as counter:
            model.encode([square])
    finally:
        if dtype is not None:
            model.autocast_dtype = dtype  # type: ignore[attr-defined]
    return float(counter.get_total_flops()) / 1e12


def gpus_here() -> int:
    """How many GPUs this process can use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def settle(device: str) -> None:
    """Wait for what the device was given to do."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def peak_memory_mb(device: str) -> float:
    """Most memory that this process held so far: the device's, or its resident set on CPUs."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux kilobytes
