"""What people hand over, planned, loaded and sealed in this process, as `relabel run --refiner none` does it.

The same functions as the job, without Ray: a test sees rows, pixels, and what was said of everything else.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline import sources
from pipeline.dataset import Result, open_result
from pipeline.masks import binary
from pipeline.models import NoModel
from pipeline.output import seal
from pipeline.planning.coverage import counted
from pipeline.planning.increment import ChunkLimits, plan, read_plan
from pipeline.planning.scans import coverage_for, current_scan, pinned_source, read_scan, record
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs, Task
from pipeline.sources import SourceInput
from pipeline.sources.walks import regular
from pipeline.storage import Access, Store
from pipeline.storage.lease import unguarded
from pipeline.storage.listing import listing
from schemas.config import Gate, Method

FINGERPRINT = "feedc0ffee00"
SIZE_HW = (64, 96)
BOX = (16, 48, 24, 72)  # top, bottom, left, right
RING = [24, 16, 72, 16, 72, 48, 24, 48]

Pixels = np.ndarray[Any, np.dtype[Any]]
Row = dict[str, Any]


def square(size_hw: tuple[int, int] = SIZE_HW, box: tuple[int, int, int, int] = BOX) -> Pixels:
    """(H, W) uint8 {0, 1}: ones in the box."""
    pixels = np.zeros(size_hw, np.uint8)
    pixels[box[0] : box[1], box[2] : box[3]] = 1
    return pixels


def encoded(pixels: Pixels | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    sink = io.BytesIO()
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(sink, kind, **options)
    return sink.getvalue()


def photograph(size_hw: tuple[int, int] = SIZE_HW) -> Pixels:
    """(H, W, 3) uint8: a gradient with the square in another colour."""
    y, x = np.mgrid[: size_hw[0], : size_hw[1]]
    pixels = np.stack([x, y * 2, x + y], axis=2).astype(np.uint8)
    if size_hw == SIZE_HW:
        pixels[square() > 0] = (200, 60, 30)
    return pixels


def put(path: Path, data: Any) -> Path:
    """Bytes and text as they are, arrays as PNG (or what the suffix says), anything else as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(data, np.ndarray):
        Image.fromarray(data).save(path)
    elif isinstance(data, bytes):
        path.write_bytes(data)
    else:
        path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def put_images(folder: Path, *names: str) -> Path:
    """Photographs of SIZE_HW."""
    for name in names:
        put(folder / name, photograph())
    return folder


def coco(*images: Row, annotations: list[Row] | None = None, **more: Any) -> Row:
    """A COCO file of images of SIZE_HW; one annotation of the square each, unless others are given."""
    height, width = SIZE_HW
    entries = [{"id": n, "height": height, "width": width, **image} for n, image in enumerate(images, 1)]
    plain = [{"id": n, "image_id": image["id"], "category_id": 1} for n, image in enumerate(entries, 1)]
    found = [{"segmentation": [RING], "iscrowd": 0, **one} for one in (plain if annotations is None else annotations)]
    return {"images": entries, "annotations": found, "categories": [{"id": 1, "name": "thing"}], **more}


@dataclass(frozen=True)
class Outcome:
    """A result, and what its planning pass covered."""

    result: Result
    scan: Row
    source: str

    @property
    def images(self) -> dict[str, Row]:
        """Image rows by id."""
        return {row["image_id"]: row for row in self.result.images().to_pylist()}

    @property
    def masks(self) -> list[Row]:
        """Mask rows by image and source id."""
        rows = self.result.masks().to_pylist()
        return sorted(rows, key=lambda row: (row["image_id"], row["source_mask_id"]))

    def pixels(self) -> dict[str, Pixels]:
        """Source id of every mask that did not fail -> (H, W)."""
        return {row["source_mask_id"]: binary.decode(row["mask_rle"]) for row in self.masks if row["mask_rle"]}

    def only(self) -> Row:
        """The one mask."""
        [row] = self.masks
        return row

    def said(self, state: str, root: str = "masks") -> dict[str, list[str]]:
        """First names of what has a state, by reason."""
        found: dict[str, list[str]] = {}
        for tally in self.scan["found"]:
            if (tally["root"], tally["state"]) == (root, state):
                found.setdefault(tally["reason"], []).extend(tally["names"])
        return found


def run(
    images: Path | str | None,
    masks: Path | str,
    output: Path,
    source: str | None = None,
    ignore: tuple[str, ...] = (),
    prune: bool = False,
    access: Access | None = None,
) -> Outcome:
    """Plan, load and seal; every chunk as the stages do it. Raises RefusedError as the command does."""
    store, access = Store(str(output)), access or Access()
    stated = None if images is None else str(images)
    source = source or (pinned_source(store, stated, str(masks)) if stated else None)
    source = source or sources.detect(str(masks), access, stated)
    root = sources.images_root(source, stated, str(masks), access)
    given_images = Store(root, access)
    coverage = coverage_for(store, root, str(masks), source, ignore)
    with listing(regular(given_images, coverage)) as listed:
        given = SourceInput(str(masks), access, listed, 2, coverage=coverage, images_uri=root)
        found = counted(sources.scan(source, given), given, max_unread=0, prune=prune)
        plan(store, found, listed, ChunkLimits(16, 1 << 28), prune=prune)
        record(store, given, source, unguarded)
    files = sources.files_root(source, str(masks))
    _refine(store, Inputs(given_images, Store(files, access) if files else None), root)
    scan = read_scan(store, current_scan(store))
    assert scan is not None
    return Outcome(open_result(str(output)), scan, source)


def _refine(store: Store, inputs: Inputs, root: str) -> None:
    run_store, method, model = Store(f"{store.uri}/runs/{FINGERPRINT}"), Method(refiner="none"), NoModel()
    planned = read_plan(store)
    for chunk in planned.chunks:
        task = Task(chunk, chunk.images)
        if not run_store.exists(task.part):
            loaded = chunk_work.load(task.rows(store), inputs, method, model.input_side, 2)
            chunk_work.write(chunk_work.refine(loaded, model, method), task, run_store, "test; 1 threads")
    request = seal.SealRequest(
        output=store, fingerprint=FINGERPRINT, gate=Gate(), calibration=None, shard_bytes=1 << 24, images_root=root
    )
    seal.seal(request)
