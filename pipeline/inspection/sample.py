"""The chosen images as a run would load them: pixels, masks, and why one or the other cannot be used."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.decoding import raster
from pipeline.decoding.decode import EXIF_ORIENTATION
from pipeline.errors import ImageError
from pipeline.planning.rows import as_rows
from pipeline.refining.chunk import Inputs, load
from pipeline.sources import PlannedImage
from pipeline.storage import STORE_ERRORS, Store, StoredFile
from pipeline.storage.containers import read_image
from schemas.config import Method

VIEW_PX = 960
"""Long side of the pixels that are kept of an image."""
BATCH_IMAGES = 8

Row = dict[str, Any]


class Header(NamedTuple):
    """What a file says of itself: stored_hw (H, W) before any turn; orientation: EXIF's, 1 for upright."""

    format: str
    mode: str
    stored_hw: tuple[int, int]
    orientation: int


class Seen(NamedTuple):
    """An image that was looked at.

    row: as of `schemas.records.LOADED`, with `masks`; pixels: (h, w, 3) uint8 RGB, VIEW_PX on the long side, None where
    the image failed.
    """

    row: Row
    pixels: npt.NDArray[np.uint8] | None
    header: Header | None


def look_at(
    chosen: Sequence[PlannedImage],
    listed: Mapping[str, StoredFile],
    inputs: Inputs,
    method: Method,
    threads: int,
    on_image: Callable[[int], None],
) -> Iterator[Seen]:
    """Load the images, a few at a time. Raises StorageError when the store gives nothing."""
    rows = as_rows(chosen, listed)
    for start in range(0, rows.num_rows, BATCH_IMAGES):
        table = load(rows.slice(start, BATCH_IMAGES), inputs, method, VIEW_PX, threads)
        for row in table.to_pylist():
            yield _seen(row, inputs.images)
            on_image(1)


def _seen(row: Row, images: Store) -> Seen:
    data, size = row.pop("pixels"), row.pop("pixels_hw")
    if row["status"] != "ok":
        return Seen(row, None, None)
    return Seen(row, np.frombuffer(data, np.uint8).reshape(*size, 3), _header(images, row["image_uri"]))


def _header(images: Store, uri: str) -> Header | None:
    try:
        data = read_image(images, uri)
    except (ImageError, *STORE_ERRORS):
        return None
    return header(data)


def header(data: bytes) -> Header | None:
    """An image file's own words; None for what is no image."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=raster.formats()) as image:
                turn = image.getexif().get(EXIF_ORIENTATION, 1)
                orientation = turn if turn in range(1, 9) else 1
                return Header(str(image.format), image.mode, (image.height, image.width), orientation)
    except Exception:  # Pillow's decoders raise whatever a broken file leads them to
        return None
