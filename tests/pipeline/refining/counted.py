"""A model that notes each time that it is loaded, and a run that keeps nothing by chance."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.progress.breakdown import ChunkFinished
from pipeline.refining.chunk import Task
from pipeline.refining.ray_pipeline import refine_chunks
from tests.fakes import FakeModel


@dataclass(frozen=True)
class CountedLoader:
    """A `Job.loader` that appends its process to a file."""

    file: Path

    def __call__(self, *_: Any) -> FakeModel:
        with self.file.open("a") as loads:
            loads.write(f"{os.getpid()}\n")
        return FakeModel()

    def processes(self) -> list[int]:
        """That have loaded it, one for each time."""
        return [int(line) for line in self.file.read_text().split()]


class DeadlyModel(FakeModel):
    """Ends the worker of Ray that it is in when it meets an image of this mean brightness."""

    def __init__(self, brightness: float) -> None:
        super().__init__()
        self._brightness = brightness

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        if "ray" in sys.modules and any(float(frame.mean()) == self._brightness for frame in frames):
            os._exit(1)
        return super().encode(frames)


@dataclass(frozen=True)
class DeadlyLoader(CountedLoader):
    brightness: float

    def __call__(self, *given: Any) -> FakeModel:
        super().__call__(*given)
        return DeadlyModel(self.brightness)


def execution(*_: Any) -> str:
    return "test"


def refine_tidily(segments: Iterator[Sequence[Task]], *how: Any) -> Iterator[ChunkFinished]:
    """As `refine_chunks`; what nobody holds is gone before the next segment begins."""

    def tidied() -> Iterator[Sequence[Task]]:
        for tasks in segments:
            gc.collect()
            yield tasks

    return refine_chunks(tidied(), *how)
