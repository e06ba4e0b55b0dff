"""An inventory in place of a walk: S3's own in its three formats, and Parquet of one's own."""

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import orc

from pipeline.errors import RefusedError
from pipeline.sources import inventory
from pipeline.storage import Access, StoredFile
from tests.conftest import DEMO, Cli

WRITTEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
OBJECTS = [  # key, size, etag, is_latest, is_delete_marker
    ("photos/a b.jpg", 10, "e1", True, False),
    ("photos/ü/c.png", 20, "e2-7", True, False),
    ("photos/old.jpg", 30, "e3", False, False),
    ("photos/gone.jpg", None, None, True, True),
    ("photos/folder/", 0, "e4", True, False),
    ("photos-of-others/d.jpg", 40, "e5", True, False),
]
FOUND = [
    StoredFile("a b.jpg", 10, "e1", WRITTEN.timestamp()),
    StoredFile("ü/c.png", 20, "e2-7", WRITTEN.timestamp()),
]
S3_COLUMNS = ["bucket", "key", "size", "last_modified_date", "e_tag", "is_latest", "is_delete_marker"]


def table(key_type: pa.DataType) -> pa.Table:
    rows = [("photos", key, size, WRITTEN, tag, latest, gone) for key, size, tag, latest, gone in OBJECTS]
    found = pa.Table.from_pylist([dict(zip(S3_COLUMNS, row, strict=True)) for row in rows])
    return found.set_column(1, "key", found["key"].cast(key_type))


def as_csv(path: Path) -> str:
    lines = [
        [
            "photos",
            quote_plus(key, safe="/"),
            size or "",
            WRITTEN.isoformat().replace("+00:00", ".000Z"),
            tag,
            str(latest).lower(),
            str(gone).lower(),
        ]
        for key, size, tag, latest, gone in OBJECTS
    ]
    text = "\n".join(",".join(f'"{"" if value is None else value}"' for value in line) for line in lines)
    path.write_bytes(gzip.compress(text.encode()))
    return "Bucket, Key, Size, LastModifiedDate, ETag, IsLatest, IsDeleteMarker"


def as_parquet(path: Path) -> str:
    pq.write_table(table(pa.binary()), path)
    return "message s3.inventory { required binary bucket (UTF8); ... }"


def as_orc(path: Path) -> str:
    orc.write_table(table(pa.string()), path)
    return "struct<bucket:string,key:string,...>"


FORMATS = {"CSV": as_csv, "Parquet": as_parquet, "ORC": as_orc}


def make(root: Path, kind: str, write: Callable[[Path], str]) -> Path:
    """An inventory as S3 lays it out; returns its manifest."""
    data = root / "photos" / "nightly" / "data" / f"1.{kind}"
    data.parent.mkdir(parents=True)
    schema = write(data)
    manifest = data.parent.parent / "2026-01-03T01-00Z" / "manifest.json"
    manifest.parent.mkdir()
    entry = {"key": f"inventories/photos/nightly/data/{data.name}", "size": data.stat().st_size, "MD5checksum": ""}
    content = {"sourceBucket": "bucket", "fileFormat": kind, "fileSchema": schema, "files": [entry]}
    manifest.write_text(json.dumps(content))
    return manifest


@pytest.mark.parametrize("kind", FORMATS)
def test_an_inventory_of_s3_is_the_listing_of_a_folder(kind: str, tmp_path: Path) -> None:
    manifest = str(make(tmp_path, kind, FORMATS[kind]))
    assert list(inventory.open_inventory(manifest, Access(), "s3://bucket/photos").walk()) == FOUND
    everything = [file.path for file in inventory.open_inventory(manifest, Access(), "s3://bucket").walk()]
    assert everything == ["photos/a b.jpg", "photos/ü/c.png", "photos-of-others/d.jpg"]
    with pytest.raises(RefusedError, match="none of the 6 entries"):
        list(inventory.open_inventory(manifest, Access(), "s3://bucket/phot").walk())
    with pytest.raises(RefusedError, match="is of the bucket bucket, and --images is s3://other/photos"):
        inventory.check(manifest, Access(), "s3://other/photos")


def test_a_truncated_data_file_is_refused(tmp_path: Path) -> None:
    manifest = make(tmp_path, "CSV", as_csv)
    data = tmp_path / "photos" / "nightly" / "data" / "1.CSV"
    data.write_bytes(data.read_bytes()[:-9])
    with pytest.raises(RefusedError, match="its manifest says"):
        list(inventory.open_inventory(str(manifest), Access(), "s3://bucket/photos").walk())
    data.unlink()
    with pytest.raises(RefusedError, match="which an inventory names, is not there"):
        list(inventory.open_inventory(str(manifest), Access(), "s3://bucket/photos").walk())


@pytest.mark.parametrize(
    "columns", [{"uri": "s3://bucket/photos/"}, {"uri": ""}, {"path": ""}, {"key": "photos/"}], ids=str
)
def test_parquet_of_ones_own(columns: dict[str, str], tmp_path: Path) -> None:
    [(name, root)] = columns.items()
    for number, file in enumerate(FOUND):
        row = {name: root + file.path, "size": file.size, "etag": f'"{file.etag}"', "more": 1}
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / f"{number}.parquet")
    found = inventory.open_inventory(str(tmp_path), Access(), "s3://bucket/photos").walk()
    assert list(found) == [file._replace(modified_s=None) for file in FOUND]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"path": "a.jpg"}], "has no column size"),
        ([{"file": "a.jpg", "size": 1}], "has no column uri, key or path"),
        ([{"path": "../a.jpg", "size": 1}], "which leaves --images"),
        ([{"path": "a.jpg", "size": "large"}], r"1\.parquet cannot be read as an inventory: .*large"),
    ],
)
def test_what_is_no_inventory_is_refused(rows: list[dict[str, object]], words: str, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "1.parquet")
    with pytest.raises(RefusedError, match=words):
        list(inventory.open_inventory(str(tmp_path / "1.parquet"), Access(), "s3://bucket").walk())


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[]")
    with pytest.raises(RefusedError, match="is no manifest of an S3 Inventory"):
        inventory.check(str(tmp_path / "manifest.json"), Access(), "s3://bucket")
    with pytest.raises(RefusedError, match=r"has no file \*.parquet"):
        inventory.check(str(tmp_path), Access(), "s3://bucket")


def test_a_plan_from_an_inventory_is_that_of_the_folder(tmp_path: Path, relabel: Cli) -> None:
    images = sorted((DEMO / "images").iterdir())
    rows = [{"path": file.name, "size": file.stat().st_size} for file in images]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "listing.parquet")
    given = ["plan", "--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out"]
    done = relabel(*given, "--images-inventory", tmp_path / "listing.parquet")
    assert (done.returncode, "planned: 5 images with 10 masks" in done.stdout) == (0, True), done.stderr
    again = relabel(*given)
    assert "5 images were planned before" in again.stderr
