"""The connection to a cluster, from a thread: what comes back, and what is said when the cluster is gone."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.cluster.connection import Cluster, DriverTraceback, check_reachable, connected
from pipeline.errors import ClusterLostError, JobError, RefusedError, StorageError
from pipeline.job import plan_increment
from pipeline.planning import listed, scanning
from pipeline.progress.events import nobody
from pipeline.request import Wanted, make_request
from tests.conftest import RayHead, free_ports, ray_head
from tests.pipeline.cluster.work import KilledOnce, square, up_to
from tests.pipeline.planning.pieced import files_of, make_source, plan_source

WORK = "tests.pipeline.cluster.work"


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    with ray_head(RAY_AUTH_MODE="disabled") as found:
        yield found


@pytest.fixture(scope="module")
def cluster(head: RayHead) -> Iterator[Cluster]:
    with connected(head.address) as found:
        yield found


def test_the_cluster_says_what_it_has(cluster: Cluster) -> None:
    assert cluster.resources["CPU"] == 2


def test_items_come_in_order_and_so_does_the_log(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(cluster.each(f"{WORK}:count", 3)) == [0, 1, 2]
    assert caplog.messages == ["item 0", "item 1", "item 2"]


def test_what_is_asked_about_goes_there_when_it_is_wanted(cluster: Cluster) -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(4):
            taken.append(number)
            yield number

    found = cluster.each(f"{WORK}:squares", items=numbers())
    assert [next(found), *taken] == [0, 0]
    assert list(found) == [1, 4, 9]


def test_an_error_is_raised_here_as_it_was_there(cluster: Cluster) -> None:
    items = cluster.each(f"{WORK}:fail", "refused")
    assert next(items) == 0
    with pytest.raises(RefusedError, match="not like this") as raised:
        next(items)
    assert raised.value.__cause__ is None
    with pytest.raises(KeyError, match="a fault of ours") as fault:
        list(cluster.each(f"{WORK}:fail", "fault"))
    assert isinstance(fault.value.__cause__, DriverTraceback)
    assert "work.py" in str(fault.value.__cause__)
    assert list(cluster.each(f"{WORK}:count", 1)) == [0], "and the next question is answered"


def test_tasks_keep_their_order_and_a_worker_s_error_its_kind(cluster: Cluster) -> None:
    assert list(cluster.map(square, range(40))) == [number * number for number in range(40)]
    assert list(cluster.map(partial(pow, 2), range(5))) == [1, 2, 4, 8, 16], "whatever can be called"
    with pytest.raises(StorageError, match=r"^cannot square -1$"):
        list(cluster.map(square, [1, -1]))


def test_what_tasks_yield_comes_in_the_order_of_their_items(cluster: Cluster, tmp_path: Path) -> None:
    wanted = [item for number in (3, 0, 2, 5, 1) for item in range(number)]
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in (3, 0, 2, 5, 1):
            taken.append(number)
            yield number

    found = cluster.flow(up_to, items(), ahead=2)
    assert [next(found), *taken] == [0, 3, 0], "no more are taken than there is room for"
    assert [0, *found] == wanted
    killed = KilledOnce(up_to, str(tmp_path / "killed"))
    assert list(cluster.flow(killed, (3, 0, 2, 5, 1))) == wanted
    assert (tmp_path / "killed").exists()
    with pytest.raises(StorageError, match=r"^cannot count to -1$"):
        list(cluster.flow(up_to, [1, -1]))
    assert list(cluster.flow(up_to, [])) == []


@pytest.mark.parametrize("ahead", [1, 2, 5])
def test_a_plan_by_tasks_is_that_of_one_process(cluster: Cluster, tmp_path: Path, ahead: int) -> None:
    """Files, markers and scan byte for byte; one of the workers is killed while it reads, one while it compares."""
    source = make_source(tmp_path / "in")
    wanted = plan_source(source, tmp_path / "alone")
    kills = count()

    def flow(function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        return cluster.flow(KilledOnce(function, str(tmp_path / f"killed-{next(kills)}")), items, ahead)

    assert plan_source(source, tmp_path / "out", flow) == wanted
    assert len(list(tmp_path.glob("killed-*"))) == 2
    grown = make_source(tmp_path / "in", files=range(9))
    assert plan_source(grown, tmp_path / "out", partial(cluster.flow, ahead=ahead)) == plan_source(
        grown, tmp_path / "alone"
    )


def make_inventory(images: Path, folder: Path) -> str:
    """Of a folder of images, in two files."""
    folder.mkdir()
    names = sorted(file.name for file in images.iterdir())
    for number in range(2):
        some = names[number::2]
        told = {"path": some, "size": list(range(len(some))), "etag": some}
        pq.write_table(pa.table(told), folder / f"{number}.parquet")
    return str(folder)


def test_a_job_plans_by_the_tasks_of_a_cluster_that_is_named(
    cluster: Cluster, head: RayHead, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(scanning, "TOGETHER_BYTES", 1)
    monkeypatch.setattr(listed, "INVENTORY_BYTES", 1)
    source, connections = make_source(tmp_path / "in"), list[str | None]()
    places = {"masks": str(source / "masks"), "images": str(source / "images"), "source": "parquet"}

    def planned(
        output: str, address: str | None, parallel_bytes: int = 0, inventory: str | None = None
    ) -> dict[str, bytes]:
        @cache
        def connect() -> Cluster:
            connections.append(address)
            return cluster

        monkeypatch.setattr(scanning, "PARALLEL_BYTES", parallel_bytes)
        wanted = Wanted(output=str(tmp_path / output), **places)
        request = make_request(wanted, with_weights=False, address=address, images_inventory=inventory)
        plan_increment(request, nobody, connect)
        return files_of(tmp_path / output)

    assert planned("tasks", head.address) == planned("alone", None) == planned("small", head.address, 1 << 30)
    assert planned("client", f"ray://{head.address}").keys()
    assert connections == [head.address]
    inventory = make_inventory(source / "images", tmp_path / "inventory")
    by_tasks = planned("inventory by tasks", head.address, inventory=inventory)
    assert by_tasks == planned("inventory alone", None, inventory=inventory)
    assert connections == [head.address] * 2


def test_a_connection_in_a_thread_leaves_this_process_alone(head: RayHead) -> None:
    """No handler of signals, no setting, no Ray."""
    before = dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    def connect() -> list[int]:
        with connected(head.address) as cluster:
            return list(cluster.each(f"{WORK}:count", 2))

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(connect).result(120) == [0, 1]
    assert (dict(os.environ), [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]) == before
    assert "ray" not in sys.modules or not sys.modules["ray"].is_initialized()


def test_who_stops_in_the_middle_ends_the_driver_at_once(head: RayHead) -> None:
    with connected(head.address) as cluster:
        pid = next(cluster.each(f"{WORK}:for_ever"))
        assert psutil.pid_exists(pid)
        begun = time.monotonic()
    assert time.monotonic() - begun < 5
    assert not psutil.pid_exists(pid)


def test_signals_of_a_terminal_do_not_end_the_driver(cluster: Cluster) -> None:
    items = cluster.each(f"{WORK}:count", 2)
    next(items)
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(cluster.pid, number)
    assert list(items) == [1]
    assert list(cluster.each(f"{WORK}:count", 1)) == [0]


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    [port] = free_ports(1)
    with pytest.raises(RefusedError, match=f"no Ray cluster at 127.0.0.1:{port}"):
        check_reachable(f"127.0.0.1:{port}")
    for address in (None, "auto", "local"):
        check_reachable(address)


@pytest.mark.parametrize("gone", ["head and raylet", "head alone", "driver"])
def test_a_lost_cluster_is_an_error_within_seconds(gone: str) -> None:
    """In a thread that waits for an item that will never come."""
    with ray_head(RAY_AUTH_MODE="disabled") as head, connected(head.address) as cluster:
        items = cluster.each(f"{WORK}:for_ever")
        driver = next(items)
        error: list[BaseException] = []

        def wait() -> None:
            try:
                next(items)
            except JobError as raised:
                error.append(raised)

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        processes = psutil.Process(head.process.pid).children(recursive=True)
        if gone == "head and raylet":
            os.killpg(head.process.pid, signal.SIGKILL)
        elif gone == "driver":
            os.kill(driver, signal.SIGKILL)
        else:
            [gcs] = [process for process in processes if "gcs_server" in process.name()]
            gcs.kill()
        waiting.join(30)
        assert not waiting.is_alive()
        [lost] = error
        assert isinstance(lost, ClusterLostError)
        assert head.address.rpartition(":")[2] in str(lost)
        assert "\n" not in str(lost)
