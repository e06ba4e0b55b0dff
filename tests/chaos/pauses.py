"""Hold a command before each of its writes and deletes, let another one overtake it, wake it, and look at what is left.

    python -m tests.chaos.pauses [--all] [--s3] [--seed 0]

All in one process, with a lease that lapses after 0.2 s and a model that is a hash. A command's writes and deletes are
counted, not listed by hand: of the output's files, its leases, and those of an export. Held at the n-th of them, with
its heartbeats, it sleeps until the other command has ended, and then goes on as if nothing had happened. After each
pair `verify` must find nothing, the whole job must run to its end, and plan, parts and shards must be, byte for byte,
those of a job that nobody disturbed. The held command may end in one line that says that it was overtaken; the one that
overtakes it may not.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.dataset import open_result
from pipeline.dataset.verdicts import digest, stored
from pipeline.errors import RelabelError
from pipeline.exports.driver import REPORT, export
from pipeline.exports.types import Options
from pipeline.output.garbage import collect
from pipeline.output.manifest import KEEP_ONE
from pipeline.planning.attempts import increments
from pipeline.planning.scans import record
from pipeline.review.verdicts import review
from pipeline.sources import SourceInput
from pipeline.sources.coverage import Coverage
from pipeline.storage import Access, Store
from pipeline.storage.lease import Patience, held
from pipeline.verify.check import verify
from schemas import layout
from schemas.config import Gate, Method
from tests.chaos.runs import s3_server
from tests.pipeline.outputs import Output

QUICK = Patience(ttl_s=0.2, wait_s=60)
WAIT_S = 120.0
STRICT = Gate(min_quality_gain=0.99)
OTHER = Method(iterations=2)
FIRST = dict.fromkeys(range(6), (2, ""))
CHANGED = {**FIRST, 0: (1, "redrawn"), 1: (2, "redrawn"), 2: (3, "redrawn")}
GROWN = {**CHANGED, 6: (1, ""), 7: (2, "")}
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


@dataclass(frozen=True)
class Place:
    """One output, on a disk or a store, and the folder of its export."""

    output: Output
    target: Store
    verdicts: str

    @property
    def hold(self) -> Any:
        return partial(held, self.output.store, QUICK)


def fails(what: str, attempt: int) -> str | None:
    """One image fails until it is retried."""
    return "storage" if what == "0003.jpg" and attempt == 0 else None


def do_plan(place: Place) -> None:
    place.output.plan(GROWN, hold=place.hold)
    coverage = Coverage()
    coverage.take_many("image", len(GROWN), "entries")
    given = SourceInput("masks", Access(), {}, coverage=coverage, images_uri="images")
    record(place.output.store, given, "coco", place.hold)


def do_refine(place: Place) -> None:
    place.output.refine(place.output.pending(), fails)


def do_seal(place: Place) -> None:
    place.output.seal(STRICT, hold=place.hold)


def do_gc(place: Place) -> None:
    collect(place.output.store, place.hold, KEEP_ONE, other_methods=True)


def do_retry(place: Place) -> None:
    with place.hold():
        tasks = place.output.retry_tasks()
    place.output.refine(tasks, fails)
    place.output.seal(hold=place.hold)


def do_run(place: Place) -> None:
    do_plan(place)
    do_refine(place)
    place.output.seal(hold=place.hold)


def do_switch(place: Place) -> None:
    """Another method becomes the current one."""
    output = place.output
    do_run(Place(Output(output.folder, method=OTHER, remote=output.remote), place.target, place.verdicts))


def do_export(place: Place) -> None:
    result = open_result(place.output.store.uri, place.output.store.access)
    export(result, place.target, Store("/nowhere"), "coco", Options(), overwrite=True)


def do_review(place: Place) -> None:
    review(place.output.store.uri, place.verdicts, place.output.store.access)


COMMANDS: dict[str, Callable[[Place], None]] = {
    "plan": do_plan,
    "seal": do_seal,
    "gc": do_gc,
    "retry": do_retry,
    "export": do_export,
    "review": do_review,
    "run": do_run,
    "switch": do_switch,
}
HELD = ("plan", "seal", "gc", "retry", "export", "review", "switch")


def make(output: Output) -> None:
    """An output with all that commands find: replaced chunks, failed rows, another method's result, and what killed
    commands of each kind have left.
    """
    other = Output(output.folder, method=OTHER, remote=output.remote)
    output.plan(FIRST)
    for one in (other, output):
        one.refine(one.pending(), fails)
        one.seal()
    output.plan(CHANGED)
    output.refine(output.pending(), fails)
    output.seal()
    unlisted = b"never listed"
    output.run.put(layout.shard("masks", hashlib.sha256(unlisted).hexdigest()), unlisted)
    output.run.put(layout.Seal(7, "a" * 32).parts, b"half")
    output.store.put(layout.Increment(2, "b" * 32).bucket(0, 1023), b"half")
    output.store.put(layout.scan("c" * 64, "d" * 32), b"{}")


def finish(output: Output) -> None:
    """The whole job, undisturbed."""
    output.plan(GROWN)
    output.refine(output.pending(), fails)
    output.seal()
    output.refine(output.retry_tasks(), fails)
    output.seal()
    collect(output.store, partial(held, output.store, QUICK), KEEP_ONE)


def bytes_of(output: Output) -> dict[str, str]:
    """Plan, parts and shards by what they are, whatever attempt wrote them: SHA-256."""
    store, run = output.store, output.run
    found = {}
    for one in increments(store):
        for name in one.marker.sha256:
            found[one.files.said(name)] = sha256(store, one.files.file(name))
        found[one.files.said("marker.json")] = one.sha256
    found |= {file.path: sha256(run, file.path) for file in run.list(layout.PARTS)}
    manifest = open_result(store.uri, store.access).manifest
    for kind in layout.SHARDS:
        for number, shard in enumerate(manifest.shards(kind)):
            found[f"{kind} {number}"] = sha256(store, shard.path)
    return found


def sha256(store: Store, path: str) -> str:
    return hashlib.sha256(store.read(path)).hexdigest()


def check(place: Place, expected: dict[str, str]) -> Iterator[str]:
    """What is wrong after a pair."""
    output = place.output
    yield from (f"verify: {one}" for one in verify(output.store.uri, output.store.access).findings)
    yield from check_export(place.target)
    kept = stored(output.store)
    finish(output)
    yield from (f"verify at the end: {one}" for one in verify(output.store.uri, output.store.access).findings)
    if stored(output.store) != kept:
        yield "verdicts were lost"
    found = bytes_of(output)
    if found != expected:
        yield f"other bytes: {sorted(dict(found.items() ^ expected.items()))}"


def check_export(target: Store) -> Iterator[str]:
    """A finished export has every image and mask that it says it has."""
    if not target.exists(REPORT):
        return
    said = json.loads(target.read(REPORT))["counts"]
    found = json.loads(target.read("instances.json"))
    if (len(found["images"]), len(found["annotations"])) != (said["images"], said["masks"]):
        yield f"the export says {said}, and holds {len(found['images'])}, {len(found['annotations'])}"


@dataclass
class Bench:
    """Copies of one output, for as many pairs as are tried. remote: a store to copy them to instead of to `folder`."""

    folder: Path
    remote: Store | None = None
    tried: int = 0

    def __post_init__(self) -> None:
        base = Output(self.folder / "base")
        make(base)
        rows = open_result(base.store.uri).masks().to_pylist()[:2]
        verdicts = [{"mask_id": row["mask_id"], "digest": digest(row), "verdict": "reject"} for row in rows]
        content = {"kind": "relabel-verdicts", "schema_version": 1, "verdicts": verdicts}
        (self.folder / "verdicts.json").write_text(json.dumps(content))
        undisturbed = self.place()
        finish(undisturbed.output)
        self.expected = bytes_of(undisturbed.output)

    def place(self) -> Place:
        """A fresh copy."""
        self.tried += 1
        verdicts = str(self.folder / "verdicts.json")
        folder = self.folder / f"{self.tried}"
        if self.remote is None:
            shutil.copytree(self.folder / "base", folder / "out")
            return Place(Output(folder / "out"), Store(str(folder / "export")), verdicts)
        root = f"{self.remote.uri}/{self.tried}"
        base, out = Store(str(self.folder / "base")), Store(f"{root}/out", self.remote.access)
        for file in base.list():
            out.put(file.path, base.read(file.path))
        return Place(Output(folder, remote=out), Store(f"{root}/export", self.remote.access), verdicts)

    def pair(self, held_one: str, at: int, overtaker: str) -> dict[str, Any] | None:
        """Hold a command before its write number `at`; None where it has no so many."""
        place = self.place()
        ended: list[BaseException | None] = []
        run_until(held_one, at, place, ended)
        if not gate.stopped.is_set():
            return None
        wrong = []
        try:
            COMMANDS[overtaker](place)
        except Exception as error:
            wrong.append(f"{overtaker} failed: {type(error).__name__}: {error}")
        gate.awake.set()
        assert gate.victim is not None
        gate.victim.join(WAIT_S)
        [error] = ended
        if error is not None and not isinstance(error, RelabelError):
            wrong.append(f"{held_one} ended in {type(error).__name__}: {error}")
        try:
            wrong += check(place, self.expected)
        except Exception as failed:
            wrong.append(f"{type(failed).__name__}: {failed}")
        if self.remote is None:
            shutil.rmtree(place.output.folder.parent)
        said = "" if error is None else str(error)
        return {"held": held_one, "before": gate.before, "overtaken by": overtaker, "said": said, "wrong": wrong}

    def writes(self, command: str) -> int:
        """How many writes and deletes a command makes, undisturbed."""
        run_until(command, sys.maxsize, self.place(), [])
        return gate.count


def run_until(command: str, at: int, place: Place, ended: list[BaseException | None]) -> None:
    """Start a command in a thread; returns when it is held, or has ended."""
    global gate  # noqa: PLW0603 - what Store's methods pass

    def work() -> None:
        try:
            COMMANDS[command](place)
            ended.append(None)
        except BaseException as error:
            ended.append(error)

    gate = Held(at=at)
    gate.victim = threading.Thread(target=work, daemon=True)
    gate.victim.start()
    deadline = time.monotonic() + WAIT_S
    while gate.victim.is_alive() and not gate.stopped.wait(0.005):
        assert time.monotonic() < deadline, f"{command} does not end"


def pairs(bench: Bench) -> list[tuple[str, int, str]]:
    """Every write of every command that may be held, with every command that may overtake it."""
    return [
        (command, number, overtaker)
        for command in HELD
        for number in range(bench.writes(command))
        for overtaker in COMMANDS
    ]


def play(
    folder: Path, number: int | None, seed: int, remote: Store | None = None, part: tuple[int, int] = (0, 1)
) -> list[dict[str, Any]]:
    """Try so many pairs, drawn from the seed, or all of a part. One entry for each."""
    found = []
    with guarding():
        bench = Bench(folder, remote)
        every = pairs(bench)
        chosen = every if number is None else random.Random(seed).sample(every, number)
        for one in chosen[part[0] :: part[1]]:
            entry = bench.pair(*one)
            if entry is not None:
                found.append(entry)
                if entry["wrong"]:
                    print(json.dumps(entry), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every pair, instead of so many")
    parser.add_argument("--pairs", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="on an S3 server of this machine, instead of its disk")
    parser.add_argument("--part", default="0/1", help="with --all: which of how many parts of the pairs")
    given = parser.parse_args()
    begun = time.monotonic()
    low, _, of = given.part.partition("/")
    with (
        tempfile.TemporaryDirectory(prefix="relabel-pauses-") as folder,
        s3_server() if given.s3 else nullcontext() as s3,
    ):
        remote = Store("s3://chaos/pauses", Access(s3)) if s3 else None
        tried = play(Path(folder), None if given.all else given.pairs, given.seed, remote, (int(low), int(of)))
    sound = sum(not entry["wrong"] for entry in tried)
    said = sum(bool(entry["said"]) for entry in tried)
    print(f"{sound} of {len(tried)} pairs sound; {said} held commands said that they were overtaken")
    print(f"{len({(entry['held'], entry['before']) for entry in tried})} writes, {time.monotonic() - begun:.0f} s")
    sys.exit(sound < len(tried))


if __name__ == "__main__":
    main()
