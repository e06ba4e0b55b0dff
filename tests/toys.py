"""A refiner, two models, a source and an export from outside the package, as another package would bring them.

`python -m tests.toys ...` is the `relabel` command with them registered, in its own process and in no other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.dataset.by_image import Group
from pipeline.exports.registry import EXPORTS
from pipeline.exports.types import Export, Job, Piece
from pipeline.masks.binary import Mask
from pipeline.masks.frames import PROMPT_SIDE
from pipeline.models import MODELS, Checkpoint, ModelSpec, Runtime
from pipeline.refiners import REFINERS, Refiner, pixelwise
from pipeline.sources import SOURCES, PlannedImage, PlannedMask, Source, SourceInput
from pipeline.storage import Access, split_uri
from tests.fakes import FakeModel


def grow(image_rgb: npt.NDArray[np.uint8], coarse: Mask) -> Mask:
    """A refiner: the mask, one pixel larger all around."""
    assert image_rgb.shape[:2] == coarse.shape
    return np.asarray(cv2.dilate(coarse, np.ones((3, 3), np.uint8)), np.uint8)


class Brightness:
    """A PixelModel: what is brighter than its weights say is foreground."""

    def __init__(self, spec: ModelSpec, cut: int, weights_sha256: str) -> None:
        self.name, self.input_side, self.weights_sha256 = spec.name, spec.input_side, weights_sha256
        self._cut = cut

    def probability(self, image_rgb: npt.NDArray[np.uint8], mask: Mask) -> npt.NDArray[np.float32]:
        assert max(image_rgb.shape[:2]) == self.input_side
        assert image_rgb.shape[:2] == mask.shape
        return (image_rgb.mean(axis=2) > self._cut).astype(np.float32)


def read_brightness(uri: str, access: Access) -> ModelSpec:
    """What a file of weights says of itself."""
    store, name = split_uri(uri, access)
    return replace(BRIGHTNESS, input_side=json.loads(store.read(name))["input_side"])


def load_brightness(spec: ModelSpec, path: Path, sha256: str, _runtime: Runtime) -> Brightness:
    return Brightness(spec, json.loads(path.read_text())["cut"], sha256)


def load_fake(_spec: ModelSpec, _path: Path, _sha256: str, _runtime: Runtime) -> FakeModel:
    return FakeModel()


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """A text file: a line `NAME x y width height` for each image with its one mask."""
    store, name = split_uri(given.masks_uri, given.access)
    for line in store.read(name).decode().splitlines():
        uri, *numbers = line.split()
        x, y, width, height = map(int, numbers)
        polygon = [[x, y, x + width, y, x + width, y + height, x, y + height]]
        yield PlannedImage(uri, uri, None, [PlannedMask("1", 1, "thing", json.dumps(polygon))])


def write_areas(job: Job, group: Group, index: int) -> Piece:
    """An export: a line `NAME area` for each mask."""
    piece = Piece(files=[f"areas-{index}.txt"])
    lines = []
    for image in job.read(group, piece):
        piece.count(image)
        lines += [f"{image.uri} {mask['area']}\n" for mask in image.masks]
    job.target.put(piece.files[0], "".join(lines).encode())
    return piece


def finish_areas(_job: Job, _pieces: Sequence[Piece]) -> Piece:
    return Piece()


BRIGHTNESS = ModelSpec(
    "brightness", load_brightness, checkpoint=Checkpoint("a JSON file with input_side and cut"), read=read_brightness
)
FAKE = ModelSpec("fake", load_fake, promptable=True, input_side=PROMPT_SIDE, defaults={"iterations": 2})
GROWN = Refiner(pixelwise.each_mask(grow), model="none")
BRIGHT = Refiner(pixelwise.by_network, model="brightness")
LINES = Source(scan)
AREAS = Export(write_areas, finish_areas)


def register() -> None:
    """The lines that another package needs."""
    REFINERS.update({"grown": GROWN, "bright": BRIGHT})
    MODELS.update({"brightness": BRIGHTNESS, "fake": FAKE})
    SOURCES["lines"] = LINES
    EXPORTS["areas"] = AREAS


def main() -> None:
    from tests import toys  # by the name that workers find it by, not as __main__  # noqa: PLW0406

    toys.register()

    from jobs import cli

    cli.main()


if __name__ == "__main__":
    main()
