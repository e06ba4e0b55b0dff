"""A result and the ground truth of some of its images -> the sample that a calibration is fitted to."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pipeline.calibration.files import packaged
from pipeline.calibration.fit import Sample
from pipeline.dataset import open_result
from pipeline.dataset.settings import merged, method_of
from pipeline.errors import RefusedError
from pipeline.evaluation import inputs, pairing
from pipeline.evaluation.measures import measure
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
