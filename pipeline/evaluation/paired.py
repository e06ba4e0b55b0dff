"""From the URIs of labels and truth to masks in pairs."""

from __future__ import annotations

from pipeline.evaluation import inputs, pairing
from pipeline.storage import Access


def paired(
    predictions: str,
    ground_truth: str,
    coarse: str | None,
    images: str | None,
    access: Access,
    ids: inputs.TruthIds = inputs.OWN_IDS,
) -> pairing.Pairing:
    """Labels paired with the truth by id, as `relabel evaluate` has its arguments. Raises RefusedError."""
    truths = inputs.read_truth(ground_truth, access, ids)
    inputs.check_coarse(predictions, coarse)
    found = inputs.read_predictions(predictions, {truth.annotation_id for truth in truths}, access)
    return pairing.pair(
        truths,
        found,
        coarse=inputs.read_coarse(coarse, access) if coarse is not None else None,
        images=inputs.read_image_list(images, access) if images is not None else None,
    )
