"""Logs for machines (`operation.log_format: json`): one JSON object per line on stderr, each with the run's id."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import ChunkFinished
from pipeline.progress.events import (
    Covered,
    Event,
    Planning,
    Refined,
    Refining,
    Retrying,
    Sealing,
    Starting,
    Waiting,
)
from pipeline.refining.pending import Unsealed
from schemas import secrets
from schemas.manifest import Manifest

COVERED = ("source", "rules", "matches", "unread", "found", "categories")
NO_ERROR = {"error": None, "fatal": False}
"""Of every chunk that is logged; readers of earlier logs may ask for them."""
RUN_ID_VARIABLE = "RELABEL_RUN_ID"


def run_id() -> str:
    """$RELABEL_RUN_ID, which a scheduler sets to what it calls this attempt; else the time and the process."""
    return os.environ.get(RUN_ID_VARIABLE) or f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.getpid()}"


class JsonLog:
    """A listener that writes a run's events, and beside them `sealed` and `error`."""

    def __init__(self, run: str) -> None:
        self._run = run

    def __call__(self, event: Event) -> None:
        """Log it; of what tells how far a phase is, only the first, which begins the phase."""
        log: dict[type[Event], Callable[[Any], None]] = {
            Planning: self._planning,
            Covered: self._covered,
            Planned: lambda event: self.event("planned", **vars(event)),
            Starting: lambda event: self.event("starting", address=event.address),
            Refining: self._refining,
            ChunkFinished: self._chunk,
            Refined: self._refined,
            Retrying: lambda event: self.event("retrying", round=event.round, images=event.images),
            Waiting: lambda event: self.event("waiting", message=event.message),
            Sealing: self._sealing,
        }
        log[type(event)](event)

    def _planning(self, event: Planning) -> None:
        if event.images == 0:
            self.event("planning")

    def _refining(self, event: Refining) -> None:
        self.event("refining", images=event.images, actors_min=event.actors[0], actors_max=event.actors[1])

    def _refined(self, event: Refined) -> None:
        if event.spent.chunks:
            self.event("refined", **_rounded(event.spent.as_dict()))

    def _sealing(self, event: Sealing) -> None:
        if event.done == 0:
            self.event("sealing", chunks=event.chunks)

    def _covered(self, event: Covered) -> None:
        fields = {name: event.scan[name] for name in COVERED}
        self.event("covered", level="warning" if event.scan["unread"] else "info", **fields)

    def _chunk(self, event: ChunkFinished) -> None:
        fields = _rounded(vars(event))
        self.event(
            "chunk", level="warning" if event.failed else "info", chunk=fields.pop("chunk_id"), **fields, **NO_ERROR
        )

    def event(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Write one line. Values are what JSON knows; nothing secret is ever among them."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, "run": self._run, "event": event, **fields}
        sys.stderr.write(secrets.redacted(json.dumps(line)) + "\n")
        sys.stderr.flush()

    def sealed(self, manifest: Manifest) -> None:
        """The summary that people get as a table."""
        content = manifest.as_dict()
        known = ("fingerprint", "generation", "planned", "sealed", "counts")
        self.event("sealed", **{key: content[key] for key in known})

    def unsealed(self, left: Unsealed) -> None:
        """What a run of a part says in place of a summary."""
        self.event("unsealed", part=str(left.share), chunks=left.chunks, images=left.images, parts=list(left.numbers))


def _rounded(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in fields.items()}
