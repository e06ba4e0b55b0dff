"""Listings in a file: what a dictionary would answer, for any name."""

import os
from pathlib import Path
from typing import Any

import boto3
import pytest

from pipeline.errors import StorageError
from pipeline.storage import Store, StoredFile
from pipeline.storage.listing import listing
from pipeline.storage.s3_listing import entries as s3_entries


def test_it_answers_as_a_dictionary_would(tmp_path: Path) -> None:
    names = ["b.png", "a/two words ü.png", "a/b/c.png", "\U0001f5bc.png", "é.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"a name that is no text")
    (tmp_path / "link.png").symlink_to(tmp_path / "b.png")
    (tmp_path / "broken.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder").symlink_to(tmp_path)
    store = Store(str(tmp_path))
    known = {file.path: file for file in store.list()}
    assert known["link.png"].size == len("b.png")
    assert known.keys() == {*names, "\udcff.png", "link.png", "broken.png"}
    with listing(store.walk()) as found:
        assert dict(found) == known
        assert list(found) == sorted(known)
        assert len(found) == len(known)
        assert "c.png" not in found
        assert found.get("\ud800", None) is None


def test_an_empty_one_is_false() -> None:
    with listing(iter(())) as found:
        assert not found
    with listing([StoredFile("a", 1, "tag", 2.0)]) as found:
        assert found["a"] == StoredFile("a", 1, "tag", 2.0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(StorageError, match="cannot list"):
        list(Store(str(tmp_path)).walk())


FLAT = [f"in/{number:02d}.png" for number in range(20)]
SPREAD = [f"in/deep/{folder}/{number}.png" for folder in "abcdefgh" for number in range(4)]


@pytest.mark.parametrize(
    ("names", "bounds", "at_once"),
    [
        ([*SPREAD, "in/deep/0.png", "in/deep/c.png", "in/deep/é/x.png", "in/deep/zz.png"], [], 9),
        (SPREAD, [], 8),
        (FLAT, [], 1),
        (FLAT, [f"in/{number:02d}" for number in range(0, 20, 5)], 4),
        (FLAT, [f"in/{number:02d}" for number in reversed(range(0, 200, 2))], 25),
        (SPREAD, ["in/deep/b", "in/deep/e/2"], 2),
        (FLAT[:2], ["in/00", "in/01"], 1),
        (["in/a/1.png", "in/b/1.png"], [], 1),
        ([], [], 1),
    ],
)
def test_many_pages_in_stretches(
    s3_endpoint: str, bucket: str, names: list[str], bounds: list[str], at_once: int
) -> None:
    """Pages of three; nothing is lost, nothing comes twice, and there are about as many requests as pages."""
    client, asked = boto3.client("s3", endpoint_url=s3_endpoint), list[dict[str, Any]]()
    for name in [*names, "other/x.png", "in2/x.png", "in/deep/d/"]:
        client.put_object(Bucket=bucket, Key=name, Body=b"x" * len(name))

    def ask(**parameters: Any) -> dict[str, Any]:
        asked.append(parameters)
        pages = {} if "Delimiter" in parameters else {"MaxKeys": 3}
        return dict(client.list_objects_v2(**parameters, **pages))

    entries = s3_entries(f"{bucket}/in", ask, [f"{bucket}/{at}" for at in bounds])
    found = [(path, entry["Size"]) for path, entry in entries]
    assert sorted(found) == sorted((f"{bucket}/{name}", len(name)) for name in names)
    starts = [one for one in asked if "ContinuationToken" not in one and "Delimiter" not in one]
    assert len(starts) == at_once
    assert len(asked) <= len(names) / 3 + 2 * at_once + 3
