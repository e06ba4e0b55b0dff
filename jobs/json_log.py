"""Logs for machines (`operation.log_format: json`): one JSON object a line on stderr, each with the run's id."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timezone
from typing import Any

from pipeline.planning.increment import Planned
from pipeline.progress.breakdown import Breakdown

RUN_ID_VARIABLE = "RELABEL_RUN_ID"


def run_id() -> str:
    """$RELABEL_RUN_ID, which a scheduler sets to what it calls this attempt; else the time and the process."""
    return os.environ.get(RUN_ID_VARIABLE) or f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{os.getpid()}"


class JsonProgress:
    """pipeline.progress.events.Progress as events: planning, covered, planned, refining, chunk, refined, retrying,
    sealing, sealed, error."""

    def __init__(self, run: str) -> None:
        self._run = run

    def event(self, event: str, *, level: str = "info", **fields: Any) -> None:
        """Write one line. Values are what JSON knows; nothing secret is ever among them."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = {"time": now, "level": level, "run": self._run, "event": event, **fields}
        sys.stderr.write(json.dumps(line) + "\n")
        sys.stderr.flush()

    @contextmanager
    def planning(self) -> Iterator[Callable[[int], None]]:
        self.event("planning")
        yield lambda _count: None

    def planned(self, planned: Planned) -> None:
        self.event("planned", **vars(planned))

    def covered(self, scan: Mapping[str, Any]) -> None:
        fields = {name: scan[name] for name in ("source", "rules", "matches", "unread", "found", "categories")}
        self.event("covered", level="warning" if scan["unread"] else "info", **fields)

    @contextmanager
    def refining(self, images: int, actors: tuple[int, int]) -> Iterator[Callable[[dict[str, Any]], None]]:
        self.event("refining", images=images, actors_min=actors[0], actors_max=actors[1])
        yield self._chunk

    def _chunk(self, status: dict[str, Any]) -> None:
        fields = _rounded(status)
        fields |= {kind: dict(status[kind]) for kind in ("image_reasons", "mask_reasons")}
        failed = status["failed_images"] + status["failed_masks"]
        self.event("chunk", level="warning" if failed else "info", chunk=fields.pop("chunk_id"), **fields)

    def refined(self, spent: Breakdown) -> None:
        if spent.chunks:
            self.event("refined", **_rounded(spent.as_dict()))

    def retrying(self, number: int | None, images: int) -> None:
        self.event("retrying", round=number, images=images)

    def waiting(self, line: str) -> None:
        self.event("waiting", message=line)

    @contextmanager
    def sealing(self, parts: int) -> Iterator[Callable[[int], None]]:
        self.event("sealing", chunks=parts)
        yield lambda _count: None

    def sealed(self, manifest: dict[str, Any]) -> None:
        """The summary that people get as a table."""
        known = ("fingerprint", "generation", "planned", "sealed", "counts")
        self.event("sealed", **{key: manifest[key] for key in known})


def _rounded(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: round(value, 3) if isinstance(value, float) else value for key, value in fields.items()}
