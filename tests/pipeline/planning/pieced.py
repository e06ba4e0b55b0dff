"""A source of several files, and its plan: for what must not depend on who reads which file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.planning import increment, scanning, spill
from pipeline.planning.flow import Flow
from pipeline.planning.increment import ChunkLimits, plan_rows
from pipeline.planning.scanning import pieces, read_pieces
from pipeline.planning.scans import coverage_for, record
from pipeline.planning.shuffle import Shuffle
from pipeline.sources import SourceInput
from pipeline.storage import Access, Store
from pipeline.storage.lease import unguarded
from pipeline.storage.listing import listing
from schemas import layout

ROWS = 40
ATTEMPT = re.compile(r"[0-9a-f]{32}/")
MASK = {"size": [10, 20], "counts": "0d04"}


def make_source(folder: Path, files: Iterable[int] = range(6)) -> Path:
    """Parquet: a row a mask, images with masks in two files, a row without a mask, a damaged file, one that is none."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / "masks").mkdir(exist_ok=True)
    for file in files:
        numbers = [file * ROWS * 3 // 4 + row for row in range(ROWS)]
        columns = {
            "image_uri": [f"{number:05d}.jpg" for number in numbers],
            "segmentation": [MASK if row else None for row in range(ROWS)],
            "category": [f"{file} {row % 3}" for row in range(ROWS)],
        }
        pq.write_table(pa.table(columns), folder / "masks" / f"{file:02d}.parquet")
        for number in numbers[:-2]:
            (folder / "images" / f"{number:05d}.jpg").touch()
    (folder / "masks" / "03x.parquet").write_bytes(b"PAR1, and nothing that follows from it")
    (folder / "masks" / "notes.txt").touch()
    return folder


def plan_source(
    folder: Path,
    output: Path,
    flow: Flow | None = None,
    *,
    images: str = "images",
    source: str = "parquet",
    ignore: Sequence[str] = (),
) -> dict[str, bytes]:
    """Plan it in many small pieces, ranges and increments; returns the `files_of` it.

    flow: by which it is shuffled; None: as a whole, in this process. images: the image root's name in the folder.
    """
    together = 1 if flow else 1 << 30
    with (
        mock.patch.object(scanning, "TOGETHER_BYTES", together),
        mock.patch.object(scanning, "ROWS", 7),
        mock.patch.object(spill, "BUCKET_ROWS", 20),
        mock.patch.object(increment, "INCREMENT_ROWS", 50),
    ):
        store = Store(str(output))
        uris = str(folder / images), str(folder / "masks")
        _plan(uris, store, Shuffle(store, flow) if flow else None, source, ignore)
    return files_of(output)


def files_of(output: Path) -> dict[str, bytes]:
    """The files of plan and scans, but for names that are random."""
    found = {path.relative_to(output).as_posix(): path for path in output.rglob("*") if path.is_file()}
    with_names = ("_COMMITTED", layout.LAST_SCAN)
    fixed = [name for name in found if name.startswith(("plan", "scans")) and not name.endswith(with_names)]
    return {ATTEMPT.sub("", name): found[name].read_bytes() for name in fixed}


def _plan(uris: tuple[str, str], output: Store, shuffle: Shuffle | None, source: str, ignore: Sequence[str]) -> None:
    images_uri, masks_uri = uris
    covered = coverage_for(output, images_uri, masks_uri, source, ignore)
    with listing(Store(images_uri).walk()) as listed:
        given = SourceInput(masks_uri, Access(), listed, 2, coverage=covered, images_uri=images_uri)
        found = pieces(source, given)
        assert found is not None
        rows = read_pieces(found, given, shuffle, max_unread=0, prune=False)
        plan_rows(output, rows, listed, ChunkLimits(16, 1 << 28), coverage=covered, shuffle=shuffle)
        record(output, given, source, unguarded)
