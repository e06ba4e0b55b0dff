"""The five images and their masks that every source's input is made of."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

SIZE_HW = (48, 64)
LEFT = (8.0, 6.0, 30.0, 8.0, 28.0, 30.0, 10.0, 34.0)
RIGHT = (36.0, 10.0, 58.0, 12.0, 50.0, 42.0, 34.0, 36.0)
NOTHING: tuple[float, ...] = ()
"""No pixel: an empty mask, or a broken mask file where a format cannot say that."""
NAMES = {1: "猫", 2: "Straßenbahn"}
BROKEN = b"\xff\xd8\xff\xe0 this is no image"

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
Rle = dict[str, Any]


class Mask(NamedTuple):
    """One ring x1, y1, x2, y2, ... in pixels, and its category."""

    ring: tuple[float, ...]
    category: int


class Photo(NamedTuple):
    """An image with its masks. late: arrives in the second night; readable: whether its file can be decoded."""

    number: int
    uri: str
    masks: tuple[Mask, ...]
    late: bool = False
    readable: bool = True

    @property
    def stem(self) -> str:
        return str(PurePosixPath(self.uri).with_suffix(""))


Write = Callable[[Path, Sequence[Photo]], None]

BASE = (
    Photo(1, "a.jpg", (Mask(LEFT, 1), Mask(RIGHT, 2))),
    Photo(2, "sub/ö b.jpg", (Mask(RIGHT, 2),)),
    Photo(3, "odd.png", (Mask(NOTHING, 1),)),
    Photo(4, "broken.jpg", (Mask(LEFT, 1),), readable=False),
    Photo(5, "plain.jpg", ()),
)
GROWN = (*BASE, Photo(6, "new.jpg", (Mask(LEFT, 2),), late=True))


def rle(mask: Mask) -> Rle:
    """COCO compressed RLE."""
    if mask.ring:
        found = coco_mask.frPyObjects([list(mask.ring)], *SIZE_HW)[0]
    else:
        found = coco_mask.encode(np.zeros(SIZE_HW, np.uint8, order="F"))
    return {"size": list(SIZE_HW), "counts": found["counts"].decode()}


def pixels(mask: Mask) -> Pixels:
    """(H, W) uint8 {0, 1}."""
    return np.asarray(coco_mask.decode(rle(mask)), np.uint8)


def labels(photo: Photo, values: Sequence[int]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """(H, W) int64: 0, or the value of the last mask that covers the pixel."""
    canvas = np.zeros(SIZE_HW, np.int64)
    for mask, value in zip(photo.masks, values, strict=True):
        canvas[pixels(mask) > 0] = value
    return canvas


def image_bytes(photo: Photo) -> bytes:
    """A JPEG or PNG of coloured shapes on a gradient; what cannot be decoded where the image is broken."""
    if not photo.readable:
        return BROKEN
    y, x = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    canvas = np.stack([x * 2, y * 3, np.full_like(x, 20 * photo.number)], axis=2).astype(np.uint8)
    for number, mask in enumerate(photo.masks):
        canvas[pixels(mask) > 0] = (220, 60 + 90 * number, 40)
    return encode(canvas, "PNG" if photo.uri.endswith(".png") else "JPEG")


def encode(canvas: np.ndarray[Any, Any], kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.fromarray(canvas).save(sink, kind)
    return sink.getvalue()


def put(path: Path, data: bytes | str | dict[str, Any] | list[Any]) -> None:
    """Bytes and text as they are, all else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(data, bytes | str):
        data = json.dumps(data, ensure_ascii=False)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def put_images(folder: Path, photos: Sequence[Photo]) -> None:
    for photo in photos:
        put(folder / photo.uri, image_bytes(photo))
