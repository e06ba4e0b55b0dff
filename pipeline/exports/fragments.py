"""Files of one big list (COCO, tasks): each group writes its entries as lines, `assemble` joins them at the end.

.relabel-export/fragments/<group>/<kind>-<split>.jsonl

What a group has is in the record of what is done. Whoever ends an export removes them; one that slept meanwhile finds
them gone, and says so, instead of joining what is left.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import Any, BinaryIO

from pipeline.errors import JobError
from pipeline.exports.text import to_json
from pipeline.exports.types import Job, Piece
from pipeline.storage import Store
from schemas.layout import EXPORT_STATE

FOLDER, DONE = f"{EXPORT_STATE}/fragments", f"{EXPORT_STATE}/done"


class Fragments:
    """The lines of one group, by kind and split. A context: the files are complete once it ends."""

    def __init__(self, job: Job, index: int, piece: Piece) -> None:
        self._job, self._piece = job, piece
        self._folder = f"{FOLDER}/{index:06d}"
        self._open: dict[str, BinaryIO] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Fragments:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, traceback)
        self._piece.fragments = sorted(self._open)

    def add(self, kind: str, split: str, entry: Any) -> None:
        """One entry: text as it is (one line), anything else as JSON, of which what does not fit is counted."""
        name = f"{kind}-{split}.jsonl"
        if name not in self._open:
            self._open[name] = self._stack.enter_context(self._job.target.writer(f"{self._folder}/{name}"))
        text = entry if isinstance(entry, str) else to_json(entry, self._piece)
        self._open[name].write(text.encode() + b"\n")


def lines(job: Job, kind: str, split: str) -> Iterator[bytes]:
    """The lines of all groups, without their ends, in order. Raises JobError where some are gone."""
    target, name = job.target, f"{kind}-{split}.jsonl"
    try:
        for done in target.list(DONE):
            folder = f"{FOLDER}/{done.path.rpartition('/')[2].removesuffix('.json')}"
            said = json.loads(target.read(done.path)).get("fragments")  # None: an earlier version wrote it
            if target.exists(f"{folder}/{name}") if said is None else name in said:
                with target.open(f"{folder}/{name}") as file:
                    for line in file:
                        yield line.rstrip(b"\n")
    except FileNotFoundError:
        raise JobError(
            f"{target.uri}/{FOLDER} has lost what was written: another export ended there. Run it again, or --overwrite"
        ) from None


def write_list(sink: BinaryIO, entries: Iterator[bytes]) -> None:
    """A JSON list of lines that are JSON."""
    sink.write(b"[")
    for index, entry in enumerate(entries):
        sink.write(b",\n" if index else b"\n")
        sink.write(entry)
    sink.write(b"]")


def discard(target: Store) -> None:
    """Delete the fragments, once they are in the final files."""
    for file in target.list(FOLDER):
        target.delete(file.path)
