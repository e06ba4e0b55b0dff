"""JPEGs far larger than the model's input, decoded at a part of their size: CPU time, and whether the masks stay.

    python -m tests.benchmarks.speed_jpeg --data ../shared/data/dev --images 20

Photographs are enlarged and encoded again; each is decoded whole and reduced, in turn, and refined from both (`lite`,
one pass). Prints JSON: CPU milliseconds of decoding and resizing, and the IoU between the masks; beside it, as a
yardstick, the IoU where the file was decoded whole but encoded at two points of quality less.
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

from pipeline.configuration import resolve as resolve_config
from pipeline.decoding.decode import decode_reduced
from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import load_model
from pipeline.models.weights import resolve
from pipeline.refiners import REFINERS, RefineImage
from pipeline.refining.chunk import INPUT_SIDES_DECODED
from pipeline.storage import Access
from tests.benchmarks.speed_lite import MAX_PIXELS, SIDE, Photo, photos

QUALITY, LOWER_QUALITY = 92, 90


def enlarged(photo: Photo, times: int) -> tuple[bytes, bytes]:
    """The photograph as a JPEG with `times` the pixels on a side, at QUALITY and at LOWER_QUALITY."""
    with Image.open(photo.path) as image:
        large = image.convert("RGB").resize((image.width * times, image.height * times), Image.Resampling.BICUBIC)
    files = io.BytesIO(), io.BytesIO()
    for file, quality in zip(files, (QUALITY, LOWER_QUALITY), strict=True):
        large.save(file, "JPEG", quality=quality)
    return files[0].getvalue(), files[1].getvalue()


def large_mask(rle: binary.Rle, times: int) -> binary.Rle:
    return binary.encode(np.kron(binary.decode(rle), np.ones((times, times), np.uint8)))


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
    spent: dict[str, list[float]] = {"whole": [], "reduced": [], "recompressed": []}
    between: dict[str, list[float]] = {"reduced": [], "recompressed": []}
    for photo in chosen:
        data, lower = enlarged(photo, times)
        coarse = [large_mask(rle, times) for rle in photo.coarse]
        ways = {"whole": (data, 0), "reduced": (data, SIDE * INPUT_SIDES_DECODED), "recompressed": (lower, 0)}
        answers = {}
        for way, (file, side) in ways.items():
            tries = [loaded(file, side) for _ in range(rounds)]
            spent[way].append(min(seconds for _, seconds in tries))
            image = tries[0][0]._replace(coarse=coarse)
            refined = REFINERS["samrefiner"].run(model, [image], method)[0]
            answers[way] = [binary.decode(mask.rle) for mask in refined]
        for way, ious in between.items():
            ious += [binary.iou(*pair) for pair in zip(answers["whole"], answers[way], strict=True)]
    whole, reduced = (1000 * statistics.median(spent[way]) for way in ("whole", "reduced"))
    return {
        "images": len(chosen),
        "masks": len(between["reduced"]),
        "cpu_ms_whole": round(whole, 1),
        "cpu_ms_reduced": round(reduced, 1),
        "ratio": round(whole / reduced, 2),
        "iou": {
            way: {"mean": round(statistics.mean(ious), 4), "least": round(min(ious), 4)}
            for way, ious in between.items()
        },
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
