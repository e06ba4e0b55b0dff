"""Hugging Face image folders: `metadata.jsonl` (or `metadata.csv`) beside the images, a line an image.

https://huggingface.co/docs/datasets/image_dataset. `file_name` is relative to the metadata file. Masks are what
`cells.py` understands (`objects`, `annotations`, `segmentation`, ...), or mask images named by `mask_file_name` and the
like. `--masks` is the metadata file or a folder of such folders (`train/`, `test/`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import names, walks
from pipeline.sources.cells import FILES, GEOMETRIES, LISTS, Cells
from pipeline.sources.fields import as_name, as_size, brief_value, extra_of
from pipeline.sources.mask_files import MaskFiles
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, PlannedMask, SourceInput
from pipeline.storage import Store, split_uri
from pipeline.storage.paths import safe_relative

METADATA = ("metadata.jsonl", "metadata.csv")
MAX_LINE_BYTES = 1 << 28
IMAGE_NAMES = ("file_name", "image_file_name")
USED = frozenset((*LISTS, *GEOMETRIES, *FILES, *IMAGE_NAMES, "height", "width"))


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every line of every metadata file. Raises RefusedError where there is none."""
    store, found = _find(given)
    if not found:
        raise RefusedError(f"{given.masks_uri} holds no {METADATA[0]}")
    below = walks.images_below(given) or ""
    for path in sorted(found):
        folder = path.rpartition("/")[0]
        for number, row in _rows(store, path, given):
            yield _planned(row, f"{path}, line {number}", f"{folder}/" if folder else "", below, given, store)
        given.coverage.take(path)


def root(masks_uri: str) -> str:
    """The folder that the masks' files are relative to."""
    return masks_uri.rpartition("/")[0] or "." if masks_uri.endswith(METADATA) else masks_uri


def _find(given: SourceInput) -> tuple[Store, list[str]]:
    if given.masks_uri.endswith(METADATA):
        store, name = split_uri(given.masks_uri, given.access)
        return store, [name]
    found = []
    for file in walks.listed(given):
        if file.path.rpartition("/")[2] in METADATA:
            found.append(file.path)
        elif walks.has_suffix(file.path, IMAGE_SUFFIXES):
            given.coverage.ignore(file.path, "an image of the folder")
        else:
            given.coverage.leave(file.path, f"no {METADATA[0]}")
    return Store(given.masks_uri, given.access), found


def _rows(store: Store, path: str, given: SourceInput) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with store.open(path) as file:
        lines = iter(lambda: file.readline(MAX_LINE_BYTES), b"")
        if path.endswith(".csv"):
            yield from enumerate(csv.DictReader(line.decode("utf-8-sig", "replace") for line in lines), 2)
            return
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig", "replace"))
            except (ValueError, RecursionError):
                row = None
            if isinstance(row, dict):
                yield number, row
            else:
                given.coverage.leave(f"{path}, line {number}", "no JSON object", brief_value(row), kind="line")


def _planned(
    row: Mapping[str, Any], where: str, folder: str, below: str, given: SourceInput, store: Store
) -> PlannedImage:
    """folder: of the metadata file; below: of the image root, where that is a folder of its own in this one."""
    name = next((as_name(row[key]) for key in IMAGE_NAMES if row.get(key)), "")
    path = f"{folder}{name}".removeprefix(below) if name else ""
    files = MaskFiles(store, folder)
    masks = _masks(row, name or where, Cells({}, files, partial(given.coverage.remark, where)))
    given.coverage.take(where, "line")
    is_safe = safe_relative(path)
    return PlannedImage(
        image_uri=path or f"unnamed-image-{where}",
        source_image_id=name or where,
        declared_hw=as_size(row.get("height"), row.get("width")),
        masks=masks,
        problem=None if is_safe else "image_outside_root",
        digest_extra=files.take_digest(),
        detail=names.hint(path, given.images) if is_safe else f"{where} names no image",
        extra=extra_of(row, USED),
    )


def _masks(row: Mapping[str, Any], name: str, cells: Cells) -> list[PlannedMask]:
    cell = next((row[key] for key in LISTS if row.get(key) is not None), None)
    if cell is None and not any(row.get(key) is not None for key in (*GEOMETRIES, *FILES)):
        return []
    found = cells.masks_in(row if cell is None else cell, name)
    return [replace(mask, extra="") for mask in found] if cell is None else found
