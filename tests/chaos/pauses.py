"""Hold a command before each of its writes and deletes, let another one overtake it, wake it, and look at what is left.

    python -m tests.chaos.pauses [--all [--part 1/4]] [--s3] [--seed 0]

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
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jobs.options import parse_part
from pipeline.dataset import open_result
from pipeline.dataset.verdicts import digest, stored
from pipeline.errors import RelabelError
from pipeline.planning.attempts import increments
from pipeline.storage import Access, Store
from pipeline.verify.check import verify
from schemas import layout
from schemas.layout import EXPORT_REPORT
from tests.chaos.commands import COMMANDS, HELD, Place, finish, make
from tests.chaos.gate import guarding, run_until
from tests.chaos.runs import s3_server
from tests.pipeline.outputs import Output

UNTOUCHED = "0005.jpg"
"""An image that no command refines again: verdicts on others would no longer be of what was seen."""

TOLD_EVERY = 20


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
    if not target.exists(EXPORT_REPORT):
        return
    said = json.loads(target.read(EXPORT_REPORT))["counts"]
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
        rows = [row for row in open_result(base.store.uri).masks().to_pylist() if row["image_id"] == UNTOUCHED]
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
        attempt = run_until(at, partial(COMMANDS[held_one], place))
        if not attempt.held.stopped.is_set():
            return None
        wrong = []
        try:
            COMMANDS[overtaker](place)
        except Exception as error:
            wrong.append(f"{overtaker} failed: {type(error).__name__}: {error}")
        error = attempt.wake()
        if error is not None and not isinstance(error, RelabelError):
            wrong.append(f"{held_one} ended in {type(error).__name__}: {error}")
        try:
            wrong += check(place, self.expected)
        except Exception as failed:
            wrong.append(f"{type(failed).__name__}: {failed}")
        if self.remote is None:
            shutil.rmtree(place.output.folder.parent)
        said = "" if error is None else str(error)
        return {
            "held": held_one,
            "before": attempt.held.before,
            "overtaken by": overtaker,
            "said": said,
            "wrong": wrong,
        }

    def writes(self, command: str) -> int:
        """How many writes and deletes a command makes, undisturbed."""
        return run_until(sys.maxsize, partial(COMMANDS[command], self.place())).held.count


def pairs(bench: Bench) -> list[tuple[str, int, str]]:
    """Every write of every command that may be held, with every command that may overtake it."""
    return [
        (command, number, overtaker)
        for command in HELD
        for number in range(bench.writes(command))
        for overtaker in COMMANDS
    ]


def play(
    folder: Path, number: int | None, seed: int, remote: Store | None = None, part: tuple[int, int] = (1, 1)
) -> list[dict[str, Any]]:
    """Try so many pairs, drawn from the seed, or all; of these the k-th of n parts. One entry for each."""
    found = []
    with guarding():
        bench = Bench(folder, remote)
        every = pairs(bench)
        chosen = every if number is None else random.Random(seed).sample(every, number)
        mine = chosen[part[0] - 1 :: part[1]]
        for index, one in enumerate(mine):
            if index % TOLD_EVERY == 0:
                print(f"{index} of {len(mine)} pairs", file=sys.stderr, flush=True)
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
    parser.add_argument("--part", default="1/1", metavar="K/N", help="with --all: the K-th of N parts of the pairs")
    given = parser.parse_args()
    begun = time.monotonic()
    try:
        part = parse_part(given.part)
    except RelabelError as error:
        parser.error(str(error))
    with (
        tempfile.TemporaryDirectory(prefix="relabel-pauses-") as folder,
        s3_server() if given.s3 else nullcontext() as s3,
    ):
        remote = Store("s3://chaos/pauses", Access(s3)) if s3 else None
        tried = play(Path(folder), None if given.all else given.pairs, given.seed, remote, part)
    sound = sum(not entry["wrong"] for entry in tried)
    said = sum(bool(entry["said"]) for entry in tried)
    print(f"{sound} of {len(tried)} pairs sound; {said} held commands said that they were overtaken")
    print(f"{len({(entry['held'], entry['before']) for entry in tried})} writes, {time.monotonic() - begun:.0f} s")
    sys.exit(sound < len(tried))


if __name__ == "__main__":
    main()
