"""Training on several CPU cores: one single-threaded process a core, gradients averaged after every step.

Threads wait for one another after every layer, processes once a step: on a busy machine a step in two processes took a
third of the time of the same step in two threads. Outside `together`, every function does nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

PATIENCE = timedelta(minutes=20)  # of a process whose peer validates


@contextmanager
def together(processes: int, follow: Callable[[Any], None], argument: Any) -> Iterator[None]:
    """Run the body as process 0 beside `processes - 1` others that run follow(argument)."""
    if processes == 1:
        yield
        return
    with tempfile.TemporaryDirectory() as folder:
        meeting = Path(folder) / "meeting"
        context = mp.get_context("spawn")
        others = [
            context.Process(target=_follow, args=(rank, processes, meeting, follow, argument))
            for rank in range(1, processes)
        ]
        for other in others:
            other.start()
        try:
            _join(0, processes, meeting)
            yield
            for other in others:
                other.join()
        finally:
            for other in others:
                other.terminate()
            dist.destroy_process_group()


def _follow(rank: int, processes: int, meeting: Path, follow: Callable[[Any], None], argument: Any) -> None:
    _join(rank, processes, meeting)
    follow(argument)


def _join(rank: int, processes: int, meeting: Path) -> None:
    dist.init_process_group("gloo", f"file://{meeting}", timeout=PATIENCE, rank=rank, world_size=processes)


def rank() -> int:
    """Which process this is; 0 reports, validates and saves."""
    return dist.get_rank() if dist.is_initialized() else 0


def agree(value: float) -> float:
    """Process 0's value."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)


def average_gradients(parameters: list[Tensor]) -> None:
    """Replace every gradient by the mean over the processes. All processes must have the same ones."""
    if not dist.is_initialized():
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    for gradient, mean in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(mean.view_as(gradient))
