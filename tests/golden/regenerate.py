"""Golden outputs of the method on the demo's photographs with the deterministic model.

    python -m tests.golden.regenerate

rewrites samrefiner.json. Do it only together with a bump of METHOD_VERSION (schemas/config.py): results that were made
by the old method must not be taken for results of the new one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.masks.frames import Frame
from pipeline.refiners import REFINERS, RefineImage, load_pixels
from schemas.config import METHOD_VERSION, Method
from schemas.presets import PRESETS
from tests.conftest import DEMO
from tests.fakes import FakeModel

GOLDEN = Path(__file__).parent / "samrefiner.json"


def demo_images(method: Method) -> list[RefineImage]:
    """The demo's photographs as they are loaded, with their hand-drawn masks."""
    content = json.loads((DEMO / "coarse.json").read_text())
    images = []
    for image in content["images"]:
        pixels = np.asarray(Image.open(DEMO / "images" / image["file_name"]).convert("RGB"))
        frame = Frame((image["height"], image["width"]), FakeModel.input_side)
        polygons = [a["segmentation"] for a in content["annotations"] if a["image_id"] == image["id"]]
        coarse = [binary.from_polygons(polygon, frame.size_hw) for polygon in polygons]
        images.append(RefineImage(load_pixels(method, pixels, FakeModel.input_side), frame, coarse))
    return images


def compute() -> dict[str, Any]:
    """METHOD_VERSION and, for each preset, every mask's RLE and scores."""
    outputs: dict[str, Any] = {"method_version": METHOD_VERSION}
    for preset in PRESETS:
        method = resolve(preset, None, {"method": {"iterations": 2}}).method
        images = demo_images(method)
        refined = REFINERS["samrefiner"].run(FakeModel(), images, method)
        outputs[preset] = [
            {
                "rle": result.rle,
                "scores": {name: round(value, 5) for name, value in result.scores.items()},
            }
            for of_image in refined
            for result in of_image
        ]
    return outputs


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(compute(), indent=0, sort_keys=True) + "\n")
    print(f"wrote {GOLDEN}")
