"""One writer at a time: committing an increment, starting a retry round, sealing and removing take the output's lease.

    leases/<n>.json   {"owner", "host", "pid", "started", "since", "beat", "released"}

The highest n is the lease; n is its fencing number. It is taken by creating n + 1, which the store lets only one
process do, and only when n was released or its owner is dead: its heartbeat stood still for `ttl_s` of the waiter's own
clock (no clocks are compared), or it was a process of this machine that is no more. Before it switches anything, an
owner calls its fence, which fails once there is a higher number. What is left is an owner that was silent for `ttl_s`
and wakes between its fence and its next write.

Parts need no lease: overlapping writers of one write the same bytes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.errors import JobError, RefusedError
from pipeline.storage.atomic import TEMPORARY_PREFIX
from pipeline.storage.backoff import STORE_ERRORS, brief
from pipeline.storage.preflight import START_TRIES
from pipeline.storage.store import Store
from schemas import layout

BEATS_PER_TTL = 6
POLL_S = 0.5

Fence = Callable[[], None]
"""Raises JobError when the lease was lost."""

Hold = Callable[[], AbstractContextManager[Fence]]
"""Takes the lease for as long as the context lasts."""


@dataclass(frozen=True)
class Patience:
    """ttl_s: silence after which an owner is dead; wait_s: how long to wait for another one."""

    ttl_s: float = 60.0
    wait_s: float = 900.0


@contextmanager
def unguarded() -> Iterator[Fence]:
    """No lease: whoever calls this answers for being alone."""
    yield lambda: None


@contextmanager
def held(output: Store, patience: Patience, on_wait: Callable[[str], None] = lambda _line: None) -> Iterator[Fence]:
    """Hold the output's lease. Raises JobError when another process keeps it for longer than `wait_s`.

    on_wait: called once, with a line for the user, when there is somebody to wait for.
    """
    lease = _take(output, patience, on_wait)
    stop = threading.Event()
    heart = threading.Thread(target=lease.beat_until, args=(stop, patience.ttl_s / BEATS_PER_TTL), daemon=True)
    heart.start()
    try:
        yield lease.fence
    finally:
        stop.set()
        heart.join()
        lease.release()


def check_store(output: Store) -> None:
    """Raise RefusedError when the store cannot create a file exclusively (POSIX link, S3 If-None-Match)."""
    once = Store(output.uri, replace(output.access, tries=START_TRIES, timeout_s=10))
    name = f"{layout.LEASES}/{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
    why = "it lets two writers create the same file"
    try:
        if once.create(name, b"1") and not once.create(name, b"2"):
            return
    except STORE_ERRORS as error:
        why = brief(error)
    finally:
        with suppress(*STORE_ERRORS):
            once.delete(name)
    raise RefusedError(
        f"{output.uri} has no conditional writes ({why}), so two runs at once could not be told apart. If nothing else "
        "writes there, say so with --assume-exclusive"
    )


class _Lease:
    """A lease that this process holds, or held."""

    def __init__(self, output: Store, number: int, owner: dict[str, Any]) -> None:
        self.number = number
        self._output = output
        self._owner = owner
        self._lock = threading.Lock()

    def create(self) -> bool:
        """Whether this process is the one that got the number."""
        return self._output.create(layout.lease(self.number), json.dumps(self._owner).encode())

    def fence(self) -> None:
        self.beat()
        if (top := _top(self._output)) != self.number:
            raise JobError(
                f"another run took over {self._output.uri} (lease {top} after {self.number}): this run missed its "
                "heartbeats; nothing was published. Run it again"
            )

    def beat(self, **changes: Any) -> None:
        with self._lock:
            self._owner = {**self._owner, "beat": self._owner["beat"] + 1, **changes}
            self._output.put(layout.lease(self.number), json.dumps(self._owner).encode())

    def beat_until(self, stop: threading.Event, every_s: float) -> None:
        while not stop.wait(every_s):
            with suppress(Exception):  # the next beat may pass; the fence tells whether it was too late
                self.beat()

    def release(self) -> None:
        with suppress(Exception):  # it lapses
            self.beat(released=True)


def _take(output: Store, patience: Patience, on_wait: Callable[[str], None]) -> _Lease:
    started_s = seen_s = time.monotonic()
    seen: tuple[int, dict[str, Any]] | None = None
    while True:
        top = _top(output)
        holder = None if top < 0 else _read(output, top)
        silent = seen == (top, holder) and time.monotonic() - seen_s > patience.ttl_s
        if holder is None or silent or holder["released"] or _is_dead(holder):
            lease = _Lease(output, top + 1, _new_owner())
            if lease.create() and _is_mine(output, lease):
                _forget(output, lease.number)
                return lease
            continue
        if seen is None:
            on_wait(f"waiting for {_who(holder)}, which is writing to {output.uri}")
        if seen != (top, holder):
            seen, seen_s = (top, holder), time.monotonic()
        if time.monotonic() - started_s > patience.wait_s:
            raise JobError(
                f"{_who(holder)} is writing to {output.uri}; waited {patience.wait_s:.0f} s for it. Run again when it "
                "has ended"
            )
        time.sleep(min(POLL_S, patience.ttl_s / BEATS_PER_TTL))


def _is_mine(output: Store, lease: _Lease) -> bool:
    """A number created behind the highest one (its file was removed meanwhile) is no lease."""
    if _top(output) == lease.number:
        return True
    output.delete(layout.lease(lease.number))
    return False


def _is_dead(holder: dict[str, Any]) -> bool:
    """A process of this machine and process namespace that is no more, or whose number another one has now."""
    return holder["host"] is not None and holder["host"] == _host() and _started(holder["pid"]) != holder["started"]


def _new_owner() -> dict[str, Any]:
    return {
        "owner": uuid.uuid4().hex,
        "host": _host(),
        "name": socket.gethostname(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "since": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "beat": 0,
        "released": False,
    }


def _host() -> str | None:
    """This boot of this machine and this process namespace; None where the system does not tell."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process started, in the system's ticks; None when there is none (or it only waits to be buried)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] == "Z" else fields[19]


def _who(holder: dict[str, Any]) -> str:
    return f"another run (process {holder['pid']} on {holder['name']}, since {holder['since']})"


def _read(output: Store, number: int) -> dict[str, Any] | None:
    try:
        return dict(json.loads(output.read(layout.lease(number))))
    except FileNotFoundError:  # there is a higher number by now
        return None


def _top(output: Store) -> int:
    """The highest number; -1 when nobody ever took the lease."""
    return max(_numbers(output), default=-1)


def _forget(output: Store, number: int) -> None:
    for other in _numbers(output):
        if other < number:
            output.delete(layout.lease(other))


def _numbers(output: Store) -> list[int]:
    found = (layout.numbered(layout.LEASES, file.path) for file in output.list(layout.LEASES))
    return [number for number in found if number is not None]
