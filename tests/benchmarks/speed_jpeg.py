"""JPEGs far larger than the model's input, decoded at a part of their size: CPU time, and whether the masks stay.

    python -m tests.benchmarks.speed_jpeg --data ../shared/data/dev --images 20

Photographs are enlarged and encoded again; each is decoded whole and reduced, in turn, and refined from both (`lite`,
one pass). Prints JSON: CPU milliseconds of decoding and resizing, and the IoU between the masks.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import masks
from pipeline.geometry import Frame, resize_to_input
from pipeline.images import decode_reduced
from pipeline.models import load_model
from pipeline.models.weights import resolve
from pipeline.refiners import REFINERS, RefineImage
from pipeline.storage import Access
from pipeline.work import INPUT_SIDES_DECODED
from schemas.config import resolve as resolve_config
from tests.benchmarks.speed_lite import MAX_PIXELS, SIDE, Photo, photos

QUALITY = 92


def enlarged(photo: Photo, times: int) -> bytes:
    """The photograph as a JPEG with `times` the pixels on a side."""
    with Image.open(photo.path) as image:
        large = image.convert("RGB").resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
    buffer = io.BytesIO()
    large.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def large_mask(rle: masks.Rle, times: int) -> masks.Rle:
    return masks.encode(np.kron(masks.decode(rle), np.ones((times, times), np.uint8)))


def loaded(data: bytes, side: int) -> tuple[RefineImage, float]:
    """The image as the model gets it, without masks, and the CPU seconds that took."""
    started = time.process_time()
    pixels, size_hw = decode_reduced(data, MAX_PIXELS, None, side)
    resized = resize_to_input(pixels, SIDE, size_hw)
    return RefineImage(resized, Frame(size_hw, SIDE), []), time.process_time() - started


def compare(chosen: list[Photo], times: int, rounds: int) -> dict[str, Any]:
    """Medians over all photographs and rounds."""
    model = load_model("lite", resolve("lite", None, Access()), "cpu", 1)
    method = resolve_config("fast").method
    spent: dict[str, list[float]] = {"whole": [], "reduced": []}
    sides = {"whole": 0, "reduced": SIDE * INPUT_SIDES_DECODED}
    between: list[float] = []
    for photo in chosen:
        data, coarse = enlarged(photo, times), [large_mask(rle, times) for rle in photo.coarse]
        answers = []
        for way, side in sides.items():
            times_s = []
            for _ in range(rounds):
                image, seconds = loaded(data, side)
                times_s.append(seconds)
            spent[way].append(min(times_s))
            answers.append(REFINERS["samrefiner"](model, [image._replace(coarse=coarse)], method)[0])
        between += [masks.iou(*(masks.decode(mask.rle) for mask in pair)) for pair in zip(*answers, strict=True)]
    whole, reduced = (1000 * statistics.median(spent[way]) for way in sides)
    return {
        "images": len(chosen),
        "masks": len(between),
        "cpu_ms_whole": round(whole, 1),
        "cpu_ms_reduced": round(reduced, 1),
        "ratio": round(whole / reduced, 2),
        "mean_iou_between": round(statistics.mean(between), 4),
        "least_iou_between": round(min(between), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--times", type=int, default=6, help="so many times the pixels on a side")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    found = photos(options.data, "superpixel")
    chosen = found[:: max(1, len(found) // options.images)][: options.images]
    print(json.dumps(compare(chosen, options.times, options.rounds)))


if __name__ == "__main__":
    main()
