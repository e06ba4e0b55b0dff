"""What each part of the method is worth: prompts, iterations, elastic box, form of the Gaussian mask, adapter.

    python -m tests.benchmarks.ablation --data ../shared/data/dev

Every condition refines the same coarse masks (all five kinds of every n-th photograph): SAMRefiner alone, without the
looks and votes that go past it, always refine, no gate. IoU and boundary IoU against the truth, mean of COCO and
Penn-Fudan, all kinds together; 95 % intervals of the difference to the line "all three prompts", paired, by image.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from pipeline.evaluation.bootstrap import ImageBootstrap
from pipeline.masks import binary
from pipeline.masks.binary import Mask
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import Candidates, PromptBatch, adapter
from pipeline.models.adapter import join
from pipeline.models.lite.model import LiteModel
from pipeline.refiners import RefineImage, samrefiner
from schemas.config import Method
from tests.benchmarks import adaption
from tests.benchmarks.lite_dev import DEV_KINDS, Photo, load_dev
from tests.benchmarks.lite_tables import SOURCES

ITERATIONS = 5
ALL = "all three prompts"
PROMPTS = {
    "points": (True, False, False),
    "box": (False, True, False),
    "mask": (False, False, True),
    "points, box": (True, True, False),
    "points, mask": (True, False, True),
    "box, mask": (False, True, True),
    ALL: (True, True, True),
}
FORMS = {
    "code form, γ 4, ω 30": {},
    "code form, γ 4, ω 15": {"gaussian_strength": 15.0},
    "paper form, γ 4, ω 15": {"gaussian_form": "paper", "gaussian_strength": 15.0},
}


class Score(NamedTuple):
    """(N,) IoU and boundary IoU with the truth."""

    iou: npt.NDArray[np.float64]
    boundary: npt.NDArray[np.float64]


class Remembered:
    """A model whose image embeddings are kept: every condition sees the same photographs."""

    def __init__(self, model: LiteModel, kept: dict[bytes, Any]) -> None:
        self.name, self.input_side, self.mask_side = model.name, model.input_side, model.mask_side
        self.weights_sha256, self.similarity_cut = model.weights_sha256, model.similarity_cut
        self.looks = False
        self._model, self._kept = model, kept

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """One image at a time."""
        [frame] = frames
        key = frame.tobytes()
        if key not in self._kept:
            self._kept[key] = self._model.encode([frame])
        return self._kept[key]

    def features(self, embedding: Any, image: int) -> npt.NDArray[np.float32]:
        """See MaskModel.features."""
        return self._model.features(embedding, image)

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        """See MaskModel.predict."""
        return self._model.predict(embedding, prompts)


class Bench:
    """Coarse masks of all kinds and photographs, in one order, with their truth."""

    def __init__(self, photos: list[Photo]) -> None:
        self.photos = photos
        self.coarse = [[mask for kind in DEV_KINDS for mask in photo.coarse[kind]] for photo in photos]
        counts = [len(of) for of in self.coarse]
        self.image = np.repeat(np.arange(len(photos)), counts)
        self.source = np.repeat([photo.source for photo in photos], counts)

    def refine(self, model: Remembered, coarse: list[list[Mask]], **method: Any) -> list[list[Mask]]:
        """One or more iterations on given masks; what is empty stays empty."""
        refined = []
        for photo, given in zip(self.photos, coarse, strict=True):
            frame = Frame((photo.image.shape[0], photo.image.shape[1]), model.input_side)
            pixels = resize_to_input(photo.image, model.input_side)
            image = RefineImage(pixels, frame, [binary.encode(mask) for mask in given if mask.any()])
            answers = iter(samrefiner.refine(model, [image], Method(encode_batch=1, **method))[0])
            refined.append([binary.decode(next(answers).rle) if mask.any() else mask for mask in given])
        return refined

    def score(self, found: list[list[Mask]]) -> Score:
        """Against the truth."""
        truth = [list(photo.truth) * len(DEV_KINDS) for photo in self.photos]
        pairs = [(a, b) for of, to in zip(found, truth, strict=True) for a, b in zip(of, to, strict=True)]
        return Score(
            np.array([binary.iou(a, b) for a, b in pairs]), np.array([binary.boundary_iou(a, b) for a, b in pairs])
        )

    def line(self, name: str, found: Score, against: Score | None) -> str:
        """A line of the table."""
        cells = []
        for values, other in zip(found, against or found, strict=True):
            cells.append(f"{self._mean(values):.4f}")
            cells.append("" if against is None else self._difference(values - other))
        return f"| {name} | {' | '.join(cells)} |"

    def _mean(self, values: npt.NDArray[np.float64]) -> float:
        return float(np.mean([values[self.source == source].mean() for source in SOURCES]))

    def _difference(self, values: npt.NDArray[np.float64]) -> str:
        draws = []
        for source in SOURCES:
            rows = self.source == source
            draws.append(ImageBootstrap(self.image[rows]).mean(values[rows]).draws)
        low, high = np.percentile(np.mean(draws, axis=0), [2.5, 97.5])
        return f"{self._mean(values):+.4f} [{low:+.4f}, {high:+.4f}]"


def run(model: LiteModel, photos: list[Photo], adapted: LiteModel) -> str:
    """All conditions as a table."""
    bench, kept = Bench(photos), {}
    plain, with_adapter = Remembered(model, kept), Remembered(adapted, kept)
    scores = {"coarse": bench.score(bench.coarse)}

    def add(name: str, found: list[list[Mask]]) -> None:
        scores[name] = bench.score(found)
        print(bench.line(name, scores[name], None), flush=True)

    for name, (points, box, mask) in PROMPTS.items():
        add(name, bench.refine(plain, bench.coarse, use_points=points, use_box=box, use_mask=mask))
    current = bench.refine(plain, bench.coarse)
    for iteration in range(2, ITERATIONS + 1):  # an iteration starts from the last one's mask, and from nothing else
        current = bench.refine(plain, current)
        add(f"{ALL}, {iteration} iterations", current)
    add(f"{ALL}, elastic box λ 0.1", bench.refine(plain, bench.coarse, elastic_threshold=0.1))
    add(
        "box, elastic λ 0.1", bench.refine(plain, bench.coarse, elastic_threshold=0.1, use_points=False, use_mask=False)
    )
    for name, options in list(FORMS.items())[1:]:
        add(f"{ALL}, {name}", bench.refine(plain, bench.coarse, **options))
    add("box, adapter", bench.refine(with_adapter, bench.coarse, use_points=False, use_mask=False))
    add(f"{ALL}, adapter", bench.refine(with_adapter, bench.coarse))
    lines = ["| condition | IoU | against all three | boundary IoU | against all three |", "| --- " * 5 + "|"]
    lines += [bench.line(name, score, None if name == ALL else scores[ALL]) for name, score in scores.items()]
    return "\n".join(lines)


def adapt(weights: Path | None, photos: list[Photo]) -> LiteModel:
    """The model with an adapter fitted to the coarse masks of photographs that the table does not use."""
    model = LiteModel(weights)
    content = adapter.train(
        model, join([adaption.measure(model, photo)[0] for photo in photos]), rank=4, seed=0, note={}
    )
    adapter.merge(model, content)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--weights", type=Path, default=None, help="default: the packaged weights")
    parser.add_argument("--every", type=int, default=6, help="use every n-th photograph")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.exit(0, f"skipped: there is no data at {arguments.data}\n")
    torch.set_num_threads(arguments.threads)
    photos = load_dev(arguments.data)
    used, unused = photos[:: arguments.every], photos[1 :: arguments.every]
    model = LiteModel(arguments.weights)
    made = run(model, used, adapt(arguments.weights, unused))
    print(f"\nweights {model.weights_sha256}, {len(used)} photographs\n\n{made}")


if __name__ == "__main__":
    main()
