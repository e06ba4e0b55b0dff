"""How much of planning stays with the command when Ray's tasks plan.

    python -m tests.chaos.head_share --images 100000 --folder /large/disk          accounted in one process, without Ray
    python -m tests.chaos.head_share --images 100000 --folder /large/disk --ray    by a real Ray on this machine

Source and inventory are those of `millions`. In one process, what would be a task's is done here, with everything that
would travel pickled as it is then, and its CPU time is counted apart; so is that of the process that is Ray's driver,
which passes on what command and tasks say to each other, without what Ray itself needs. `alone` is the same plan
without tasks. With --ray it is what the system counts of the two processes, from when they are connected.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import cloudpickle
import psutil

from pipeline.cluster.connection import Cluster, connected
from pipeline.job import plan_increment
from pipeline.planning import listed, scanning
from pipeline.progress.events import nobody
from pipeline.request import Request, Wanted, make_request
from tests.chaos import millions
from tests.chaos.millions import make_inventory, make_source
from tests.conftest import ray_head

FILES = 10
"""Of the source, each a piece; and of the inventory."""


@dataclass
class Accounts:
    """CPU seconds by whose they are: `command` is what is nobody else's."""

    spent_s: Counter[str] = field(default_factory=Counter)
    _since_s: float = field(default_factory=time.process_time)
    _whose: str = "command"

    @contextmanager
    def of(self, whose: str) -> Iterator[None]:
        before = self._switch(whose)
        try:
            yield
        finally:
            self._switch(before)

    def _switch(self, whose: str) -> str:
        now_s = time.process_time()
        self.spent_s[self._whose] += now_s - self._since_s
        before, self._whose, self._since_s = self._whose, whose, now_s
        return before


@dataclass(frozen=True)
class Flow:
    """As `Cluster.flow`, in this process."""

    accounts: Accounts

    def __call__(self, function: Callable[[Any], Iterable[Any]], items: Iterable[Any]) -> Iterator[Any]:
        sent = cloudpickle.dumps(function)
        for item in map(cloudpickle.dumps, items):
            data = self._passed_on(item)
            with self.accounts.of("tasks"):
                found = map(cloudpickle.dumps, cloudpickle.loads(sent)(cloudpickle.loads(data)))
            while (result := self._next(found)) is not None:
                yield cloudpickle.loads(self._passed_on(result))

    def _next(self, found: Iterator[bytes]) -> bytes | None:
        with self.accounts.of("tasks"):
            return next(found, None)

    def _passed_on(self, data: bytes) -> bytes:
        with self.accounts.of("driver"):
            passed: bytes = cloudpickle.loads(cloudpickle.dumps(data))
            return passed


def measure(images: int, folder: Path) -> dict[str, float]:
    """CPU microseconds an image of a first plan, by whose they are, and the command's share."""
    _make(images, folder)
    accounts = Accounts()
    cluster = cast(Cluster, SimpleNamespace(flow=Flow(accounts)))
    with accounts.of("alone"):
        plan_increment(_request(folder, "alone", None), nobody, _no_cluster)
    with _by_tasks(), accounts.of("command"):
        plan_increment(_request(folder, "output", "auto"), nobody, lambda: cluster)
    spent = {whose: 1e6 * seconds / images for whose, seconds in accounts.spent_s.items()}
    return {"images": images, **spent, "command_share": spent["command"] / (spent["command"] + spent["tasks"])}


def measure_ray(images: int, folder: Path) -> dict[str, float]:
    """As `measure`, without what tasks need."""
    _make(images, folder)
    disabled = mock.patch.dict(os.environ, RAY_AUTH_MODE="disabled")
    with disabled, ray_head() as head, connected(head.address) as cluster, _by_tasks():
        processes = {"command": psutil.Process(), "driver": psutil.Process(cluster.pid)}
        before = {whose: _cpu_s(process) for whose, process in processes.items()}
        plan_increment(_request(folder, "output", head.address), nobody, lambda: cluster)
        spent = {whose: 1e6 * (_cpu_s(one) - before[whose]) / images for whose, one in processes.items()}
    return {"images": images, **spent}


def _make(images: int, folder: Path) -> None:
    with mock.patch.object(millions, "ROWS", max(1, images // FILES)):
        make_source(folder / "masks", range(images))
        make_inventory(folder / "inventory", range(images))
    (folder / "images").mkdir()
    (folder / "images" / "0.jpg").touch()


def _request(folder: Path, output: str, address: str | None) -> Request:
    wanted = Wanted(masks=str(folder / "masks"), images=str(folder / "images"), output=str(folder / output))
    inventory = str(folder / "inventory")
    return make_request(
        replace(wanted, source="parquet"), with_weights=False, images_inventory=inventory, address=address
    )


@contextmanager
def _by_tasks() -> Iterator[None]:
    """However small the input is."""
    large = mock.patch.object(listed, "INVENTORY_BYTES", 0)
    with large, mock.patch.multiple(scanning, TOGETHER_BYTES=1, PARALLEL_BYTES=0):
        yield


def _no_cluster() -> Cluster:
    raise AssertionError("it plans alone")


def _cpu_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--ray", action="store_true", help="by a real Ray")
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    try:
        print(json.dumps((measure_ray if given.ray else measure)(given.images, given.folder)))
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
