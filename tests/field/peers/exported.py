"""One result with the shapes that formats differ in, and what each peer should see of it."""

from __future__ import annotations

import json
import os
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import binary_fill_holes, gaussian_filter

from pipeline.masks import binary
from tests.field.peers import environments
from tests.pipeline.exports.results import ImageCase, MaskCase

Pixels = np.ndarray[Any, np.dtype[Any]]
Seen = dict[tuple[str, str], list[Pixels]]
"""(image, class) -> its masks; the classes are some of Cityscapes', by its ids."""

CLASSES = {7: "road", 11: "building", 24: "person", 26: "car"}


def cases() -> list[ImageCase]:
    """Nested and overlapping masks, holes, parts, pixels that touch at corners; odd names, folders and sizes."""
    eye = box((60, 80), 20, 24, 30, 34)
    return [
        ImageCase("nested.png", (60, 80), [mask(box((60, 80), 5, 50, 10, 70), 11), mask(eye, 24)]),
        ImageCase("sub/holes & parts.png", (60, 80), [mask(_holes(), 26), mask(_parts(), 24)]),
        ImageCase("IMG.1.png", (12, 15), [mask(np.eye(12, 15), 7), mask(box((12, 15), 0, 1, 14, 15), 24)]),
        ImageCase("IMG_1.png", (10, 19), [mask(box((10, 19), 9, 10, 2, 5), 26)]),
        ImageCase("images/épée.png", (200, 300), [mask(blob(seed), number) for seed, number in enumerate(CLASSES)]),
        ImageCase("nothing.png", (10, 10), []),
    ]  # fmt: skip


def photographs(folder: Path, annotations: Path, at_most: int = 100) -> list[ImageCase]:
    """Masks of a COCO file, the annotations' ids as classes; images of noise of the same sizes."""
    content = json.loads(annotations.read_text())
    cases = {
        image["id"]: ImageCase(f"{image['id']}.png", (image["height"], image["width"])) for image in content["images"]
    }
    for number, one in enumerate(content["annotations"][:at_most], 1):
        case = cases[one["image_id"]]
        rle = binary.from_segmentation(one["segmentation"], case.size_hw)
        case.masks.append(MaskCase(binary.decode(rle), number, str(number)))
    return [case for case in cases.values() if case.masks]


def mask(pixels: Pixels, number: int) -> MaskCase:
    """A mask of one of CLASSES."""
    return MaskCase(pixels.astype(np.uint8), number, CLASSES[number])


def box(size_hw: tuple[int, int], top: int, bottom: int, left: int, right: int) -> Pixels:
    """(H, W) {0, 1}."""
    pixels = np.zeros(size_hw, np.uint8)
    pixels[top:bottom, left:right] = 1
    return pixels


def blob(seed: int) -> Pixels:
    """(200, 300) {0, 1}: smooth outlines, the largest part of noise with its holes."""
    noise = gaussian_filter(np.random.default_rng(seed).random((200, 300)), 12)
    labels = np.zeros_like(noise, np.uint8)
    labels[noise > np.quantile(noise, 0.6)] = 1
    return largest_part(labels)


def largest_part(pixels: Pixels) -> Pixels:
    """(H, W) {0, 1}: of several parts the largest."""
    import cv2

    _, labels, statistics, _ = cv2.connectedComponentsWithStats(pixels, connectivity=8)
    return (labels == 1 + np.argmax(statistics[1:, cv2.CC_STAT_AREA])).astype(np.uint8)


def _holes() -> Pixels:
    pixels = box((60, 80), 2, 30, 2, 40)
    pixels[5:10, 5:10] = pixels[12, 12] = pixels[13, 13] = pixels[20:28, 20:38] = 0
    pixels[23, 25] = 1
    return pixels


def _parts() -> Pixels:
    return box((60, 80), 35, 55, 2, 30) | box((60, 80), 40, 44, 33, 37) | box((60, 80), 50, 51, 60, 79)


def truth(images: list[ImageCase]) -> Seen:
    """Every mask as it is."""
    found: Seen = defaultdict(list)
    for image in images:
        for one in image.masks:
            found[image.uri, one.category].append(one.pixels.astype(bool))
    return dict(found)


def filled(images: list[ImageCase]) -> Seen:
    """Without holes, what polygons without bridges hold."""
    return {key: [binary_fill_holes(pixels) for pixels in masks] for key, masks in truth(images).items()}


def layered(images: list[ImageCase]) -> Seen:
    """A pixel belongs to the smallest of the masks that have it."""
    found: Seen = defaultdict(list)
    for image in images:
        order = sorted(image.masks, key=lambda one: int(one.pixels.sum()))
        taken = np.zeros(image.size_hw, bool)
        for one in order:
            found[image.uri, one.category].append((one.pixels > 0) & ~taken)
            taken |= one.pixels > 0
    return dict(found)


def seen_by(peer: str, found: Path, *arguments: object) -> Seen:
    """What a peer decodes, in its own process, started in another folder than the export's."""
    reader = environments.reader(peer)
    command = [environments.python(peer), reader, found, *map(str, arguments)]
    found.parent.mkdir(parents=True, exist_ok=True)
    scratch = found.parent / "home"
    scratch.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(scratch), "YOLO_CONFIG_DIR": str(scratch), "YOLO_OFFLINE": "true"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(command, cwd=scratch, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return read_found(found)


def read_found(path: Path) -> Seen:
    """The file that a reader wrote."""
    seen: Seen = defaultdict(list)
    with np.load(path) as content:
        for number, (image, name) in enumerate(json.loads(str(content["names"]))):
            seen[image, name].append(content[str(number)])
    return dict(seen)


def ious(seen: Seen, wanted: Seen) -> list[float]:
    """IoU of every mask that there should be with the one that is in its place by size; all that is seen is wanted."""
    counts, wanted_counts = ({key: len(masks) for key, masks in found.items()} for found in (seen, wanted))
    assert counts == wanted_counts, f"{counts} instead of {wanted_counts}"
    return list(_ious(seen, wanted))


def _ious(seen: Seen, wanted: Seen) -> Iterator[float]:
    for key, masks in wanted.items():
        for one, other in zip(sorted(masks, key=np.sum), sorted(seen[key], key=np.sum), strict=True):
            yield binary.iou(one, other)
