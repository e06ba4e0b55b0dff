"""Changed images on disks of this machine: by size and time of writing, or by content; and rows of earlier versions."""

import os
from pathlib import Path

import pytest

from pipeline.planning.increment import ChunkLimits, Planned, plan
from pipeline.planning.rows import tag
from pipeline.sources import PlannedImage
from pipeline.storage import Store, StoredFile
from pipeline.storage.listing import hashed, listing

NAMES = ("a.bmp", "b.bmp", "c.bmp")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in NAMES:
        (folder / name).write_bytes(name.encode() * 100)
    return folder


def planned(photos: Path, checksum: bool = False) -> Planned:
    """One planning step over the folder, into the output beside it."""
    store = Store(str(photos))
    files = hashed(store, store.walk(), 2) if checksum else store.walk()
    with listing(files) as listed:
        images = (PlannedImage(name, name, (8, 8), []) for name in NAMES)
        return plan(Store(str(photos.parent / "out")), images, listed, ChunkLimits(2, 1 << 30))


def edit(path: Path) -> None:
    """Another content of the same size."""
    path.write_bytes(bytes(reversed(path.read_bytes())))


def test_an_edit_of_the_same_size_is_a_changed_image(photos: Path) -> None:
    assert planned(photos).images == 3
    assert planned(photos) == Planned(None, unchanged=3)
    edit(photos / "b.bmp")
    assert (planned(photos).superseded, planned(photos)) == (1, Planned(None, unchanged=3))


def test_content_is_compared_where_both_passes_read_it(photos: Path) -> None:
    planned(photos, checksum=True)
    for name in NAMES:
        os.utime(photos / name, (1, 1))  # as in a copy that keeps no times
    assert planned(photos, checksum=True) == Planned(None, unchanged=3)
    stat = (photos / "c.bmp").stat()
    edit(photos / "c.bmp")
    os.utime(photos / "c.bmp", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert planned(photos, checksum=True).superseded == 1


def test_rows_that_have_no_time_and_those_of_a_store_are_as_they_were(photos: Path) -> None:
    output, limits = Store(str(photos.parent / "out")), ChunkLimits(2, 1 << 30)
    images = [PlannedImage(name, name, (8, 8), []) for name in NAMES]
    files = {file.path: file for file in Store(str(photos)).walk()}
    earlier = {path: file._replace(mtime_ns=None) for path, file in files.items()}
    plan(output, images, earlier, limits)
    assert plan(output, images, files, limits).unchanged == 3
    tagged = {path: file._replace(etag="of a store", mtime_ns=None) for path, file in files.items()}
    assert plan(output, images, tagged, limits).unchanged == 3


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        (StoredFile("x", 1, None), None),
        (StoredFile("x", 1, "e"), "e"),
        (StoredFile("x", 1, None, mtime_ns=7), "mtime_ns=7"),
        (StoredFile("x", 1, "e", sha256="5"), "e sha256=5"),
    ],
)
def test_what_a_file_is_told_by(file: StoredFile, expected: str | None) -> None:
    assert tag(file) == expected
