"""A result and the truth of some of its masks -> the sample that a calibration is fitted to.

The truth is a COCO file, or what people sent back (`relabel review --from`): masks that they replaced, and those that
they looked at and left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.calibration.apply import Row
from pipeline.calibration.files import packaged
from pipeline.calibration.fit import Sample
from pipeline.dataset import open_result, overlays
from pipeline.dataset.settings import merged, method_of
from pipeline.errors import RefusedError
from pipeline.evaluation import inputs, pairing
from pipeline.evaluation.measures import measure
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.storage import Access
from pipeline.storage.documents import run_store
from schemas.calibration import Calibration
from schemas.config import Gate, Method


class Found(NamedTuple):
    """The sample, the packaged calibration that it builds on, and the result's method and gate."""

    sample: Sample
    base: Calibration | None
    method: Method
    gate: Gate


def read_corrections(output: str, access: Access) -> Found:
    """Refined masks of the current result whose truth people sent back. Raises RefusedError where there is none.

    Masks that somebody added have no estimate, and those that were removed no truth: neither counts.
    """
    result = open_result(output, access)
    method = method_of(run_store(result.store, result.manifest.fingerprint)).method
    truths = overlays.truths(overlays.standing(result.store))
    where = pc.field("mask_id").isin(pa.array(sorted(truths), pa.string()))
    pairs = [(row, truths[row["mask_id"]]["rle"]) for row in result.masks(where).to_pylist()] if truths else []
    pairs = [(row, truth) for row, truth in pairs if _comparable(row, truth)]
    if not pairs:
        raise RefusedError(
            f"{output} has no correction of a refined mask: `relabel review {output} --from FILE` brings them home"
        )
    sample = Sample(
        [row for row, _ in pairs],
        np.array([_iou(row["coarse_rle"], truth) for row, truth in pairs]),
        np.array([_iou(row["refined_rle"], truth) for row, truth in pairs]),
        np.array([row["image_id"] for row, _ in pairs]),
    )
    return Found(sample, packaged(method), method, merged(result.manifest.gate, {}))


def _comparable(row: Row, truth: Rle) -> bool:
    return all(row[name] is not None and row[name]["size"] == truth["size"] for name in ("coarse_rle", "refined_rle"))


def _iou(rle: Rle, truth: Rle) -> float:
    return binary.iou(binary.decode(rle), binary.decode(truth))


def read_sample(output: str, ground_truth: str, access: Access) -> Found:
    """Masks of the current result whose truth is known. Raises RefusedError when there is nothing to compare."""
    result = open_result(output, access)
    method = method_of(run_store(result.store, result.manifest.fingerprint)).method
    truths = inputs.read_truth(ground_truth, access)
    predictions = inputs.read_predictions(output, {truth.annotation_id for truth in truths}, access)
    paired = pairing.pair(truths, predictions).pairs
    usable = [pair for pair in paired if pair.prediction.refined is not None and pair.prediction.decision != "failed"]
    if not usable:
        raise RefusedError(f"{output} has no refined mask whose truth {ground_truth} knows")
    measures = measure(usable)
    rows = {row["source_mask_id"]: row for row in result.masks().to_pylist()}
    sample = Sample(
        [rows[pair.prediction.source_mask_id] for pair in usable],
        measures.sides["coarse"].iou,
        measures.sides["refined"].iou,
        np.array([pair.truth.image_name for pair in usable]),
    )
    return Found(sample, packaged(method), method, merged(result.manifest.gate, {}))
