"""CPU time of an image beside a GPU: `python -m tests.benchmarks.speed_beside [--size 3000 4000]`.

What is left to the CPU where a device decodes and judges: prompts from the coarse masks, and the masks that come out. A
small Segment Anything of random weights answers like coarse masks (`gpu_models.CoarseLike`); its answers are computed
once and kept, and only the rest is timed. The least of the rounds is shown.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.models.protocol import Asked, Found
from pipeline.refiners import REFINERS
from tests.benchmarks.gpu_models import (
    MASKS_PER_IMAGE,
    SIZES,
    SMALL,
    CoarseLike,
    checkpoint,
    coarse_like,
    method,
    scenes,
)

IMAGES = 8


class Kept:
    """A model whose embeddings and answers are those of the first time that it was asked the same."""

    looks = True

    def __init__(self, model: CoarseLike) -> None:
        self._model = model
        self._embeddings: dict[int, Any] = {}
        self._answers: dict[float, Found] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode(self, frames: list[npt.NDArray[np.uint8]]) -> Any:
        """See MaskModel."""
        asked = sum(int(frame[::64, ::64].sum()) for frame in frames)
        if asked not in self._embeddings:
            self._embeddings[asked] = self._model.encode(frames)
        return self._embeddings[asked]

    def look(self, embedding: Any, mirrored: Any | None, asked: Asked) -> Answer:
        """See MaskModel."""
        assert asked.prompts.boxes_xyxy is not None
        name = float(asked.prompts.boxes_xyxy.sum())
        if name not in self._answers:
            self._answers[name] = self._model.look(embedding, mirrored, asked).found()
        return Answer(self._answers[name])


class Answer:
    """One that is there already."""

    def __init__(self, found: Found) -> None:
        self._found = found

    def found(self) -> Found:
        """See Pending."""
        return self._found


def measure(size_hw: tuple[int, int], rounds: int) -> float:
    """CPU milliseconds an image."""
    with checkpoint(SMALL, "cpu") as path:
        model = Kept(coarse_like(SMALL, path, "cpu", torch.float32, None))
    images, of_method = scenes(size_hw, IMAGES, model.input_side), method("vit_b")
    REFINERS["samrefiner"].run(model, images, of_method)
    times = []
    for _ in range(rounds):
        started = time.process_time()
        REFINERS["samrefiner"].run(model, images, of_method)
        times.append(time.process_time() - started)
    return 1000 * min(times) / IMAGES


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), default=SIZES["0.5 MP"])
    parser.add_argument("--rounds", type=int, default=9)
    given = parser.parse_args()
    cost_ms = measure(tuple(given.size), given.rounds)
    print(f"{cost_ms:.1f} CPU-ms an image with {MASKS_PER_IMAGE} masks")


if __name__ == "__main__":
    main()
