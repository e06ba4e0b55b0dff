"""Decoded images in one memory-mapped file: decoded once, shared by all processes, read from where they are needed.

The file is `<key>.pixels`, images one after another, (h, w, 3) uint8 RGB; `<key>.json` has their shapes. The key is the
hash of the images' names, sizes and times of change, so another data set, or a changed one, gets another file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.errors import RefusedError

Pixels = npt.NDArray[np.uint8]


def read_images(paths: Sequence[Path], cache: Path | None) -> list[Pixels]:
    """(h, w, 3) uint8 RGB of each path; through `cache` where given. Raises RefusedError for what is not an image."""
    if cache is None:
        with ThreadPoolExecutor() as pool:
            return list(pool.map(read_image, paths))
    cache.mkdir(parents=True, exist_ok=True)
    pixels, shapes = (cache / f"{_key(paths)}{suffix}" for suffix in (".pixels", ".json"))
    if not shapes.exists():
        _write(paths, pixels, shapes)
    return _open(pixels, shapes)


def read_image(path: Path) -> Pixels:
    """(h, w, 3) uint8 RGB. Raises RefusedError where there is none."""
    found = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if found is None:
        raise RefusedError(f"{path} is missing or not an image")
    return np.ascontiguousarray(found[:, :, ::-1], np.uint8)


def _key(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        try:
            facts = path.stat()
        except OSError:
            raise RefusedError(f"{path} is missing or not an image") from None
        digest.update(f"{path}\0{facts.st_size}\0{facts.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:16]


def _write(paths: Sequence[Path], pixels: Path, shapes: Path) -> None:
    """Both files, each complete before it has its name; the shapes last."""
    found: list[tuple[int, ...]] = []
    partial = pixels.with_suffix(f".{os.getpid()}.tmp")
    with partial.open("wb") as sink:
        for path in paths:
            image = read_image(path)
            found.append(image.shape)
            sink.write(image.tobytes())
    partial.replace(pixels)
    partial.write_text(json.dumps(found))
    partial.replace(shapes)


def _open(pixels: Path, shapes: Path) -> list[Pixels]:
    sizes = [tuple(shape) for shape in json.loads(shapes.read_text())]
    if not sizes:
        return []
    flat = np.memmap(pixels, np.uint8, "r")
    ends = np.cumsum([int(np.prod(size)) for size in sizes])
    return [part.reshape(size) for part, size in zip(np.split(flat, ends[:-1]), sizes, strict=True)]
