"""Storage on a real disk and a real S3 server: atomic puts, listings, bounded retries."""

import os
import pickle
from pathlib import Path

import aiohttp
import botocore.exceptions
import fsspec.exceptions
import pyarrow as pa
import pytest

from pipeline.errors import RefusedError, StorageError
from pipeline.storage import STORE_ERRORS, Access, Store, read_text, read_uri
from pipeline.storage.backoff import is_failure, retried
from pipeline.storage.preflight import check_readable, check_writable


@pytest.fixture(params=["disk", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "disk":
        return Store(str(tmp_path))
    endpoint = request.getfixturevalue("s3_endpoint")
    name = request.getfixturevalue("bucket")
    return Store(f"s3://{name}/some prefix", Access(endpoint, tries=2))


def test_put_read_list_delete(store: Store) -> None:
    assert store.list() == []
    store.put("a/two words ü.bin", b"12345")
    store.put("a/b/c.bin", b"")
    store.put("a/b/c.bin", b"1")
    assert [(file.path, file.size) for file in store.list()] == [("a/b/c.bin", 1), ("a/two words ü.bin", 5)]
    assert [file.path for file in store.list("a/b")] == ["a/b/c.bin"]
    assert store.read("a/two words ü.bin") == b"12345"
    assert store.exists("a/b/c.bin")
    store.delete("a/b/c.bin")
    store.delete("a/b/c.bin")
    assert not store.exists("a/b/c.bin")
    with pytest.raises(FileNotFoundError):
        store.read("a/b/c.bin")


def test_some_rows_of_a_parquet_file(store: Store) -> None:
    table = pa.table({"number": range(1000), "other": ["x"] * 1000})
    store.put_parquet("t.parquet", table, row_group_rows=64)
    assert store.read_rows("t.parquet", 100, 130)["number"].to_pylist() == list(range(100, 230))
    assert store.read_rows("t.parquet", 64, 64, ["number"]).column_names == ["number"]
    assert store.read_parquet("t.parquet").equals(table)


def test_a_store_travels_without_its_connection(store: Store) -> None:
    store.put("x", b"1")
    copied: Store = pickle.loads(pickle.dumps(store))
    assert copied == store
    assert copied.read("x") == b"1"


def test_paths_cannot_leave_the_root(store: Store) -> None:
    for path in ("../x", "a/../../x", "/etc/passwd"):
        with pytest.raises(ValueError, match="leaves"):
            store.read(path)


def test_a_put_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.put("x", b"old")

    def disk_full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", disk_full)
    with pytest.raises(StorageError, match=r"cannot write .*No space"):
        store.put("x", b"new")
    assert store.read("x") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_s3_listings_have_etags(s3_endpoint: str, bucket: str) -> None:
    store = Store(f"s3://{bucket}", Access(s3_endpoint))
    store.put("x", b"1")
    store.put("y", b"2")
    first, second = store.list()
    assert first.etag
    assert second.etag
    assert first.etag != second.etag


def test_what_cannot_be_written_is_refused(s3_endpoint: str) -> None:
    with pytest.raises(RefusedError, match="cannot write to the output s3://no-such-bucket"):
        check_writable(Store("s3://no-such-bucket/out", Access(s3_endpoint)))
    with pytest.raises(RefusedError, match="cannot write to the output /proc/out"):
        check_writable(Store("/proc/out"))


def test_what_is_not_there_is_refused(s3_endpoint: str, bucket: str, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"the masks .*gone do not exist"):
        check_readable(str(tmp_path / "gone"), Access(), "masks")
    with pytest.raises(RefusedError, match="do not exist"):
        check_readable(f"s3://{bucket}/gone.json", Access(s3_endpoint), "masks")


def test_retries_are_bounded_and_final_errors_are_not_retried() -> None:
    calls, waits = [], []

    def fails(error: Exception, times: int) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise error
        return "done"

    assert retried(lambda: fails(OSError("reset"), 2), 3, waits.append) == "done"
    assert len(waits) == 2
    calls.clear()
    with pytest.raises(OSError, match="reset"):
        retried(lambda: fails(OSError("reset"), 9), 3, waits.append)
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(FileNotFoundError):
        retried(lambda: fails(FileNotFoundError("x"), 9), 3, waits.append)
    assert len(calls) == 1


def test_ranges_and_open_files(store: Store) -> None:
    store.put("a.bin", bytes(range(200)))
    assert store.size("a.bin") == 200
    assert store.read_range("a.bin", 190, 100) == bytes(range(190, 200))
    with store.open("a.bin") as file:
        file.seek(50)
        assert file.read(3) == bytes((50, 51, 52))
    with pytest.raises(FileNotFoundError):
        store.read_range("none.bin", 0, 1)
    assert [path.rpartition("/")[2] for path in store.some(10)] == ["a.bin"]


def test_a_file_written_in_pieces_is_there_whole_or_not_at_all(store: Store) -> None:
    with store.writer("b/c.bin") as file:
        file.write(b"12")
        file.write(b"345")
    assert store.read("b/c.bin") == b"12345"

    def breaks_off() -> None:
        with store.writer("b/d.bin") as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        breaks_off()
    assert [file.path for file in store.list()] == ["b/c.bin"]


def of_package(module: str) -> Exception:
    """An error of a package that is not installed here."""
    return type("HttpError", (Exception,), {"__module__": module})("503")


FAILURES = [
    OSError("reset"),
    TimeoutError("late"),
    EOFError("the end"),
    TimeoutError("late"),
    fsspec.exceptions.FSTimeoutError("late"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://x"),
    aiohttp.ClientPayloadError("cut off"),
    of_package("gcsfs.retry"),
    of_package("azure.core.exceptions"),
    of_package("google.auth.exceptions"),
]
BUGS = [
    TypeError("no such argument"),
    KeyError("x"),
    AttributeError("x"),
    AssertionError("x"),
    of_package("ours.module"),
]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__module__)
def test_what_its_libraries_raise_is_a_failure_of_the_store(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fails_with(error, Store(str(tmp_path), Access(tries=2)), monkeypatch)
    with pytest.raises(StorageError, match=r"cannot read .*x"):
        Store(str(tmp_path), Access(tries=2)).read("x")
    assert is_failure(error)
    assert len(calls) == 2


@pytest.mark.parametrize("error", BUGS, ids=lambda error: type(error).__name__)
def test_a_bug_is_neither_retried_nor_taken_for_a_failure_of_the_store(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x").touch()
    calls = fails_with(error, Store(str(tmp_path)), monkeypatch)
    with pytest.raises(type(error)):
        Store(str(tmp_path)).read("x")
    with pytest.raises(type(error)):
        read_uri(str(tmp_path / "x"), Access(), 100)
    assert not isinstance(error, STORE_ERRORS)
    assert len(calls) == 2


def fails_with(error: Exception, store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every read of the store's file system fails; the paths that were read are noted."""
    calls: list[str] = []

    def fails(path: str, **_options: object) -> bytes:
        calls.append(path)
        raise error

    monkeypatch.setattr("pipeline.storage.backoff.LONGEST_WAIT_S", 0.0)
    monkeypatch.setattr(store._fs_and_root[0], "cat_file", fails)  # fsspec has one for all stores of this kind
    return calls


def test_a_file_at_a_uri(store: Store) -> None:
    store.put("a.txt", "ü".encode())
    store.put("b.bin", b"\xff" * 10)
    assert read_uri(f"{store.uri}/b.bin", store.access, 10) == b"\xff" * 10
    assert read_text(f"{store.uri}/a.txt", store.access, 10) == "ü"
    with pytest.raises(RefusedError, match=r"the list .*/b\.bin has 10 bytes, more than the 9 allowed"):
        read_uri(f"{store.uri}/b.bin", store.access, 9, "list")
    with pytest.raises(RefusedError, match=r"the list .*/b\.bin is not UTF-8"):
        read_text(f"{store.uri}/b.bin", store.access, 10, "list")
    with pytest.raises(RefusedError, match=r"the file .*/none does not exist"):
        read_uri(f"{store.uri}/none", store.access, 10)
    with pytest.raises(RefusedError, match=r"cannot read the file .*leaves"):
        read_uri(f"{store.uri}/..", store.access, 10)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"cannot read the file .*Is a directory"):
        read_uri(str(tmp_path), Access(), 1 << 20)
    with pytest.raises(RefusedError, match="cannot read the file nosuch://x/y"):
        read_uri("nosuch://x/y", Access(), 1 << 20)
