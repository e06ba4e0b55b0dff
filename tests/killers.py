"""What dies on purpose: a model and a store that kill their process, for real, when they meet a marked image.

`python -m tests.killers run ...` is the `relabel` command with both put into the workers. The model is given as
`--refiner torchscript --checkpoint ANY_FILE`; it needs no torch.
"""

from __future__ import annotations

import ctypes
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.masks.frames import ORIGINAL_SIZE
from pipeline.models.weights import Weights
from pipeline.storage import Store

MARKS = {"segfault": (1, 2, 3), "exit": (1, 2, 4), "memory": (1, 2, 5), "raise": (1, 2, 6), "hang": (1, 2, 7)}
"""Colour of an image's first pixel -> what it does to the model."""


def die(how: str) -> None:
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(7)
    elif how == "memory":
        held = []
        while True:  # to the worker's limit
            held.append(np.ones(1 << 24, np.uint8))
    elif how == "raise":
        raise ValueError("this image is not to my taste")
    elif how == "hang":
        time.sleep(3600)


class KillerModel:
    """A PixelModel: the mask, smoothed, where the image is bright. `pause_s` for each mask."""

    name = "torchscript"
    input_side = ORIGINAL_SIZE

    def __init__(self, pause_s: float = 0.0) -> None:
        self.weights_sha256 = ""
        self._pause_s = pause_s

    def probability(self, image_rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        for how, colour in MARKS.items():
            if tuple(image_rgb[0, 0]) == colour:
                die(how)
        if self._pause_s:
            time.sleep(self._pause_s)
        smooth = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5)
        return np.asarray(smooth * (0.5 + image_rgb.mean(axis=2) / 255), np.float32)


def load_killer(_name: str, _weights: Weights, _device: str, _threads: int) -> Any:
    return KillerModel(float(os.environ.get("KILLER_PAUSE_S", "0")))


def without_torch(_device: str, threads: int) -> str:
    """An execution class that does not take seconds to find out."""
    return f"test; {threads} threads"


@dataclass(frozen=True)
class KillerStore(Store):
    """Reading `load-segfault.png` and its like kills the process, as a broken decoder would."""

    def read(self, path: str, size_bytes: int | None = None) -> bytes:
        name = Path(path).stem
        if name.startswith("load-"):
            die(name.removeprefix("load-"))
        return super().read(path, size_bytes)


def picture(seed: int, mark: str | None = None, side: int = 48) -> Image.Image:
    """A seeded picture, `mark`ed for the model."""
    pixels = np.random.default_rng(seed).integers(60, 255, (side, side, 3), dtype=np.uint8)
    if mark:
        pixels[0, 0] = MARKS[mark]
    return Image.fromarray(pixels)


def main() -> None:
    from jobs import cli
    from pipeline import job as job_module
    from tests import killers  # not as __main__: workers and fresh processes look them up by name  # noqa: PLW0406  # noqa: PLW0406

    make_job = job_module.make_job

    def with_killers(*arguments: Any) -> Any:
        job = make_job(*arguments)
        images = killers.KillerStore(job.inputs.images.uri, job.inputs.images.access)
        return replace(
            job,
            loader=killers.load_killer,
            execution_of=killers.without_torch,
            inputs=replace(job.inputs, images=images),
        )

    job_module.make_job = with_killers
    cli.main()


if __name__ == "__main__":
    main()
