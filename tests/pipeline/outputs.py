"""Outputs made by the pipeline's own plan, parts and seal, with a part writer in the place of the model: fast, and any
failure on request.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.masks import binary
from pipeline.output.manifest import KEEP_ONE, Retention, Sealed
from pipeline.output.recovery import sealed_rounds
from pipeline.output.seal import SealRequest, seal
from pipeline.planning.increment import ChunkLimits, Planned, plan, read_plan
from pipeline.refining import chunk
from pipeline.refining.chunk import Task
from pipeline.refining.parts import find_parts
from pipeline.refining.pending import pending
from pipeline.refining.retry_rounds import Round, next_round
from pipeline.sources import PlannedImage, PlannedMask
from pipeline.storage import Store, StoredFile
from pipeline.storage.documents import read_switch, run_store
from pipeline.storage.lease import Hold, unguarded
from schemas import layout
from schemas.config import Config, Gate, Method, fingerprint, to_yaml
from schemas.records import PARTS, SCORES

SIZE_HW = (20, 30)

Corpus = Mapping[int, tuple[int, str]]
"""Image number -> how many masks, and a salt: another one is a changed image."""

Fails = Callable[[str, int], str | None]
"""(mask or image id, attempt) -> why it fails, or None."""


def never(_name: str, _attempt: int) -> str | None:
    return None


@dataclass
class Output:
    """One output folder and the steps that a run takes on it."""

    folder: Path
    chunk_images: int = 3
    method: Method = field(default_factory=Method)
    remote: Store | None = None  # instead of the folder

    @property
    def store(self) -> Store:
        return self.remote or Store(str(self.folder))

    @property
    def name(self) -> str:
        """Of the method's folder."""
        return layout.method_folder(fingerprint(self.method), read_switch(self.store).given_up)

    @property
    def run(self) -> Store:
        return run_store(self.store, self.name)

    def plan(self, corpus: Corpus, *, prune: bool = False, hold: Hold = unguarded) -> Planned:
        listed = {name(number): StoredFile(name(number), 100, None) for number in corpus}
        limits = ChunkLimits(self.chunk_images, 1 << 30)
        return plan(self.store, images(corpus), listed, limits, prune=prune, hold=hold)

    def pending(self, limit: int | None = None) -> list[Task]:
        return list(pending(read_plan(self.store), self.run, limit))

    def refine(self, tasks: Iterable[Task], fails: Fails = never) -> None:
        run = self.run
        run.put(layout.CONFIG, to_yaml(Config(method=self.method)).encode())
        for task in tasks:
            rows = [part_row(row, task.round, fails) for row in task.rows(self.store).to_pylist()]
            chunk.write(pa.Table.from_pylist(rows, PARTS), task, run, "test; 1 threads")

    def retry_round(self, reasons: tuple[str, ...] = ()) -> Round | None:
        return next_round(self.run, read_plan(self.store), sealed_rounds(self.run), reasons)

    def retry_tasks(self, reasons: tuple[str, ...] = ()) -> list[Task]:
        due, planned = self.retry_round(reasons), read_plan(self.store)
        return due.tasks(planned, find_parts(self.run, planned)) if due else []

    def seal(
        self,
        gate: Gate | None = None,
        retention: Retention = KEEP_ONE,
        shard_bytes: int = 1 << 20,
        hold: Hold = unguarded,
    ) -> Sealed:
        request = SealRequest(
            output=self.store,
            fingerprint=self.name,
            gate=gate or Gate(),
            calibration=None,
            shard_bytes=shard_bytes,
            images_root="/photos",
            retention=retention,
        )
        return seal(request, hold)


def name(number: int) -> str:
    return f"{number:04d}.jpg"


def images(corpus: Corpus) -> Iterable[PlannedImage]:
    for number, (count, salt) in corpus.items():
        found = [
            PlannedMask(f"{number}-{i}", 1, "thing", json.dumps([[0, 0, 5, 0, 5, i + 1, salt]])) for i in range(count)
        ]
        yield PlannedImage(name(number), str(number), SIZE_HW, found)


def part_row(planned: dict[str, Any], attempt: int, fails: Fails) -> dict[str, Any]:
    """What a worker would make of a plan row, were its model a hash."""
    reason = fails(planned["image_id"], attempt)
    row = {key: planned[key] for key in ("image_id", "image_uri", "source_image_id", "height", "width")}
    row |= {"status": "failed" if reason else "ok", "reason": reason, "attempt": 0}
    row["masks"] = [_mask(mask, reason or fails(mask["mask_id"], attempt)) for mask in planned["masks"]]
    return row


def _mask(planned: dict[str, Any], reason: str | None) -> dict[str, Any]:
    mask = {key: planned[key] for key in ("mask_id", "source_mask_id", "category_id", "category")}
    mask |= dict.fromkeys(["coarse_rle", "refined_rle", *(score for score, _ in SCORES)])
    if reason:
        return {**mask, "reason": reason}
    seed = hashlib.sha256((planned["mask_id"] + planned["geometry"]).encode()).digest()
    coarse, refined = np.zeros(SIZE_HW, np.uint8), np.zeros(SIZE_HW, np.uint8)
    coarse[2 : 8 + seed[0] % 8, 3:20] = 1
    refined[3 : 8 + seed[1] % 8, 3 : 15 + seed[2] % 8] = 1
    scores = {score: 1 if score in ("components", "coarse_components") else 0 for score, _ in SCORES}
    scores |= {"predicted_iou": seed[3] / 255, "stability": 0.9, "main_share": 1.0}
    scores |= {"iteration_iou": 1.0, "look_iou": 1.0, "trial_iou": None}
    scores |= {"coarse_iou": binary.iou(coarse, refined), "area_ratio": float(refined.sum() / coarse.sum())}
    return {
        **mask,
        **scores,
        "reason": None,
        "coarse_rle": binary.encode(coarse),
        "refined_rle": binary.encode(refined),
    }
