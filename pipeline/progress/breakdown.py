"""Where the time of a run's refine phase went, and what bounds it: from the seconds that finished chunks carry.

Not here: measuring (`refining/ray_pipeline.py`), showing (`jobs/`), a model's own stages (`bench.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

BUSY = 0.8
"""Actors that compute for a larger share of their time than this are what a run waits for."""
FETCHING = 0.5
"""Loading that waits for files for a larger share of its time than this is bound by the store, else by decoding."""
STARTING = 0.5

ADVICE = {
    "start-up": "starting took most of the time, which a larger dataset would hardly notice",
    "model": "more actors (or GPUs) would make it faster, nothing else would",
    "storage": "actors waited for images, and loading for files: a nearer store or more operation.fetch_threads",
    "loading": "actors waited for images to be decoded: more CPU cores would make it faster",
}


@dataclass(frozen=True)
class ChunkFinished:
    """A chunk whose part is written: rows, failed rows and their reasons, and what its time went into (seconds).

    fetch_s is the part of load_s that waited for files; wait_s is how long its actor, and so its GPU, had nothing to do
    before it. examples: a few of the failed rows in words.
    """

    chunk_id: str
    images: int
    masks: int
    failed_images: int
    failed_masks: int
    image_reasons: Mapping[str, int]
    mask_reasons: Mapping[str, int]
    load_s: float
    fetch_s: float
    wait_s: float
    refine_s: float
    write_s: float
    examples: Sequence[str] = ()

    @property
    def failed(self) -> int:
        """Failed rows: images and masks."""
        return self.failed_images + self.failed_masks


class Breakdown(NamedTuple):
    """Seconds of one refine phase. All but wall and start-up are sums over workers that ran side by side.

    fetch_s is how long loading waited for files, decode_s the rest of it; wait_s how long model actors had nothing to
    do; start_up_s what passed before the first finished chunk came back, less its own seconds.
    """

    chunks: int = 0
    images: int = 0
    masks: int = 0
    wall_s: float = 0.0
    start_up_s: float = 0.0
    fetch_s: float = 0.0
    decode_s: float = 0.0
    wait_s: float = 0.0
    refine_s: float = 0.0
    write_s: float = 0.0

    @property
    def actors_busy(self) -> float:
        """Share of the actors' time, start-up apart, in which they refined."""
        return self.refine_s / max(1e-9, self.refine_s + self.wait_s)

    @property
    def bound_by(self) -> str:
        """A key of ADVICE."""
        if self.start_up_s > STARTING * self.wall_s:
            return "start-up"
        if self.actors_busy > BUSY:
            return "model"
        return "storage" if self.fetch_s > FETCHING * (self.fetch_s + self.decode_s) else "loading"

    def as_dict(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            **self._asdict(),
            "images_per_s": self.images / max(1e-9, self.wall_s),
            "actors_busy": self.actors_busy,
            "bound_by": self.bound_by,
            "advice": ADVICE[self.bound_by],
        }

    def lines(self) -> list[str]:
        """Two lines for people."""
        spent = ", ".join(
            f"{name} {getattr(self, f'{name}_s'):.1f} s" for name in ("fetch", "decode", "refine", "write")
        )
        return [
            f"refine: {self.wall_s:.1f} s, {self.start_up_s:.1f} s of them start-up; all workers together: {spent}; "
            f"actors busy {self.actors_busy:.0%}, waiting {self.wait_s:.1f} s",
            f"refine: bound by {self.bound_by}: {ADVICE[self.bound_by]}",
        ]


class Clock:
    """Collects a Breakdown while a phase runs: `note` takes each finished chunk."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._spent = Breakdown()

    def note(self, chunk: ChunkFinished) -> None:
        """Count it."""
        self._spent = add(self._spent, chunk, time.perf_counter() - self._started)

    def stop(self) -> Breakdown:
        """What was spent up to now."""
        return self._spent._replace(wall_s=time.perf_counter() - self._started)


def add(spent: Breakdown, chunk: ChunkFinished, elapsed_s: float) -> Breakdown:
    """One more chunk, `elapsed_s` after the phase began. The first tells how long starting took."""
    own = chunk.load_s + chunk.refine_s + chunk.write_s
    return spent._replace(
        chunks=spent.chunks + 1,
        images=spent.images + chunk.images,
        masks=spent.masks + chunk.masks,
        start_up_s=spent.start_up_s if spent.chunks else max(0.0, elapsed_s - own),
        fetch_s=spent.fetch_s + chunk.fetch_s,
        decode_s=spent.decode_s + max(0.0, chunk.load_s - chunk.fetch_s),
        wait_s=spent.wait_s + chunk.wait_s,
        refine_s=spent.refine_s + chunk.refine_s,
        write_s=spent.write_s + chunk.write_s,
    )
