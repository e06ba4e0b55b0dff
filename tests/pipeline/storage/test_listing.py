"""Listings in a file: what a dictionary would answer, for any name."""

import os
from pathlib import Path

import pytest

from pipeline.errors import StorageError
from pipeline.storage import Store, StoredFile
from pipeline.storage.listing import listing


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
