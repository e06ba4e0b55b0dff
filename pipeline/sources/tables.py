"""CSV files: which columns one has, and its rows, a row at a time."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence

from pipeline.errors import RefusedError
from pipeline.sources import walks
from pipeline.sources.coverage import Coverage
from pipeline.sources.types import SourceInput
from pipeline.storage import Store, split_uri

SUFFIX = ".csv"
MAX_LINE_BYTES = 1 << 28
HEAD_BYTES = 1 << 16

Row = Mapping[str, str]


def head(store: Store, path: str) -> list[str]:
    """The names of the columns; none where there is no such file."""
    try:
        return [name.strip() for name in next(csv.reader(wide(lines(store, path)[:1])), [])]
    except csv.Error:
        return []


def lines(store: Store, path: str) -> list[str]:
    """The first lines of a text file, the last of them perhaps cut; none where there is no such file."""
    try:
        return store.read_range(path, 0, HEAD_BYTES).decode("utf-8-sig", "replace").splitlines()
    except (OSError, ValueError):
        return []


def rows(store: Store, path: str, coverage: Coverage) -> Iterator[tuple[int, Row]]:
    """(line, row), values without space around them. What follows a damaged line is named as not read."""
    number = 1
    with store.open(path) as file:
        found = iter(lambda: file.readline(MAX_LINE_BYTES), b"")
        reader = csv.reader(wide(line.decode("utf-8-sig", "replace") for line in found))
        try:
            names = [name.strip() for name in next(reader, [])]
            for values in reader:
                number += 1
                if len(values) == len(names):
                    yield number, dict(zip(names, map(str.strip, values), strict=True))
                elif values:
                    detail = f"{len(values)} values, {len(names)} columns"
                    coverage.leave(f"{path}, line {number}", "another number of columns", detail, kind="line")
        except csv.Error as error:
            coverage.leave(f"{path}, from line {number + 1} on", "damaged", str(error), kind="line")


def wide(text: Iterable[str]) -> Iterable[str]:
    """The lines, for a reader that takes fields of any length: run lengths and JSON go past the 128 KB of its own."""
    csv.field_size_limit(MAX_LINE_BYTES)
    return text


def column(names: Sequence[str], wanted: Sequence[str]) -> str | None:
    """The first of the wanted columns that is there, in large or small letters."""
    lower = {name.lower(): name for name in reversed(names)}
    return next((lower[one] for one in wanted if one in lower), None)


def folder_of(masks_uri: str) -> str:
    """The folder of the tables: `--masks` itself, or that of the one file."""
    return masks_uri.rpartition("/")[0] or "." if masks_uri.lower().endswith(SUFFIX) else masks_uri.rstrip("/")


def only(given: SourceInput) -> tuple[Store, str]:
    """The one CSV file that `--masks` is, or has. Raises RefusedError."""
    if given.masks_uri.lower().endswith(SUFFIX):
        return split_uri(given.masks_uri, given.access)
    found = []
    for file in walks.mask_files(given, {SUFFIX}):
        found.append(file.path)
    if len(found) != 1:
        raise RefusedError(f"{given.masks_uri} holds {len(found)} .csv files: name the one that has the masks")
    return Store(given.masks_uri, given.access), found[0]
