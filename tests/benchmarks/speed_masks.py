"""CPU time of one mask beside the model, by the photograph's size: `python -m tests.benchmarks.speed_masks`.

All that `samrefiner` does around encoder and decoder: reading run lengths, prompts, views, scores, the mask that comes
out. The model answers from its prompts, and its own time is taken off. Each round takes every size in turn, so that
what else the machine does falls on all alike; the least of the rounds is shown. Coding the final mask, which has to
take time for each of its pixels, is shown apart.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.configuration import resolve
from pipeline.masks import binary, canvas
from pipeline.masks.frames import Frame
from pipeline.models import Candidates, PromptBatch
from pipeline.refiners import REFINERS, RefineImage
from schemas.config import Method
from tests.fakes import FakeModel

SIZES = {
    "0.3 MP": (480, 640),
    "0.8 MP": (768, 1024),
    "3 MP": (1536, 2048),
    "12 MP": (3000, 4000),
    "50 MP": (6124, 8165),
}
SHARE = 0.22  # of the image that the mask covers
MASKS = 4


class Timed(FakeModel):
    """Its own CPU time, of all threads."""

    def __init__(self) -> None:
        super().__init__()
        self.cpu_s = 0.0

    def encode(self, frames: Sequence[np.ndarray]) -> Any:
        started = time.process_time()
        found = super().encode(frames)
        self.cpu_s += time.process_time() - started
        return found

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        started = time.process_time()
        found = super().predict(embedding, prompts)
        self.shown.clear()
        self.cpu_s += time.process_time() - started
        return found


class Cost(NamedTuple):
    """Of one mask: `rest_ms` beside the model and coding, `coding_ms`, and the megapixels of its box."""

    rest_ms: float
    coding_ms: float
    box_mp: float


def scene(size_hw: tuple[int, int]) -> RefineImage:
    """Noise, and ragged discs of SHARE of the image."""
    height, width = size_hw
    frame, rng = Frame(size_hw, FakeModel.input_side), np.random.default_rng(0)
    rows, columns = np.ogrid[:300, : round(300 * width / height)]
    coarse = []
    for place in range(MASKS):
        centre = 0.45 + 0.03 * place
        distance = np.hypot(rows / 300 - centre, columns / 300 - centre * width / height)
        wave = cv2.resize(rng.normal(0, 0.02, (20, 20)), distance.shape[::-1], interpolation=cv2.INTER_CUBIC)
        small = (np.sqrt(SHARE / np.pi * width / height) - distance + wave).astype(np.float32)
        field = cv2.resize(small, size_hw[::-1])
        coarse.append(binary.encode(field > 0))
    return RefineImage(rng.integers(0, 256, (*frame.input_hw, 3), dtype=np.uint8), frame, coarse)


def cost(image: RefineImage, method: Method) -> Cost:
    """One pass over one image."""
    model, coding = Timed(), list[float]()
    plain = canvas.encode

    def timed(*arguments: Any) -> binary.Rle:
        started = time.thread_time()
        found = plain(*arguments)
        coding.append(time.thread_time() - started)
        return found

    from pipeline.refiners import verdict

    verdict.encode = timed
    try:
        started = time.process_time()
        [refined] = REFINERS["samrefiner"].run(model, [image], method)
        spent = time.process_time() - started - model.cpu_s - sum(coding)
    finally:
        verdict.encode = plain
    boxes = [binary.bbox_xywh(result.rle) for result in refined]
    mean_box = sum(box[2] * box[3] for box in boxes) / len(boxes) / 1e6
    return Cost(1000 * spent / len(refined), 1000 * sum(coding) / len(refined), mean_box)


def measure(preset: str, rounds: int) -> dict[str, Cost]:
    """The least of so many rounds, by size."""
    cv2.setNumThreads(1)
    method = resolve(preset, None, {"method": {"model": "vit_b", "iterations": 1}}).method
    scenes = {name: scene(size) for name, size in SIZES.items()}
    found: dict[str, list[Cost]] = {name: [] for name in SIZES}
    for _ in range(rounds):
        for name, image in scenes.items():
            found[name].append(cost(image, method))
    return {name: Cost(*(min(values) for values in zip(*costs, strict=True))) for name, costs in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    found = measure(options.preset, options.rounds)
    first = next(iter(found.values()))
    print("| photograph | ms a mask | of the smallest's | coding, ms | ms per MP of box |")
    print("| --- | --- | --- | --- | --- |")
    for name, one in found.items():
        times = one.rest_ms / first.rest_ms
        print(f"| {name} | {one.rest_ms:.1f} | {times:.2f} | {one.coding_ms:.1f} | {one.coding_ms / one.box_mp:.2f} |")


if __name__ == "__main__":
    main()
