"""How fast a model refines here: each stage alone, the whole, and what bounds it. One process, no Ray.

Images are the caller's, masks are made up: discs, so many an image. Times are wall-clock of this machine as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from pipeline.decoding.decode import decode_image
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.masks.frames import FloatArray
from pipeline.models import Asked, Candidates, MaskModel, Pending, PromptBatch, frame_for, input_for
from pipeline.refiners import RefineImage, refine
from schemas.config import Method

T = TypeVar("T")
Pixels = npt.NDArray[np.uint8]


@dataclass
class TimedModel:
    """A MaskModel that notes how long it computes. `settle` waits for its device."""

    model: MaskModel
    settle: Callable[[], None]
    encode_s: float = 0.0
    predict_s: float = 0.0
    prompts: int = 0
    name: str = field(init=False)
    weights_sha256: str = field(init=False)
    input_side: int = field(init=False)
    stretched: bool = field(init=False)
    mask_side: int = field(init=False)
    similarity_cut: float = field(init=False)
    reads_coarse: bool = field(init=False)
    looks: bool = False  # each of its answers is waited for, to be timed

    def __post_init__(self) -> None:
        for own in ("name", "weights_sha256", "input_side", "stretched", "mask_side", "similarity_cut", "reads_coarse"):
            setattr(self, own, getattr(self.model, own))

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """See MaskModel."""
        embedding, seconds = self._timed(lambda: self.model.encode(frames))
        self.encode_s += seconds
        return embedding

    def features(self, embedding: Any, image: int) -> FloatArray:
        """See MaskModel."""
        return self.model.features(embedding, image)

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        """See MaskModel."""
        answer, seconds = self._timed(lambda: self.model.predict(embedding, prompts))
        self.predict_s += seconds
        self.prompts += len(prompts)
        return answer

    def look(self, embedding: Any, mirrored: Any | None, asked: Asked) -> Pending:
        """See MaskModel."""
        return self.model.look(embedding, mirrored, asked)

    def _timed(self, work: Callable[[], T]) -> tuple[T, float]:
        self.settle()
        started = time.perf_counter()
        answer = work()
        self.settle()
        return answer, time.perf_counter() - started


@dataclass(frozen=True)
class Ceiling:
    """What the device can do: TFLOP/s of matrix products, and TFLOP of the model's encoder for one image."""

    tflops: float
    encoder_tflop: float


def bench(
    model: MaskModel, settle: Callable[[], None], photos: Sequence[bytes], masks_per_image: int, method: Method
) -> dict[str, Any]:
    """Seconds and rates of each stage and of the whole over `photos` (encoded images), after one image to warm up."""
    started = time.perf_counter()
    pixels = [decode_image(photo, method.max_image_pixels) for photo in photos]
    inputs = [input_for(model, image) for image in pixels]
    load_s = time.perf_counter() - started
    images = [with_discs(model, image, resized, masks_per_image) for image, resized in zip(pixels, inputs, strict=True)]
    refine(model, images[: method.encode_batch], method)
    timed = TimedModel(model, settle)
    started = time.perf_counter()
    refined = refine(timed, images, method)
    refine_s = time.perf_counter() - started
    count, total = len(images), sum(map(len, refined))
    stages = {
        "load": (load_s, count),
        "encode": (timed.encode_s, count),
        "decode": (timed.predict_s, timed.prompts),
        "prompts, masks and scores": (refine_s - timed.encode_s - timed.predict_s, timed.prompts),
    }
    whole_s = load_s + refine_s
    return {
        "images": count,
        "masks": total,
        "stages": {
            name: {"seconds": seconds, "share": seconds / whole_s, "per_s": done / max(seconds, 1e-9)}
            for name, (seconds, done) in stages.items()
        },
        "images_per_s": count / whole_s,
        "masks_per_s": total / whole_s,
        "encoder_images_per_s": count / timed.encode_s,
        "bound_by": max(stages, key=lambda name: stages[name][0]),
    }


def against_ceiling(result: dict[str, Any], ceiling: Ceiling) -> dict[str, Any]:
    """The encoder's TFLOP/s and its share of what the device can do."""
    tflops = result["encoder_images_per_s"] * ceiling.encoder_tflop
    return {"encoder_tflops": tflops, "ceiling_tflops": ceiling.tflops, "encoder_share": tflops / ceiling.tflops}


def estimate(images_per_s: float, images: int, devices: int, price_per_hour: float) -> dict[str, float]:
    """Hours and cost of refining `images` at the measured rate on so many devices like this one."""
    hours = images / images_per_s / 3600 / devices
    return {"images": images, "devices": devices, "hours": hours, "cost": hours * devices * price_per_hour}


def with_discs(model: MaskModel, image: Pixels, resized: Pixels, count: int) -> RefineImage:
    """An image (H, W, 3) uint8 as the model takes it (`resized`), with made-up masks."""
    return RefineImage(resized, frame_for(model, (image.shape[0], image.shape[1])), discs(image, count))


def discs(image: npt.NDArray[np.uint8], count: int) -> list[Rle]:
    """`count` discs of 3 to 15 % of the long side in an (H, W, 3) image, the same ones each time."""
    height, width = image.shape[:2]
    rng = np.random.default_rng([height, width])
    rows, columns = np.ogrid[:height, :width]
    drawn = []
    for _ in range(count):
        y, x, radius = rng.integers(height), rng.integers(width), rng.uniform(0.03, 0.15) * max(height, width)
        drawn.append(binary.encode((rows - y) ** 2 + (columns - x) ** 2 <= radius**2))
    return drawn
