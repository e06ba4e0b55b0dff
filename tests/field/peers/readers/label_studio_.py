"""Label Studio: its own decoder of brush regions, of the SDK or of the older converter."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from decoded import Decoded, main

try:
    from label_studio_sdk.converter.brush import decode_rle
except ImportError:
    from label_studio_converter.brush import decode_rle


def read(path: str) -> Iterator[Decoded]:
    for task in json.loads(Path(path).read_text()):
        for region in task["predictions"][0]["result"]:
            size = region["original_height"], region["original_width"], 4
            pixels = decode_rle(region["value"]["rle"]).reshape(size)
            assert set(pixels.ravel().tolist()) <= {0, 255}
            yield task["data"]["image_uri"], region["value"]["brushlabels"][0], pixels[..., 3] > 0


if __name__ == "__main__":
    main(read)
