"""Damage each file of an output in each way, run each command, and look at what is said and what is left.

    python -m tests.chaos.damage [--all] [--number 40] [--seed 0] [--for-s 600]

A file is truncated, emptied, flipped in one bit, or removed. No command may end in a traceback, whatever it makes of
that; and none may take away what is left: where the damaged file is put back, unless the command has replaced it, the
next run must end with the rows of before, and refine nothing. It is also counted how often the next run does so
without that help. All in this process, without Ray: the stages' own functions, by the refiner that does nothing.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.main import get_command

import pipeline
from jobs import cli
from pipeline import job as job_module
from pipeline.dataset.verdicts import digest
from pipeline.errors import RelabelError
from pipeline.progress.breakdown import ChunkFinished
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Job, Task
from pipeline.storage.lease import Patience
from schemas.config import ConfigError
from tests.killers import picture

RELABEL = get_command(cli.app)
SIDE = 32
REDRAWN = 1
"""The image that is changed for the second increment."""


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :] if data else b"x"


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "emptied": lambda _data: b"",
    "flipped": flip,
    "removed": lambda _data: None,
}


@dataclass
class Here:
    """A cluster that is this process."""

    refined: int = 0

    @property
    def resources(self) -> dict[str, float]:
        return {}

    def each(self, _: str, job: Job, *_rest: Any, items: Iterable[Sequence[Task]] = ()) -> Iterator[ChunkFinished]:
        model = job.load_model()
        for task in (task for segment in items for task in segment):
            loaded = chunk_work.load(task.rows(job.output), job.inputs, job.method, job.input_side, 2)
            part = chunk_work.refine(loaded, model, job.method, job.refiner)
            chunk_work.write(part, task, job.run, "test; 1 threads")
            self.refined += 1
            yield ChunkFinished(task.chunk.chunk_id, task.images, 0, 0, 0, {}, {}, 0.0, 0.0, 0.0, 0.0, 0.0)

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        return map(function, items)


@contextmanager
def without_ray() -> Iterator[Here]:
    """`relabel run` in this process."""
    connected, here = job_module.connected, Here()
    patience, Patience.__init__.__defaults__ = Patience.__init__.__defaults__, (0.5, 60.0)  # torn leases lapse soon

    @contextmanager
    def local(_address: str | None) -> Iterator[Any]:
        yield here

    job_module.connected = local
    try:
        yield here
    finally:
        job_module.connected = connected
        Patience.__init__.__defaults__ = patience


@dataclass(frozen=True)
class Ended:
    """How a command ended. code: its exit code; None for a traceback."""

    code: int | None
    said: str


def invoke(*arguments: str) -> Ended:
    """`relabel ...` in this process."""
    sink = io.StringIO()
    try:
        with redirect_stdout(sink), redirect_stderr(sink):
            code = RELABEL.main(list(arguments), "relabel", standalone_mode=False)
    except (RelabelError, ConfigError) as error:
        lines = str(error).splitlines()
        return Ended(1 if len(lines) == 1 else None, str(error))
    except SystemExit as ended:
        return Ended(int(ended.code or 0), sink.getvalue())
    except Exception as error:
        return Ended(None, f"{type(error).__name__}: {error}")
    return Ended(int(code or 0), sink.getvalue())


@dataclass(frozen=True)
class Commands:
    """What is done to an output below `folder`."""

    folder: Path

    @property
    def out(self) -> str:
        return str(self.folder / "out")

    def words(self, name: str, *more: str) -> list[str]:
        images, masks = str(self.folder / "images"), str(self.folder / "coarse.json")
        given = ["--images", images, "--masks", masks, "--output", self.out]
        method = ["--refiner", "none"] if name == "run" else []
        failed = ["--max-failed-share", "1"] if name == "run" else []
        return [name, *given, "--chunk-images", "2", *method, *failed, *more]

    def all(self) -> dict[str, list[str]]:
        return {
            "run": self.words("run"),
            "retry": self.words("run", "--retry-failed"),
            "plan": self.words("plan"),
            "seal": ["seal", self.out],
            "another gate": ["seal", self.out, "--review-below", "0.3"],
            "gc": ["gc", self.out, "--other-methods"],
            "status": ["status", self.out],
            "files": ["files", self.out],
            "verify": ["verify", self.out],
            "export": ["export", self.out, "--format", "coco", "--to", str(self.folder / "exported"), "--workers", "1"],
            "report": ["report", self.out, "--sample", "1", "--to", str(self.folder / "report.html")],
            "review": ["review", self.out, str(self.folder / "verdicts.json")],
        }


def make(folder: Path) -> None:
    """An output in every state that files can be of: two increments, a failed image, a retry round, verdicts."""
    (folder / "images").mkdir(parents=True)
    commands = Commands(folder)
    write_input(folder, 4)
    (folder / "images" / "3.png").write_bytes((folder / "images" / "3.png").read_bytes()[:200])
    for arguments in (commands.words("run"), commands.words("run", "--retry-failed")):
        done = invoke(*arguments)
        assert done.code == 0, done
    write_input(folder, 6, redrawn=True)
    for arguments in (commands.words("run"), ["seal", commands.out, "--review-below", "0.2"]):
        done = invoke(*arguments)
        assert done.code == 0, done
    rows = pipeline.open(commands.out).masks().to_pylist()[:1]
    verdicts = [{"mask_id": row["mask_id"], "digest": digest(row), "verdict": "better"} for row in rows]
    content = {"kind": "relabel-verdicts", "schema_version": 1, "verdicts": verdicts}
    (folder / "verdicts.json").write_text(json.dumps(content))
    assert invoke("review", commands.out, str(folder / "verdicts.json")).code == 0


def write_input(folder: Path, count: int, redrawn: bool = False) -> None:
    images, annotations = [], []
    for number in range(count):
        path = folder / "images" / f"{number}.png"
        if not path.exists():
            picture(number, side=SIDE).save(path)
        images.append({"id": number, "file_name": path.name, "height": SIDE, "width": SIDE})
        low, high = 4 + (redrawn and number == REDRAWN), 20 + number
        mask = {"segmentation": [[low, low, high, low, high, high, low, high]], "category_id": 1, "iscrowd": 0}
        annotations.append({"id": number, "image_id": number, **mask})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (folder / "coarse.json").write_text(json.dumps(content))


def rows_of(out: str) -> list[dict[str, Any]]:
    """What the result says of each mask; the decision depends on the gate, which a command may have changed."""
    rows = pipeline.open(out).masks(columns=["mask_id", "image_id", "coarse_rle", "refined_rle"]).to_pylist()
    return sorted(rows, key=lambda row: str(row["mask_id"]))


@dataclass
class Bench:
    """Copies of one output."""

    folder: Path
    here: Here
    tried: int = 0

    def __post_init__(self) -> None:
        make(self.folder / "base")
        out = self.folder / "base" / "out"
        self.files = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
        self.rows = rows_of(str(out))

    def cases(self) -> list[tuple[str, str, str]]:
        """Every file with every damage and every command."""
        names = Commands(self.folder).all()
        return [(path, damage, name) for path in self.files for damage in DAMAGES for name in names]

    def case(self, path: str, damage: str, name: str) -> dict[str, Any]:
        self.tried += 1
        folder = self.folder / str(self.tried)
        shutil.copytree(self.folder / "base", folder)  # with the times of writing, which tell changed images
        commands, file = Commands(folder), folder / "out" / path
        whole = file.read_bytes()
        damaged = DAMAGES[damage](whole)
        put(file, damaged)
        ended = invoke(*commands.all()[name])
        wrong = [f"traceback: {ended.said}"] if ended.code is None else []
        heals = self.next_run(commands, path) == []
        if not heals:
            if content(file) == damaged:
                put(file, whole)
            wrong += self.next_run(commands, path)
        shutil.rmtree(folder)
        return {"file": path, "damage": damage, "command": name, "code": ended.code, "heals": heals, "wrong": wrong}

    def next_run(self, commands: Commands, path: str) -> list[str]:
        """What is wrong with what the next run makes of it."""
        self.here.refined = 0
        ended = invoke(*commands.words("run"))
        if ended.code != 0:
            return [f"the next run ended with {ended.code}: {ended.said[-300:]}"]
        try:
            if rows_of(commands.out) != self.rows:
                return ["the next run has other rows"]
        except RelabelError as error:
            return [f"the next run has no rows: {error}"]
        if self.here.refined and "/parts/" not in path:
            return [f"the next run refined {self.here.refined} chunks again"]
        return []


def content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def put(file: Path, data: bytes | None) -> None:
    if data is None:
        file.unlink(missing_ok=True)
    else:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def play(folder: Path, number: int | None, seed: int, for_s: float = math.inf) -> list[dict[str, Any]]:
    """Try so many cases, or all, in an order drawn from the seed; none after `for_s` seconds. One entry for each."""
    found, until = [], time.monotonic() + for_s
    with without_ray() as here:
        bench = Bench(folder, here)
        every = bench.cases()
        for one in random.Random(seed).sample(every, len(every) if number is None else number):
            if time.monotonic() > until:
                break
            entry = bench.case(*one)
            found.append(entry)
            if entry["wrong"]:
                print(json.dumps(entry), flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", action="store_true", help="every case, instead of so many")
    parser.add_argument("--number", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--for-s", type=float, default=math.inf)
    given = parser.parse_args()
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="relabel-damage-") as folder:
        tried = play(Path(folder), None if given.all else given.number, given.seed, given.for_s)
    good = sum(not entry["wrong"] for entry in tried)
    healed = sum(entry["heals"] for entry in tried)
    seen = f"{len({entry['file'] for entry in tried})} files, {time.monotonic() - begun:.0f} s"
    print(f"{good} of {len(tried)} cases without a traceback or a loss ({seen})")
    print(f"in {healed} of them the next run was enough")
    sys.exit(good < len(tried))


if __name__ == "__main__":
    main()
