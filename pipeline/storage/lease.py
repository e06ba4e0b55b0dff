"""One writer at a time: committing an increment, starting a retry round, sealing and removing take the output's lease.

    leases/<n>.json                        {"owner", "host", "pid", "started", "since", "beat", "released"}
    leases/run-<fingerprint>-<owner>.json  the same, and "part", of a run that refines: any number of them

The highest n is the lease. It is taken by creating n + 1, which the store lets only one process do, and only when n was
released or its owner is dead: its heartbeat stood still for `ttl_s` of the waiter's own clock (no clocks are compared),
or it was a process of this machine that is no more.

A lease keeps writers from wasting each other's time; it does not keep a result whole, since its owner may sleep through
its loss, and wake. That is what `Store.create`, `Store.swap` and names of one's own are for (`planning/attempts.py`,
`output/manifest.py`).

Parts need no lease: overlapping writers write the same bytes.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import JobError, RefusedError
from pipeline.storage.atomic import TEMPORARY_PREFIX
from pipeline.storage.backoff import STORE_ERRORS, brief
from pipeline.storage.preflight import START_TRIES, check_writable
from pipeline.storage.store import Store
from schemas import layout

BEATS_PER_TTL, POLL_S = 6, 0.5
SILENT_S = 600.0
"""A run that refines is thought dead when its heartbeat is so much older than another's at the same store."""
NOBODY: dict[str, Any] = {
    "owner": "",
    "host": None,
    "name": "a machine that it does not tell",
    "pid": "unknown",
    "started": None,
    "since": "an unknown time",
    "beat": 0,
    "released": False,
}

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
    """Hold the output's lease. Raises JobError when another process keeps it for longer than `wait_s`. on_wait: called
    once, with a line for the user, when there is somebody to wait for.
    """
    number, heart = _take(output, patience, on_wait)
    with heart.beating(patience):
        yield partial(_fence, output, number, heart)


@contextmanager
def in_use(output: Store, name: str, patience: Patience, part: str = "") -> Iterator[None]:
    """Say, for as long as the context lasts, that a run refines into a method's folder: `part` of the plan, as 2/4."""
    owner = {**_new_owner(), "part": part}
    heart = _Heart(output, layout.use(name, owner["owner"]), owner)
    heart.beat()
    for path in _lapsed(output):
        output.delete(path)
    try:
        with heart.beating(patience):
            yield
    finally:
        with suppress(Exception):  # it lapses
            output.delete(heart.path)


def uses(output: Store) -> dict[str, list[str]]:
    """Who refines into a method's folder, in words, by the folder's name; without those that are known to be dead."""
    lapsed, found = set(_lapsed(output)), defaultdict(list)
    for file in output.list(layout.LEASES):
        name = layout.used(file.path)
        if name and file.path not in lapsed and (holder := _read(output, file.path)):
            part = f", part {holder['part']}" if holder.get("part") else ""
            found[name].append(f"process {holder['pid']} on {holder['name']}, since {holder['since']}{part}")
    return dict(found)


def _lapsed(output: Store) -> list[str]:
    """Leases of runs that are no more: processes of this machine, or silent long after others wrote to this store."""
    files = [file for file in output.list(layout.LEASES) if file.modified_s is not None]
    newest_s = max((file.modified_s or 0.0 for file in files), default=0.0)
    return [
        file.path
        for file in files
        if layout.used(file.path)
        and (newest_s - (file.modified_s or 0.0) > SILENT_S or _is_dead(_read(output, file.path) or NOBODY))
    ]


def check_store(output: Store) -> None:
    """Raise RefusedError when the store cannot create a file exclusively (POSIX link, S3 If-None-Match), or replace one
    only as long as it has not changed (a lock, S3 If-Match).
    """
    once = Store(output.uri, replace(output.access, tries=START_TRIES, timeout_s=10))
    name = f"{layout.LEASES}/{TEMPORARY_PREFIX}probe-{uuid.uuid4().hex}"
    try:
        why = _probe(once, name)
    except STORE_ERRORS as error:
        check_writable(output)  # a store that takes no file at all is told as what it is
        why = brief(error)
    finally:
        with suppress(*STORE_ERRORS):
            once.delete(name)
    if why:
        raise RefusedError(
            f"{output.uri} has no conditional writes ({why}), so two runs at once could not be told apart. If nothing "
            "else writes there, say so with --assume-exclusive"
        )


def _probe(store: Store, name: str) -> str:
    """What is wrong with a store's conditions; "" where nothing is."""
    if not store.create(name, b"1") or store.create(name, b"2"):
        return "it lets two writers create the same file"
    _, version = store.versioned(name)
    if not store.swap(name, b"3", version):
        return "it does not let the only writer replace a file"
    if store.swap(name, b"4", version):
        return "it lets a writer replace a file that has changed since"
    return ""


class _Heart:
    """A file that says that this process is alive."""

    def __init__(self, output: Store, path: str, owner: dict[str, Any]) -> None:
        self.path = path
        self._output = output
        self._owner = owner
        self._lock = threading.Lock()

    def create(self) -> bool:
        """Whether this process is the one that got the path."""
        return self._output.create(self.path, json.dumps(self._owner).encode())

    def beat(self, **changes: Any) -> None:
        with self._lock:
            self._owner = {**self._owner, "beat": self._owner["beat"] + 1, **changes}
            self._output.put(self.path, json.dumps(self._owner).encode())

    @contextmanager
    def beating(self, patience: Patience) -> Iterator[None]:
        """Beat while the context lasts, and say at its end that it did."""
        stop = threading.Event()
        beats = threading.Thread(target=self._beat_until, args=(stop, patience.ttl_s / BEATS_PER_TTL), daemon=True)
        beats.start()
        try:
            yield
        finally:
            stop.set()
            beats.join()
            with suppress(Exception):  # it lapses
                self.beat(released=True)

    def _beat_until(self, stop: threading.Event, every_s: float) -> None:
        while not stop.wait(every_s):
            with suppress(Exception):  # the next beat may pass; the fence tells whether it was too late
                self.beat()


def _fence(output: Store, number: int, heart: _Heart) -> None:
    heart.beat()
    if (top := _top(output)) != number:
        raise JobError(
            f"another run took over {output.uri} (lease {top} after {number}): this run missed its heartbeats; nothing "
            "was published. Run it again"
        )


def _take(output: Store, patience: Patience, on_wait: Callable[[str], None]) -> tuple[int, _Heart]:
    started_s = seen_s = time.monotonic()
    seen: tuple[int, dict[str, Any]] | None = None
    while True:
        top = _top(output)
        holder = None if top < 0 else _read(output, layout.lease(top))
        silent = seen == (top, holder) and time.monotonic() - seen_s > patience.ttl_s
        if holder is None or silent or holder["released"] or _is_dead(holder):
            heart = _Heart(output, layout.lease(top + 1), _new_owner())
            if heart.create() and _is_mine(output, top + 1):
                _forget(output, top + 1)
                return top + 1, heart
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


def _is_mine(output: Store, number: int) -> bool:
    """A number created behind the highest one (its file was removed meanwhile) is no lease."""
    if _top(output) == number:
        return True
    output.delete(layout.lease(number))
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


def _read(output: Store, path: str) -> dict[str, Any] | None:
    """Who holds a lease; None where its file is gone. One that cannot be read is a stranger's, and may lapse."""
    try:
        content = json.loads(output.read(path))
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError):
        content = {}
    return {**NOBODY, **content} if isinstance(content, dict) else NOBODY


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
