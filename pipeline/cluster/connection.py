"""A Ray cluster as this process sees it: work is handed over, results come one by one, and a lost cluster is an error.

Ray's driver is a process of its own (`driver.py`), since Ray takes the one that it runs in for its own: it installs a
handler of SIGTERM, blocks in C code where it waits for a lost head, and ends the process without a word once the node's
raylet is gone. So nothing here blocks for long, whatever thread calls it and whatever else that program does with Ray.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import cloudpickle

from pipeline.cluster.worker_path import driver_folder
from pipeline.errors import ClusterLostError, RefusedError, RelabelError

Item = TypeVar("Item")
Result = TypeVar("Result")

CONNECT_TIMEOUT_S = 5.0
HEAD_CHECK_S, HEAD_MISSES = 2.0, 3
CLOSE_S = 15.0
RAY_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # silences a warning about a coming default
    "RAY_BACKEND_LOG_LEVEL": "fatal",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # after 1 s by default, and starting one takes 2 s of CPU
    "RAY_USAGE_STATS_ENABLED": "0",  # nobody asked the user, and it is a process more
    "RAY_task_oom_retries": "2",  # without end by default, see RETRIES in refining/ray_pipeline.py
}
"""Unless the environment has others. Messages of Ray would bury the progress; its log files keep them."""

START = """
import json, sys
sys.path[:], sys.argv[0] = json.loads(sys.argv[2])
from pipeline.cluster.driver import main
main(int(sys.argv[1]))
"""
"""The driver finds the modules that this process finds, before it imports any of ours."""


class DriverTraceback(Exception):  # noqa: N818 - not an error, but where one came from
    """Where in the driver an unexpected error was raised."""


class Cluster:
    """A connection to a Ray cluster. resources: of all its nodes, as Ray names them (CPU, GPU, ...)."""

    def __init__(self, child: subprocess.Popen[bytes], channel: Connection) -> None:
        self._child = child
        self._channel = channel
        self._idle = True
        self._misses = 0
        self._head: str | None = None
        self.resources: dict[str, float] = {}

    @property
    def pid(self) -> int:
        """Of Ray's driver."""
        return self._child.pid

    def connect(self, address: str | None) -> None:
        """Raises RefusedError where there is no such cluster, JobError where a local one does not start."""
        [(self._head, self.resources)] = self._ask("connect", address)

    def each(self, produce: str, *arguments: Any, items: Iterable[Any] = ()) -> Iterator[Any]:
        """What `produce(items, *arguments)` yields as it comes, or what it raises. It is called where Ray is.

        produce: `module:function`. items: each goes there when it is asked for. Raises ClusterLostError when the head,
        or the driver's own node, is gone.
        """
        return self._ask("each", produce, arguments, items=items)

    def map(self, function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
        """As `map`, by Ray tasks, a bounded number at a time."""
        return self._ask("map", function, list(items))

    def flow(
        self, function: Callable[[Item], Iterable[Result]], items: Iterable[Item], ahead: int = 0
    ) -> Iterator[Result]:
        """What the function yields of one item after another, by Ray tasks; items are taken as there is room for them.

        ahead: items at work at once, 0 for two of each CPU and some more. A task whose worker dies is begun again, and
        what it has yielded before is not yielded twice: it has to yield the same.
        """
        return map(cloudpickle.loads, self._ask("flow", function, ahead, items=map(cloudpickle.dumps, items)))

    def close(self) -> None:
        """End the connection, and a cluster that was started for it."""
        try:
            if self._idle:
                with suppress(OSError, subprocess.TimeoutExpired):
                    self._channel.send_bytes(b"")
                    self._child.wait(CLOSE_S)
        finally:
            self._child.kill()
            self._child.wait()
            self._channel.close()

    def _ask(self, *question: Any, items: Iterable[Any] = ()) -> Iterator[Any]:
        """What the driver answers to one question. It cannot be asked another one until this one is answered.

        items: that it may want.
        """
        self._idle, waiting = False, iter(items)
        self._send(question)
        while True:
            kind, value = self._receive()
            if kind == "item":
                yield value
            elif kind == "want":
                self._send(list(islice(waiting, 1)))
            elif kind == "log":
                logging.getLogger(value.name).handle(value)
            else:
                self._idle = True
                if kind == "error":
                    error, where = value
                    raise error from (None if isinstance(error, RelabelError) else DriverTraceback(where))
                return

    def _send(self, what: Any) -> None:
        try:
            self._channel.send_bytes(cloudpickle.dumps(what))
        except OSError:
            raise self._lost() from None

    def _receive(self) -> tuple[str, Any]:
        try:
            while not self._channel.poll(HEAD_CHECK_S):
                self._check_head()
            self._misses = 0
            return cloudpickle.loads(self._channel.recv_bytes())
        except (EOFError, OSError):
            raise self._lost() from None

    def _check_head(self) -> None:
        try:
            check_reachable(self._head)
            self._misses = 0
        except RefusedError:
            self._misses += 1
        if self._misses == HEAD_MISSES:
            raise self._lost()

    def _lost(self) -> ClusterLostError:
        where = f" at {self._head}" if self._head else ""
        return ClusterLostError(
            f"the Ray head{where} is gone, or this node's part of it; finished chunks are kept: run it again to resume"
        )


@contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """An existing cluster, or one started here for as long as the context lasts.

    address: as Ray takes it; None: $RAY_ADDRESS, else a cluster of this machine alone.
    """
    check_reachable(address)
    seen = json.dumps([[str(entry or Path.cwd()) for entry in sys.path], "".join(sys.argv[:1])])
    with driver_folder() as folder:
        mine, its = Pipe()
        with its:
            child = subprocess.Popen(  # noqa: S603 - this interpreter, our module
                [sys.executable, "-c", START, str(its.fileno()), seen],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                env={**RAY_SETTINGS, **os.environ},
                pass_fds=[its.fileno()],
            )
        cluster = Cluster(child, mine)
        try:
            cluster.connect(address)
            yield cluster
        finally:
            cluster.close()


def check_reachable(address: str | None) -> None:
    """Refuse an address where nothing listens; Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "local", "auto": Ray looks for itself
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise RefusedError(f"no Ray cluster at {address}: {error.strerror or error}") from None
