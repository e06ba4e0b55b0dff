"""One look over a whole result, a few columns of it, before an export: classes; which ids and names can be kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset import Result
from pipeline.dataset.by_image import groups, read_batches
from pipeline.exports import names
from pipeline.exports.names import Names
from pipeline.exports.types import Survey

UNKNOWN = "unknown"
MAX_ID = 2**53  # the largest integer that every JSON reader keeps


def survey(result: Result) -> Survey:
    """Read ids and categories of all shards; what is held in memory is 8 bytes an image and a mask."""
    image_ids, mask_ids, stems = _Ids(), _Ids(), _Stems()
    pairs: set[tuple[int, str]] = set()
    for group in groups(result):
        for batch in read_batches(result, group.images, ["image_uri", "image_id", "source_image_id"]):
            image_ids.add(batch["source_image_id"])
            stems.add(batch)
        for batch in read_batches(result, group.masks, ["source_mask_id", "category_id", "category"]):
            mask_ids.add(batch["source_mask_id"])
            distinct = batch.group_by(["category_id", "category"]).aggregate([])
            pairs |= {(row["category_id"], row["category"] or "") for row in distinct.to_pylist()}
    categories, class_ids = number_classes(pairs)
    return Survey(
        categories, class_ids, image_ids.usable, mask_ids.usable, stems.names(result), result.scan().get("dataset", {})
    )


def number_classes(pairs: set[tuple[int, str]]) -> tuple[dict[int, str], dict[tuple[int, str], int]]:
    """(category id, name) pairs -> class id -> name, and pair -> class id.

    The category's own id, where it is not negative and stands for one name (or none); else all are numbered from 1.
    """
    found_names: dict[int, set[str]] = defaultdict(set)
    for category_id, name in pairs:
        found_names[category_id].add(name)
    own = all(category_id >= 0 and len(found - {""}) <= 1 for category_id, found in found_names.items())
    if own:
        named = {category_id: max(found) or str(category_id) for category_id, found in found_names.items()}
        return named, {pair: pair[0] for pair in pairs}
    labels = {pair: pair[1] or (str(pair[0]) if pair[0] >= 0 else UNKNOWN) for pair in pairs}
    numbers = {label: number for number, label in enumerate(sorted(set(labels.values())), 1)}
    return {number: label for label, number in numbers.items()}, {pair: numbers[labels[pair]] for pair in pairs}


class _Ids:
    """Whether ids are integers that all differ."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int64]] = []
        self._integers = True

    def add(self, column: pa.ChunkedArray) -> None:
        if not self._integers:
            return
        # canonical only: "007" would come back as another id
        canonical = pc.fill_null(pc.match_substring_regex(column, r"^(0|[1-9][0-9]{0,15})$"), False)
        if not pc.all(canonical).as_py() and len(column):
            self._integers = False
            self._parts.clear()
            return
        self._parts.append(column.cast(pa.int64()).to_numpy())

    @property
    def usable(self) -> bool:
        if not self._integers or not self._parts:
            return self._integers
        values = np.concatenate(self._parts)
        return bool(values.max(initial=0) < MAX_ID and len(np.unique(values)) == len(values))


class _Stems:
    """Which stems of files do not belong to one image alone."""

    def __init__(self) -> None:
        self._parts: list[npt.NDArray[np.int64]] = []
        self._folders: set[int] = set()

    def add(self, batch: pa.Table) -> None:
        paths = [names.clean(*row) for row in _uris_and_ids(batch)]
        self._parts.append(np.asarray([names.key(names.split_suffix(path)[0]) for path in paths], np.int64))
        self._folders.update(names.key(stem) for path in paths for stem in names.folders_like_files(path))

    def names(self, result: Result) -> Names:
        """Images of which the stem is shared get names that no other image has."""
        keys, times = np.unique(np.concatenate(self._parts or [np.zeros(0, np.int64)]), return_counts=True)
        shared = frozenset([*keys[times > 1].tolist(), *self._folders])
        if not shared:
            return Names()
        renamed = list(_shared(result, shared))
        for salt in count():
            found = Names(shared, salt)
            new = np.asarray([names.key(found.stem(*image)) for image in renamed], np.int64)
            if len(np.unique(new)) == len(new) and not np.isin(new, keys).any():
                return found
        raise AssertionError("count() has no end")


def _shared(result: Result, shared: frozenset[int]) -> Iterator[tuple[str, str]]:
    """URI and id of the images of these stems."""
    for group in groups(result):
        for batch in read_batches(result, group.images, ["image_uri", "image_id"]):
            for image in _uris_and_ids(batch):
                if names.key(names.split_suffix(names.clean(*image))[0]) in shared:
                    yield image


def _uris_and_ids(batch: pa.Table) -> Iterator[tuple[str, str]]:
    return zip(batch["image_uri"].to_pylist(), batch["image_id"].to_pylist(), strict=True)
