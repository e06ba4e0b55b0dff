"""Every write and delete of this process through one gate, where a thread can be held, with all that it has started."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pipeline.storage import Store

WAIT_S = 120.0
WRITES = ("put", "create", "swap", "delete")


@dataclass
class Held:
    """Where the held command stands. at: the number of the write before which it stops, from 0; None: nowhere."""

    victim: threading.Thread | None = None
    at: int | None = None
    count: int = 0
    before: str = ""
    asleep: set[threading.Thread] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)
    awake: threading.Event = field(default_factory=threading.Event)

    def arrive(self, what: str, store: Store, path: str) -> None:
        """A thread is about to write or delete."""
        me = threading.current_thread()
        if me is self.victim and not self.awake.is_set():
            if self.count == self.at:
                self.before = f"{what} {store.uri.rpartition('/')[2]}/{path}"
                self.asleep = set(threading.enumerate()) - {threading.main_thread()}
                self.stopped.set()
                self.awake.wait(WAIT_S)
            self.count += 1
        elif me in self.asleep:
            self.awake.wait(WAIT_S)


gate = Held()
inside = threading.local()


def guarded(what: str, real: Callable[..., Any]) -> Callable[..., Any]:
    """A method of Store that arrives at the gate first; what it calls itself does not."""

    def call(store: Store, path: str, *arguments: Any) -> Any:
        if getattr(inside, "call", False):
            return real(store, path, *arguments)
        gate.arrive(what, store, path)
        inside.call = True
        try:
            return real(store, path, *arguments)
        finally:
            inside.call = False

    return call


@contextmanager
def guarding() -> Iterator[None]:
    """Let every write of this process pass the gate. A file that is written piece by piece stops when it is whole."""
    real, writer = {what: getattr(Store, what) for what in WRITES}, Store.writer

    @contextmanager
    def guarded_writer(store: Store, path: str) -> Iterator[Any]:
        with writer(store, path) as file:
            yield file
            gate.arrive("write", store, path)

    for what in WRITES:
        setattr(Store, what, guarded(what, real[what]))
    Store.writer = guarded_writer  # type: ignore[method-assign]
    try:
        yield
    finally:
        for what, method in real.items():
            setattr(Store, what, method)
        Store.writer = writer  # type: ignore[method-assign]


def run_until(at: int, action: Callable[[], None]) -> Attempt:
    """Start an action in a thread; returns when it is held before its write number `at`, or has ended."""
    global gate  # noqa: PLW0603 - what Store's methods pass
    ended: list[BaseException | None] = []

    def work() -> None:
        try:
            action()
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    gate = Held(at=at)
    gate.victim = threading.Thread(target=work, daemon=True)
    gate.victim.start()
    deadline = time.monotonic() + WAIT_S
    while gate.victim.is_alive() and not gate.stopped.wait(0.005):
        assert time.monotonic() < deadline, "it does not end"
    return Attempt(gate, ended)


@dataclass(frozen=True)
class Attempt:
    """An action that is held, or has ended."""

    held: Held
    ended: list[BaseException | None]

    def wake(self) -> BaseException | None:
        """Let it go on to its end; what it raised."""
        self.held.awake.set()
        assert self.held.victim is not None
        self.held.victim.join(WAIT_S)
        [error] = self.ended
        return error
