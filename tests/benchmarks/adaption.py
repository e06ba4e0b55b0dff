"""IoU adaption: the choice among candidates for a box prompt, on images that the adapter has not seen.

    python -m tests.benchmarks.adaption --data ../shared/data/dev

For each kind of coarse mask: an adapter fitted to the boxes and coarse masks of split A (no ground truth), measured on
split B against coarse masks and against the truth. "best": a choice that is always right. Intervals by image.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.adaptation import agreement, answers
from pipeline.evaluation.bootstrap import ImageBootstrap
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import adapter
from pipeline.models.adapter import Ranking, join
from pipeline.models.lite.model import LiteModel
from tests.benchmarks.lite_dev import DEV_KINDS, Photo, load_dev

ALL = "all kinds together"
EPOCHS = (1, 10)  # as published, and as many as lite needs to move at all


def measure(model: LiteModel, photo: Photo) -> tuple[Ranking, Ranking]:
    """Candidates for the boxes of every coarse mask, kind by kind: against the coarse masks, and against the truth."""
    frame = Frame((photo.image.shape[0], photo.image.shape[1]), model.input_side)
    embedding = model.encode([resize_to_input(photo.image, model.input_side)])
    coarse = [mask for kind in DEV_KINDS for mask in photo.coarse[kind]]
    candidates, inputs = answers(model, embedding, frame, coarse)
    truth = list(photo.truth) * len(DEV_KINDS)
    return Ranking(inputs, agreement(candidates, coarse)), Ranking(inputs, agreement(candidates, truth))


class Prompts(NamedTuple):
    """N box prompts: against their coarse masks, against the truth; kind, image and "of split A" of each."""

    near: Ranking
    true: Ranking
    kind: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]
    seen: npt.NDArray[np.bool_]


def table(model: LiteModel, prompts: Prompts) -> str:
    """A line a kind."""
    lines = [
        "| coarse masks | epochs | masks | IoU with coarse masks | gain [95 %] | IoU with truth "
        "| gain [95 %] | best | written |",
        "| --- " * 9 + "|",
    ]
    for number, name in enumerate((*DEV_KINDS, ALL)):
        mine = np.ones(len(prompts.kind), bool) if name == ALL else prompts.kind == number
        lines += [_line(model, name, prompts, mine, epochs) for epochs in EPOCHS]
    return "\n".join(lines)


def _line(model: LiteModel, name: str, prompts: Prompts, mine: npt.NDArray[np.bool_], epochs: int) -> str:
    fit, test = mine & prompts.seen, mine & ~prompts.seen
    content = adapter.train(model, _rows(prompts.near, fit), rank=4, seed=0, note={}, epochs=epochs)
    draws, near, true = ImageBootstrap(prompts.image[test]), _rows(prompts.near, test), _rows(prompts.true, test)
    choices = [adapter.predicted_iou(model, near.inputs, one).argmax(axis=1) for one in (None, content)]
    every = np.arange(len(near.inputs))
    cells, lows = [], []
    for values in (near.agreement, true.agreement):
        before, after = (values[every, choice] for choice in choices)
        gain = draws.mean(after - before)
        low, high = gain.interval()
        lows.append(low)
        cells += [f"{before.mean():.4f} → {after.mean():.4f}", f"{gain.value:+.4f} [{low:+.4f}, {high:+.4f}]"]
    best, written = true.agreement.max(axis=1).mean(), "yes" if lows[0] > 0 else "no"
    return f"| {name} | {epochs} | {len(every)} | {' | '.join(cells)} | {best:.4f} | {written} |"


def _rows(ranking: Ranking, rows: npt.NDArray[np.bool_]) -> Ranking:
    return Ranking(ranking.inputs[rows], ranking.agreement[rows])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--weights", type=Path, default=None, help="default: the packaged weights")
    parser.add_argument("--every", type=int, default=1, help="use every n-th photograph")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.exit(0, f"skipped: there is no data at {arguments.data}\n")
    torch.set_num_threads(arguments.threads)
    model, photos = LiteModel(arguments.weights), load_dev(arguments.data, arguments.every)
    split_a = set(json.loads((arguments.data / "split.json").read_text())["A"])
    near, true, kinds, images, seen = [], [], [], [], []
    for index, photo in enumerate(photos):
        of_coarse, of_truth = measure(model, photo)
        near.append(of_coarse)
        true.append(of_truth)
        kinds += [number for number in range(len(DEV_KINDS)) for _ in photo.truth]
        images += [index] * len(of_coarse.agreement)
        seen += [photo.name in split_a] * len(of_coarse.agreement)
        if index % 20 == 0:
            print(f"{index + 1} of {len(photos)} photographs", flush=True)
    print(f"weights {model.weights_sha256}\n")
    print(table(model, Prompts(join(near), join(true), np.array(kinds), np.array(images), np.array(seen))))


if __name__ == "__main__":
    main()
