"""IoU adaption (SAMRefiner++): teach a model, on your own images and without ground truth, which candidate to choose.

Box prompts around the coarse masks give candidates. The coarse mask is rough, and yet it tells which of them is the
object meant: the one nearest to it should rank first. An adapter of the IoU head learns that from most of the images;
on the others, which it has not seen, the choice with it and without is compared. No gain there, no adapter.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.errors import RefusedError
from pipeline.evaluation.bootstrap import ImageBootstrap
from pipeline.masks import binary
from pipeline.masks.binary import Mask, Rle
from pipeline.masks.frames import FloatArray, Frame, tight_box_xyxy
from pipeline.models import PromptBatch, input_for
from pipeline.models.adapter import AdaptableModel, Ranking, head_inputs, join, predicted_iou, train
from pipeline.planning.rows import as_rows
from pipeline.refiners import RefineImage
from pipeline.refiners.semantic import regions_of
from pipeline.refining import chunk
from pipeline.refining.chunk import Inputs
from pipeline.sources import PlannedImage
from pipeline.storage import StoredFile
from pipeline.words import plural
from schemas.config import Method

FETCH_THREADS = 8
IMAGES_AT_ONCE = 16
PROMPTS_AT_ONCE = 32
REPLICATES = 2000


@dataclass(frozen=True)
class Examples:
    """N box prompts. image: (N,) int64, which image each is of."""

    image: npt.NDArray[np.int64]
    ranking: Ranking

    def of(self, images: npt.NDArray[np.bool_]) -> Examples:
        """Those of the images that are True."""
        rows = images[self.image]
        return Examples(self.image[rows], Ranking(self.ranking.inputs[rows], self.ranking.agreement[rows]))


@dataclass(frozen=True)
class Adaptation:
    """What came of it. Agreement: IoU of the chosen candidate with the coarse mask, mean over the held-out masks.

    best: of a choice that is always right. adapter: the file's content, None where the lower end of the gain's 95 %
    interval (paired, by image) is not above zero.
    """

    fitted_masks: int
    held_out_masks: int
    held_out_images: int
    before: float
    after: float
    best: float
    gain_low: float
    gain_high: float
    adapter: bytes | None


def sample(images: Iterable[PlannedImage], count: int) -> list[PlannedImage]:
    """At most `count` images that have masks and no problem, by the hash of their ids: the same ones each time."""
    usable = (image for image in images if image.masks and not image.problem)
    return heapq.nsmallest(count, usable, key=lambda image: _hash(image.image_uri))


def load(
    images: list[PlannedImage], listed: dict[str, StoredFile], inputs: Inputs, model: AdaptableModel
) -> Iterator[RefineImage]:
    """Fetched, decoded and resized, a few at a time; what cannot be is left out."""
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = as_rows(images[start : start + IMAGES_AT_ONCE], listed)
        loaded = chunk.load(rows, inputs, Method(), model.input_side, FETCH_THREADS, stretched=model.stretched)
        yield from chunk.refinable(loaded, model)


def collect(
    model: AdaptableModel, images: Iterable[RefineImage], *, regions: bool, on_image: Callable[[int], None]
) -> Examples:
    """Box prompts of every coarse mask (of each of its regions, for class maps) and how near each candidate came."""
    rankings: list[Ranking] = []
    index: list[int] = []
    for number, image in enumerate(images):
        coarse = [part for rle in image.coarse for part in regions_of(rle)] if regions else image.coarse
        embedding = model.encode([input_for(model, image.pixels, image.frame.size_hw)]) if coarse else None
        for start in range(0, len(coarse), PROMPTS_AT_ONCE):
            rankings.append(rank(model, embedding, image.frame, coarse[start : start + PROMPTS_AT_ONCE]))
        index += [number] * len(coarse)
        on_image(1)
    if not rankings:
        raise RefusedError("no mask to adapt to: no image could be loaded, or none has a mask")
    return Examples(np.array(index, np.int64), join(rankings))


def rank(model: AdaptableModel, embedding: object, frame: Frame, coarse: list[Rle]) -> Ranking:
    """Candidates for the boxes of some masks of one image, and their IoU with these masks."""
    arrays = [binary.decode(rle) for rle in coarse]
    candidates, inputs = answers(model, embedding, frame, arrays)
    return Ranking(inputs, agreement(candidates, arrays))


def answers(
    model: AdaptableModel, embedding: object, frame: Frame, given: list[Mask]
) -> tuple[list[list[Mask]], FloatArray]:
    """The candidates, (H, W) uint8 each, for the box of each mask of one image, and the head's inputs for them."""
    boxes = np.stack([frame.box_to_prompt(np.array(tight_box_xyxy(mask), np.float32)) for mask in given])
    prompts = PromptBatch(np.zeros(len(given), np.int64), None, None, boxes, None, None)
    candidates, inputs = head_inputs(model, embedding, prompts)
    found = [[(frame.logits_to_image(one) > 0).astype(np.uint8) for one in of] for of in candidates.logits]
    return found, inputs


def agreement(candidates: list[list[Mask]], given: list[Mask]) -> FloatArray:
    """(N, C) IoU of the candidates of each mask with it."""
    pairs = zip(candidates, given, strict=True)
    return np.array([[binary.iou(candidate, mask) for candidate in of] for of, mask in pairs], np.float32)


def adapt(
    model: AdaptableModel, examples: Examples, *, held_out: float, rank: int, seed: int, epochs: int = 1
) -> Adaptation:
    """Train on most images, compare on the rest. Raises RefusedError when there are too few to hold any out."""
    images = int(examples.image.max()) + 1
    unseen = np.zeros(images, bool)
    unseen[np.random.default_rng(seed).permutation(images)[: round(held_out * images)]] = True
    fit, test = examples.of(~unseen), examples.of(unseen)
    if not len(fit.image) or len(np.unique(test.image)) < 2:
        raise RefusedError(
            f"{plural(images, 'image')} with masks are too few: some are held out, to see whether the choice improves"
        )
    note = {"fitted_masks": str(len(fit.image)), "held_out_masks": str(len(test.image))}
    adapter = train(model, fit.ranking, rank=rank, seed=seed, note=note, epochs=epochs)
    before, after = chosen(model, test.ranking, None), chosen(model, test.ranking, adapter)
    low, high = ImageBootstrap(test.image, REPLICATES, seed).mean(after - before).interval()
    return Adaptation(
        fitted_masks=len(fit.image),
        held_out_masks=len(test.image),
        held_out_images=len(np.unique(test.image)),
        before=float(before.mean()),
        after=float(after.mean()),
        best=float(test.ranking.agreement.max(axis=1).mean()),
        gain_low=low,
        gain_high=high,
        adapter=adapter if low > 0 else None,
    )


def chosen(model: AdaptableModel, ranking: Ranking, adapter: bytes | None) -> FloatArray:
    """(N,) agreement of the candidate with the highest predicted IoU."""
    choice = predicted_iou(model, ranking.inputs, adapter).argmax(axis=1)
    return np.asarray(ranking.agreement[np.arange(len(choice)), choice], np.float32)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
