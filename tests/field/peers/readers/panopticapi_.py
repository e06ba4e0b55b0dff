"""panopticapi: the segments by its rgb2id; and its `pq_compute` against the original."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from decoded import Decoded, main
from panopticapi.evaluation import pq_compute
from panopticapi.utils import rgb2id
from PIL import Image


def read(path: str, original: str = "", quality: str = "1") -> Iterator[Decoded]:
    content = json.loads(Path(path).read_text())
    images = {image["id"]: image["file_name"] for image in content["images"]}
    names = {category["id"]: category["name"] for category in content["categories"]}
    for annotation in content["annotations"]:
        with Image.open(Path(path.removesuffix(".json"), annotation["file_name"])) as image:
            ids = rgb2id(np.array(image.convert("RGB"), np.uint32))
        for segment in annotation["segments_info"]:
            yield images[annotation["image_id"]], names[segment["category_id"]], ids == segment["id"]
    if original:
        found = pq_compute(original, path)["All"]
        assert abs(found["pq"] - float(quality)) < 1e-9, found


if __name__ == "__main__":
    main(read)
