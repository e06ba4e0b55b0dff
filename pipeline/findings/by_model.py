"""What only a model can tell of an image's masks: objects that none covers, and masks that look like another class.

An image is encoded once for both. A mask's embedding is the mean of the model's features under it. Embeddings
and rows wait on disk until all classes are known.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.dataset.samples import Photos
from pipeline.errors import ImageError, MaskError, RefusedError
from pipeline.findings.classes import misfits
from pipeline.findings.kinds import Finding, Row
from pipeline.findings.proposals import proposals
from pipeline.masks import binary
from pipeline.models import MaskModel, input_for, load_model, registry
from pipeline.models.loading import check_device, pick_device
from pipeline.models.weights import resolve
from pipeline.storage import Access

Floats = npt.NDArray[np.float32]
KEPT = ("mask_id", "mask_rle", "image_id", "image_uri", "category")


class ModelView:
    """A model over images, one after another. unseen: images that could not be read, or masks of which could not."""

    def __init__(self, model: MaskModel, photos: Photos, folder: Path, uncovered: bool, classes: bool) -> None:
        self._model, self._photos = model, photos
        self._uncovered, self._classes = uncovered, classes
        self._embeddings, self._rows = folder / "embeddings", folder / "rows.jsonl"
        self._names: list[str] = []
        self.unseen = 0

    def findings(self, image: Row, masks: Sequence[Row]) -> Iterator[Finding]:
        """Objects that no mask covers. masks: all that the image has; embeddings of those but crowds are kept."""
        there = [row for row in masks if row["mask_rle"]]
        size_hw = (image["height"], image["width"])
        try:
            pixels = self._photos.read(image["image_uri"], size_hw)
            decoded = [binary.decode(row["mask_rle"]) for row in there]
        except (ImageError, MaskError):  # one that cannot be read: the command tells how many
            self.unseen += 1
            return
        embedding = self._model.encode([input_for(self._model, pixels)])
        if self._classes:
            self._keep(self._model.features(embedding, 0), there, decoded)
        if self._uncovered:
            nobody = {"image_id": image["image_id"], "image_uri": image["image_uri"], "mask_id": None, "category": None}
            for one in proposals(self._model, embedding, size_hw, decoded):
                said = f"{binary.area(one.rle):,} pixels that no mask covers"
                yield Finding("uncovered", nobody, None, one.certainty, one.certainty, said, rle=one.rle)

    def misfits(self) -> Iterator[Finding]:
        """Masks that look more like another class than like the others of their own."""
        if not self._names:
            return
        embeddings = np.memmap(self._embeddings, np.float32, "r").reshape(len(self._names), -1)
        found = {one.mask: one for one in misfits(embeddings, self._names)}
        with self._rows.open() as lines:
            for number, line in enumerate(lines):
                if (one := found.get(number)) is not None:
                    margin = one.alike - one.own
                    said = f"looks like {one.other}: {one.alike:.2f} against {one.own:.2f}"
                    yield Finding("class", json.loads(line), None, min(1.0, margin), margin, said, suggested=one.other)

    def _keep(self, features: Floats, rows: Sequence[Row], masks: Sequence[npt.NDArray[np.uint8]]) -> None:
        with self._embeddings.open("ab") as embeddings, self._rows.open("a") as lines:
            for row, mask in zip(rows, masks, strict=True):
                if not row["crowd"] and mask.any():
                    embeddings.write(embedding_of(features, mask).tobytes())
                    lines.write(json.dumps({name: row[name] for name in KEPT}) + "\n")
                    self._names.append(row["category"] or "")


def embedding_of(features: Floats, mask: npt.NDArray[np.uint8]) -> Floats:
    """(C, h, w) features of an image, (H, W) {0, 1} -> (C,) mean under the mask, by the share of a cell that it has."""
    weights = cv2.resize(mask.astype(np.float32), features.shape[:0:-1], interpolation=cv2.INTER_AREA)
    return np.asarray((features * weights).sum(axis=(1, 2)) / max(float(weights.sum()), 1e-6), np.float32)


def model_for(name: str, checkpoint: str | None, access: Access, device: str, threads: int) -> MaskModel:
    """A promptable model by name. Raises RefusedError for one that is none, or that cannot be loaded."""
    weights = resolve(name, checkpoint, access)
    spec = registry.resolve(name, weights.readable, access)
    if not spec.promptable:
        raise RefusedError(f"--with-model {name}: objects are looked for with a model that is prompted by boxes")
    dtype, there = spec.defaults.get("dtype", "float32"), pick_device(device)
    check_device(there, dtype)
    loaded: MaskModel = load_model(spec, weights, there, threads, dtype)  # type: ignore[assignment]
    return loaded
