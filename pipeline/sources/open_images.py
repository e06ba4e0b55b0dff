"""Open Images: `*-annotations-object-segmentation.csv`, whose rows name PNG masks, one an object.

https://storage.googleapis.com/openimages/web/download_v7.html: columns MaskPath, ImageID, LabelName, BoxID, ... The
PNGs lie anywhere below `--masks`, the folder of the CSV files (or one such file). A mask may have another size than its
image: it is fitted to it. Labels get their names from `*class-descriptions*.csv` in that folder, where there is one. A
mask's source id is its BoxID; the box, PredictedIoU and clicks are carried.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import replace

from pipeline.sources import annotated, png, tables, walks
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.fields import as_label, extra_of
from pipeline.sources.pairs import stem
from pipeline.sources.tables import Row
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, SourceInput
from pipeline.storage import Store
from pipeline.storage.disk_table import temporary_database, to_key, to_path

COLUMNS = frozenset(("MaskPath", "ImageID", "LabelName"))
DESCRIPTIONS = "class-descriptions"
BESIDE = {
    "images-with": "a list of images",
    "image-ids": "a list of images",
    "imagelabels": "labels of whole images",
    "relationship": "relations of objects",
    "hierarchy": "the hierarchy of classes",
}
"""Part of a name -> what such a table holds, which is no mask."""
USED = (*COLUMNS, "BoxID")
_TABLE = "CREATE TABLE files (name BLOB PRIMARY KEY, path BLOB, mark TEXT, used INTEGER) WITHOUT ROWID"
_PUT = "INSERT OR IGNORE INTO files VALUES (?, ?, ?, 0)"
_GET = "SELECT path, mark FROM files WHERE name = ?"


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every row of every table."""
    below = replace(given, masks_uri=tables.folder_of(given.masks_uri))
    with temporary_database(_TABLE) as database:
        database.execute("BEGIN")
        found = _Tables(below, database)
        wanted = given.masks_uri.rpartition("/")[2] if below.masks_uri != given.masks_uri.rstrip("/") else None
        paths = found.walk(wanted)
        yield from annotated.plan(below, (one for path in paths for one in found.rows(path)))
        found.name_the_rest()


def root(masks_uri: str) -> str:
    """The folder that the masks' files are relative to."""
    return tables.folder_of(masks_uri)


class _Tables:
    """The tables of a folder, and the PNGs below it by their names."""

    def __init__(self, given: SourceInput, database: sqlite3.Connection) -> None:
        self._given, self._database = given, database
        self._store = Store(given.masks_uri, given.access)
        self._labels: dict[str, str] = {}

    def walk(self, wanted: str | None) -> list[str]:
        """The tables of masks (but for those that are not wanted); everything else is put in its place."""
        found, coverage = [], self._given.coverage
        for file in walks.mask_files(self._given, {tables.SUFFIX, ".png"}):
            if walks.has_suffix(file.path, {".png"}):
                self._keep(file.path, f"{file.size}:{file.etag}")
            elif (why := next((why for part, why in BESIDE.items() if part in file.path), None)) is not None:
                coverage.ignore(file.path, why)
            elif DESCRIPTIONS in file.path:
                self._labels.update(_descriptions(self._store, file.path))
                coverage.ignore(file.path, "names of classes")
            elif wanted not in (None, file.path):
                coverage.ignore(file.path, "beside the table that --masks names")
            elif set(tables.head(self._store, file.path)) >= COLUMNS:
                found.append(file.path)
            else:
                coverage.leave(file.path, "no table of Open Images' masks")
        return sorted(found)

    def _keep(self, path: str, mark: str) -> None:
        name = path.rpartition("/")[2]
        if not self._database.execute(_PUT, (to_key(name), to_key(path), mark)).rowcount:
            self._given.coverage.leave(path, "a second file of its name")

    def rows(self, path: str) -> Iterator[Annotated]:
        """A row an object."""
        self._given.coverage.take(path)
        for number, row in tables.rows(self._store, path, self._given.coverage):
            yield self._object(row, f"{path}, line {number}")

    def _object(self, row: Row, where: str) -> Annotated:
        image, name = row["ImageID"], row["MaskPath"]
        found = self._database.execute(_GET, (to_key(name.rpartition("/")[2]),)).fetchone()
        path, mark = (name, "missing") if found is None else (to_path(found[0]), found[1])
        self._database.execute("UPDATE files SET used = 1 WHERE name = ?", (to_key(name.rpartition("/")[2]),))
        self._given.coverage.take(where, "line")
        label = self._labels.get(row["LabelName"], row["LabelName"])
        text = json.dumps({"file": path, "value": None, "fit": True})
        detail = "" if found else f"no file: {name}, which the row names, is not there"
        extra = extra_of({key: value for key, value in row.items() if value and key not in USED}, ())
        shape = Shape(row.get("BoxID") or stem(name), as_label(label), text, detail, extra=extra)
        return Annotated(image, image, None, None, [shape], _names(image), digest_extra=mark, where=where)

    def name_the_rest(self) -> None:
        """Each PNG: read, or not named by any row."""
        for path, used in self._database.execute("SELECT path, used FROM files ORDER BY path"):
            if used:
                self._given.coverage.take(to_path(path))
            else:
                self._given.coverage.leave(to_path(path), png.beside(to_path(path)) or "no row names it")


def _names(image: str) -> Iterator[str]:
    yield from (f"{image}{suffix}" for suffix in (".jpg", *sorted(IMAGE_SUFFIXES), ""))


def _descriptions(store: Store, path: str) -> Mapping[str, str]:
    """/m/01abc -> name, of a table with or without a head."""
    lines = store.read(path).decode("utf-8-sig", "replace").splitlines()
    pairs = (line.partition(",") for line in lines if line.startswith("/"))
    return {label.strip(): name.strip().strip('"') for label, _, name in pairs}
