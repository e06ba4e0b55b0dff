"""The process that is Ray's driver: it is started, asked and ended by `connection.py`, and ends when that one is gone.

Questions and answers are pickles, between a process and its own child. A question is answered by any number of
("item", value) and ("log", record), and then by ("end", None) or ("error", (exception, traceback)). ("want", None) asks
for one more item of the question, and a list of one, or of none at their end, is what comes next.
"""

from __future__ import annotations

import logging
import os
import pkgutil
import queue
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import cloudpickle
import ray
import ray.data  # sets up its logging, which is silenced below

from pipeline.cluster.stderr_filter import silence, without_lines
from pipeline.errors import JobError, RefusedError, RelabelError
from pipeline.storage import brief

STARTS = 3
IN_FLIGHT = 16


def main(channel: int) -> None:
    """Answer questions until an empty one comes. channel: a file descriptor of a Connection."""
    signals = (signal.SIGINT, signal.SIGTERM)
    _ignore(*signals)  # a terminal sends them to all of its processes; it is the parent's business to end this one
    talk = _Talk(Connection(channel))
    threading.Thread(target=talk.listen, daemon=True).start()
    logging.getLogger("pipeline").addHandler(_Forward(talk))
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # a chunk lost with its worker is isolate.py's, no page
    while question := talk.questions.get():
        talk.answer(question)
        _ignore(*signals)  # Ray has set its own
    ray.shutdown()


class _Talk:
    """This side of the connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self.questions: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def listen(self) -> None:
        """Take questions; leave at once when the parent is gone: a local cluster ends with this process."""
        try:
            while True:
                self.questions.put(self._connection.recv_bytes())
        except (EOFError, OSError):
            os._exit(1)

    def answer(self, question: bytes) -> None:
        """Send all that there is to say to one question."""
        try:
            what, *arguments = cloudpickle.loads(question)
            asking = {name: partial(answer, self.items) for name, answer in ASKING.items()}
            answers: dict[str, Callable[..., Iterable[Any]]] = {**ANSWERS, **asking}
            for item in answers[what](*arguments):
                self.send("item", item)
        except Exception as error:  # whatever it is, it is raised where the question was asked
            self.send_error(_portable(error), traceback.format_exc())
        else:
            self.send("end", None)

    def items(self) -> Iterator[Any]:
        """What a question is about, one item after another, each asked for when it is wanted."""
        self.send("want", None)
        while found := cloudpickle.loads(self.questions.get()):
            yield found[0]
            self.send("want", None)

    def send_error(self, error: Exception, where: str) -> None:
        try:
            self.send("error", (error, where))
        except Exception:  # some errors hold what cannot be pickled
            self.send("error", (JobError(f"{type(error).__name__}: {brief(error)}"), where))

    def send(self, kind: str, value: Any) -> None:
        data = cloudpickle.dumps((kind, value))
        with self._lock:
            self._connection.send_bytes(data)


class _Forward(logging.Handler):
    """Log records go to the parent, which has the user's handlers."""

    def __init__(self, talk: _Talk) -> None:
        super().__init__()
        self._talk = talk

    def emit(self, record: logging.LogRecord) -> None:
        record.msg, record.args, record.exc_info = record.getMessage(), None, None
        self._talk.send("log", record)


def connect(address: str | None) -> Iterator[tuple[str, dict[str, float]]]:
    """Connect to a cluster, or start one; yields the head's address and the cluster's resources."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    for attempt in range(1, STARTS + 1):
        try:
            with without_lines(b"RAY_BACKEND_LOG_LEVEL"):  # of which Ray's core says that it is set
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", include_dashboard=False)
            break
        except (ConnectionError, ValueError, RuntimeError) as error:
            hint = "; one with token authentication needs RAY_AUTH_MODE=token and its token (RAY_AUTH_TOKEN) here too"
            raise RefusedError(f"no Ray cluster at {address}: {brief(error)}{hint}") from None
        except Exception as error:  # a bare one when a local node takes longer than Ray's fixed 30 s
            ray.shutdown()
            if attempt == STARTS:
                raise JobError(f"Ray did not start: {brief(error)}") from None
    silence()  # tracebacks of tasks that are tried again; Ray's log files keep them, and what counts is raised
    head = address if address.startswith("ray://") else ray.get_runtime_context().gcs_address
    yield head, ray.cluster_resources()


def each(items: Callable[[], Iterator[Any]], produce: str, arguments: Sequence[Any]) -> Iterable[Any]:
    """produce: `module:function`, called here."""
    found: Iterable[Any] = pkgutil.resolve_name(produce)(items(), *arguments)
    return found


def spread(function: Callable[[Any], Any], items: Sequence[Any]) -> Iterator[Any]:
    """`map` by Ray tasks, in order."""
    task, shared = ray.remote(_call), ray.put(function)
    pending: list[Any] = []
    for item in items:
        pending.append(task.remote(shared, item))
        if len(pending) >= IN_FLIGHT:
            yield ray.get(pending.pop(0))
    yield from (ray.get(reference) for reference in pending)


def flow(items: Callable[[], Iterator[bytes]], function: Callable[[Any], Any], ahead: int) -> Iterator[bytes]:
    """What Ray tasks yield of the items, in their order; of each item, as it comes. Both are pickles, and stay so on
    their way through this process.
    """
    task, shared, pending = ray.remote(num_returns="streaming")(_each), ray.put(function), deque[Any]()
    most = ahead or max(IN_FLIGHT, 2 * int(ray.cluster_resources().get("CPU", 0)))
    for item in items():
        pending.append(task.remote(shared, item))
        if len(pending) >= most:
            yield from map(ray.get, pending.popleft())
    while pending:
        yield from map(ray.get, pending.popleft())


def _each(function: Callable[[Any], Iterable[Any]], item: bytes) -> Iterator[bytes]:
    """As `_call`."""
    for found in function(cloudpickle.loads(item)):  # Ray sends values into it, which `map` does not take
        yield cloudpickle.dumps(found)


def _call(function: Callable[[Any], Any], item: Any) -> Any:
    """Ray makes tasks of functions only, not of whatever can be called."""
    return function(item)


ANSWERS: dict[str, Callable[..., Iterable[Any]]] = {"connect": connect, "map": spread}
ASKING: dict[str, Callable[..., Iterable[Any]]] = {"each": each, "flow": flow}
"""These are given what asks for one more item of the question."""


def _portable(error: Exception) -> Exception:
    """The error as it can be raised in the parent: one of ours as it is, a worker's without Ray's layers around it."""
    if isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, RelabelError):
        error = error.cause
    if isinstance(error, ray.exceptions.RayError) and not isinstance(error, RelabelError):
        return JobError(f"a worker failed: {brief(error)}")
    return error


def _ignore(*signals: signal.Signals) -> None:
    """By a function, not SIG_IGN: that one Ray's processes would inherit."""
    for number in signals:
        signal.signal(number, lambda _number, _frame: None)
