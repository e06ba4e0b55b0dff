"""Storage that misbehaves: every kind of fault through a real proxy, faults that pass and faults that never end."""

import time
from collections.abc import Iterator

import boto3
import pyarrow as pa
import pytest

from pipeline.errors import RefusedError, StorageError
from pipeline.storage import Access, Store
from pipeline.storage.lease import check_store
from pipeline.storage.preflight import check_readable, check_writable
from tests.fault_proxy import KINDS, MOST_IN_A_ROW, FaultProxy

BODY = bytes(range(256)) * 500


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    with FaultProxy(s3_endpoint).running() as running:
        yield running


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.storage.backoff.LONGEST_WAIT_S", 0.05)


def store_behind(proxy: FaultProxy, bucket: str, tries: int = 8) -> Store:
    return Store(f"s3://{bucket}/out", Access(proxy.url, tries=tries, timeout_s=1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_passes_and_everything_is_read_and_written(
    kind: str, proxy: FaultProxy, bucket: str
) -> None:
    store = store_behind(proxy, bucket)
    table = pa.table({"number": range(5000)})
    proxy.kinds, proxy.share, proxy.slow_s = (kind,), 0.4, 30.0
    store.put("a/b.bin", BODY)
    store.put_parquet("t.parquet", table, row_group_rows=1000)
    assert store.read("a/b.bin", len(BODY)) == BODY
    assert store.read_rows("t.parquet", 2500, 1000)["number"].to_pylist() == list(range(2500, 3500))
    assert [(file.path, file.size) for file in store.list("a")] == [("a/b.bin", len(BODY))]
    store.delete("a/b.bin")
    assert not store.exists("a/b.bin")
    proxy.share = 1.0  # five in a row for each key, the most there are
    assert store.read_parquet("t.parquet").equals(table)
    assert proxy.faults[kind] >= MOST_IN_A_ROW


@pytest.mark.parametrize(
    ("kind", "words"), [("503", "SlowDown|reduce"), ("truncated", ""), ("stalled", ""), ("reset", "")]
)
def test_a_fault_that_never_ends_is_bounded_and_said_in_one_line(
    kind: str, words: str, proxy: FaultProxy, bucket: str
) -> None:
    store = store_behind(proxy, bucket, tries=4)
    store.put("x", BODY)
    proxy.endless = ("GET .*/x", kind)
    begun = time.monotonic()
    with pytest.raises(StorageError, match=rf"cannot read s3://{bucket}/out/x: .*({words})") as caught:
        store.read("x", len(BODY))
    assert "\n" not in str(caught.value)
    again = 2 if kind == "reset" else 1  # aiohttp itself replaces a kept connection that turns out to be closed
    assert 4 <= proxy.faults[kind] <= 4 * again
    assert time.monotonic() - begun < 20


def test_a_body_that_drips_is_cut_by_the_deadline(proxy: FaultProxy, bucket: str) -> None:
    """Each packet comes within the read timeout; only the limit for the whole request notices."""
    store = store_behind(proxy, bucket, tries=2)
    store.put("x", BODY)
    proxy.endless, proxy.slow_s = ("GET .*/x", "slow"), 8.0
    begun = time.monotonic()
    with pytest.raises(StorageError, match="cannot read"):
        store.read("x", len(BODY))
    assert time.monotonic() - begun < 7


def test_answers_are_not_retried(proxy: FaultProxy, bucket: str) -> None:
    store = store_behind(proxy, bucket)
    with pytest.raises(FileNotFoundError):
        store.read("no such key", 1)
    proxy.endless = ("GET", "403")
    with pytest.raises(StorageError, match="cannot read"):
        store.read("x", 1)
    assert proxy.faults["403"] == 1


def test_a_listing_of_many_pages_survives_faults_on_its_pages(
    proxy: FaultProxy, bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries are for each page: all the listing's pages together would meet more faults than there are tries."""
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    for number in range(60):
        client.put_object(Bucket=bucket, Key=f"out/{number:03d}", Body=b"x")
    client.put_object(Bucket=bucket, Key="out-of-it/x", Body=b"x")
    store = store_behind(proxy, bucket)
    call = store._fs_and_root[0].call_s3
    monkeypatch.setattr(store._fs_and_root[0], "call_s3", lambda *a, **k: call(*a, **k, MaxKeys=2))
    proxy.share, proxy.kinds = 0.3, ("500", "503", "429", "reset", "reset_after", "truncated")
    assert [file.path for file in store.list()] == [f"{number:03d}" for number in range(60)]
    assert sum(proxy.faults.values()) > 8


def test_a_start_amid_faults_is_not_refused_but_a_dead_store_is(proxy: FaultProxy, bucket: str) -> None:
    access = Access(proxy.url, timeout_s=1.0)
    Store(f"s3://{bucket}/in", access).put("x", b"1")
    proxy.share, proxy.kinds = 0.4, ("500", "429", "reset")
    check_readable(f"s3://{bucket}/in", access, "masks")
    check_writable(store_behind(proxy, bucket))
    proxy.share, proxy.kinds = 1.0, ("503", "reset_after", "truncated")  # five in a row for each key
    check_store(store_behind(proxy, bucket))
    proxy.endless = ("", "500")
    with pytest.raises(RefusedError, match="cannot read the masks"):
        check_readable(f"s3://{bucket}/in", access, "masks")
    with pytest.raises(RefusedError, match="cannot write to the output"):
        check_writable(store_behind(proxy, bucket))
