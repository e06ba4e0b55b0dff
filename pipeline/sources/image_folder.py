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
from functools import cache, partial
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import box_forms, names, segments, tables, walks
from pipeline.sources.box_forms import FormOf
from pipeline.sources.cell_fields import BOXES, FILES, GEOMETRIES, LISTS, MASKS, LeftFields, chosen
from pipeline.sources.cells import Cells
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_name, as_size, brief_value, extra_of
from pipeline.sources.grids import SizeOf
from pipeline.sources.mask_files import MaskFiles, image_size
from pipeline.sources.segments import with_segments
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
        folder = f"{folder}/" if folder else ""
        left = LeftFields(given.coverage, path)
        records = partial(_records, store, path, folder, below, given)
        form_of = box_forms.of_file(records, path, given.options, given.coverage)
        for number, row in _rows(store, path, given):
            yield _planned(row, f"{path}, line {number}", folder, below, given, store, left, form_of)
        left.tell()
        given.coverage.take(path)


def root(masks_uri: str) -> str:
    """The folder that the masks' files are relative to."""
    return masks_uri.rpartition("/")[0] or "." if masks_uri.endswith(METADATA) else masks_uri


def is_metadata(store: Store, path: str) -> bool:
    """Whether a file is the metadata of images; SAM's mask generator, for one, writes another `metadata.csv`."""
    name = path.rpartition("/")[2]
    return name in METADATA and (name.endswith(".jsonl") or not {*IMAGE_NAMES}.isdisjoint(tables.head(store, path)))


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
            yield from _csv_rows((line.decode("utf-8-sig", "replace") for line in lines), path, given)
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


def _csv_rows(lines: Iterator[str], path: str, given: SourceInput) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """What follows a damaged line is named as not read."""
    number = 1
    try:
        for number, row in enumerate(csv.DictReader(tables.wide(lines)), 2):
            yield number, row
    except csv.Error as error:
        given.coverage.leave(f"{path}, from line {number + 1} on", "damaged", str(error), kind="line")


def _records(
    store: Store, path: str, folder: str, below: str, given: SourceInput
) -> Iterator[tuple[Mapping[str, Any], SizeOf]]:
    """The rows, and who knows the (H, W) of their images. What is wrong with lines is told by those who read them."""
    for _, row in _rows(store, path, replace(given, coverage=Coverage())):
        yield row, _size_of(row, _path(row, folder, below), given)


def _path(row: Mapping[str, Any], folder: str, below: str) -> str:
    """The image's path in the image root, "" where the row names none."""
    name = _name(row)
    return f"{folder}{name}".removeprefix(below) if name else ""


def _name(row: Mapping[str, Any]) -> str:
    return next((as_name(row[key]) for key in IMAGE_NAMES if row.get(key)), "")


def _size_of(row: Mapping[str, Any], path: str, given: SourceInput) -> SizeOf:
    declared = as_size(row.get("height"), row.get("width"))
    return cache(lambda: declared or image_size(path, given))


def _planned(
    row: Mapping[str, Any],
    where: str,
    folder: str,
    below: str,
    given: SourceInput,
    store: Store,
    left: LeftFields,
    form_of: FormOf,
) -> PlannedImage:
    """folder: of the metadata file; below: of the image root, where that is a folder of its own in this one."""
    name, path = _name(row), _path(row, folder, below)
    files = MaskFiles(store, folder)
    tell = partial(given.coverage.remark, where)
    cells = Cells({}, files, tell, _size_of(row, path, given), left, where, form_of)
    ids = None if _are_in_list(row) else row.get(segments.FIELD)
    masks = with_segments(_masks(row, name or where, cells), ids, {}, tell)
    given.coverage.take(where, "line")
    if not masks:
        tell("a line without a mask")
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


def _are_in_list(row: Mapping[str, Any]) -> bool:
    """Whether the row has annotations, or a list of masks."""
    best, _ = chosen(row, MASKS)
    return best in LISTS or (best is None and any(row.get(key) is not None for key in LISTS))


def _masks(row: Mapping[str, Any], name: str, cells: Cells) -> list[PlannedMask]:
    in_list = _are_in_list(row)
    if not in_list and not any(row.get(key) is not None for key in (*GEOMETRIES, *FILES, *BOXES)):
        return []
    found = cells.masks_in(row, name)
    return found if in_list else [replace(mask, extra="") for mask in found]
