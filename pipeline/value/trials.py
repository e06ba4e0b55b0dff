"""Every kind of labels with every seed: what is learned from it, tested on the truth. Trials that are done are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import RefusedError
from pipeline.evaluation.measures import Floats
from pipeline.storage import Store
from pipeline.value.features import Features, of_windows
from pipeline.value.lessons import Kind, Settings, kinds
from pipeline.value.objects import Exam, Lesson, Seen, iou_of
from pipeline.value.segmenter import BATCH, Lessons, answers, learned

WINDOWS_AT_ONCE = 64


@dataclass(frozen=True)
class Material:
    """Lessons and exams with the features of their windows, as `segmenter.Lessons` has maps; digest: of those."""

    lessons: list[Lesson]
    exams: list[Exam]
    lesson_maps: list[Tensor]
    exam_maps: list[Tensor]
    digest: str


@dataclass(frozen=True)
class Trials:
    """iou: by kind of labels, (seeds, exams) IoU with the truth; masks: how many each kind has; images (exams,)."""

    iou: dict[str, Floats]
    masks: dict[str, int]
    images: list[str]
    steps: int


def material(windows: Sequence[Seen], features: Features, on_window: Callable[[int], None]) -> Material:
    """Windows as features. on_window: is told how many are done."""
    lessons = [one for one in windows if isinstance(one.of, Lesson)]
    exams = [one for one in windows if isinstance(one.of, Exam)]
    if not lessons or not exams:
        raise RefusedError("of the images to learn from, or of those to test on, none can be read: see --images")
    maps = [_maps(own, features, on_window) for own in (lessons, exams)]
    digest = hashlib.sha256(b"".join(each.numpy().tobytes() for own in maps for each in own)).hexdigest()
    return Material(
        [one.of for one in lessons if isinstance(one.of, Lesson)],
        [one.of for one in exams if isinstance(one.of, Exam)],
        maps[0],
        maps[1],
        digest,
    )


def _maps(windows: Sequence[Seen], features: Features, on_window: Callable[[int], None]) -> list[Tensor]:
    found = []
    for start in range(0, len(windows), WINDOWS_AT_ONCE):
        found.append(of_windows(features, [one.pixels for one in windows[start : start + WINDOWS_AT_ONCE]]))
        on_window(min(len(windows), start + WINDOWS_AT_ONCE))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def run(
    given: Material,
    settings: Settings,
    seeds: int,
    epochs: int,
    kept: Store | None,
    on_trial: Callable[[str, int], None],
) -> Trials:
    """All trials. kept: where they are kept, and found again; None for nowhere."""
    steps = epochs * -(-len(given.lessons) // BATCH)
    compared = kinds(given.lessons, settings)
    found: dict[str, list[Floats]] = {one.name: [] for one in compared}
    for seed in range(seeds):
        for one in compared:
            on_trial(one.name, seed)
            found[one.name].append(_kept_or_run(given, one, steps, seed, kept))
    return Trials(
        {name: np.stack(rows) for name, rows in found.items()},
        {one.name: len(one.rows) for one in compared},
        [one.image for one in given.exams],
        steps,
    )


def _kept_or_run(given: Material, kind: Kind, steps: int, seed: int, kept: Store | None) -> Floats:
    name = f"{_trial_id(given, kind, steps, seed)}.json"
    if kept is not None:
        with suppress(FileNotFoundError):  # not finished before: it is run now
            return np.array(json.loads(kept.read(name))["iou"], np.float64)
    iou = trial(given, kind, steps, seed)
    if kept is not None:
        kept.put(name, json.dumps({"labels": kind.name, "seed": seed, "steps": steps, "iou": iou.tolist()}).encode())
    return iou


def _trial_id(given: Material, kind: Kind, steps: int, seed: int) -> str:
    """Of all that a trial's result depends on."""
    sha256 = hashlib.sha256(f"{given.digest} {steps} {seed} {torch.__version__}".encode())
    for part in (kind.rows, kind.labels, kind.weights):
        sha256.update(part.tobytes())
    for exam in given.exams:
        sha256.update(exam.mask_id.encode() + exam.truth.tobytes() + exam.counted.tobytes())
    return sha256.hexdigest()[:32]


def trial(given: Material, kind: Kind, steps: int, seed: int) -> Floats:
    """Learn from one kind of labels; (exams,) IoU with the truth."""
    rows = torch.from_numpy(kind.rows)
    own = Lessons([each[rows] for each in given.lesson_maps], torch.from_numpy(kind.labels), torch.tensor(kind.weights))
    likely = answers(learned(own, steps, seed), given.exam_maps).numpy()
    return np.array([iou_of(exam, one) for exam, one in zip(given.exams, likely, strict=True)])
