"""How much of planning stays with the command when Ray's tasks plan: accounted in one process, without Ray.

    python -m tests.chaos.head_share --images 100000 --folder /large/disk

Source and inventory are those of `millions`. What would be a task's is done here, with everything that would travel
pickled as it is then, and its CPU time is counted apart. The process that is Ray's driver, which passes on what command
and tasks say to each other, is one more: its part is counted apart as well, without what Ray itself needs.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import cloudpickle

from pipeline.cluster.connection import Cluster
from pipeline.job import plan_increment
from pipeline.planning import listed, scanning
from pipeline.progress.events import nobody
from pipeline.request import Wanted, make_request
from tests.chaos import millions
from tests.chaos.millions import make_inventory, make_source

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
    with mock.patch.object(millions, "ROWS", max(1, images // FILES)):
        make_source(folder / "masks", range(images))
        make_inventory(folder / "inventory", range(images))
    (folder / "images").mkdir()
    (folder / "images" / "0.jpg").touch()
    uris = {name: str(folder / name) for name in ("masks", "output", "images")}
    wanted = Wanted(**uris, source="parquet")
    inventory = str(folder / "inventory")
    request = make_request(wanted, with_weights=False, images_inventory=inventory, address="auto")
    accounts = Accounts()
    cluster = cast(Cluster, SimpleNamespace(flow=Flow(accounts)))
    large = mock.patch.object(listed, "INVENTORY_BYTES", 0)
    with large, mock.patch.multiple(scanning, TOGETHER_BYTES=1, PARALLEL_BYTES=0), accounts.of("command"):
        plan_increment(request, nobody, lambda: cluster)
    spent = {whose: 1e6 * seconds / images for whose, seconds in accounts.spent_s.items()}
    return {"images": images, **spent, "command_share": spent["command"] / (spent["command"] + spent["tasks"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, required=True)
    given = parser.parse_args()
    given.folder.mkdir(parents=True)
    try:
        print(json.dumps(measure(given.images, given.folder)))
    finally:
        shutil.rmtree(given.folder, ignore_errors=True)


if __name__ == "__main__":
    main()
