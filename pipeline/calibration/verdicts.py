"""What people said of pairs of masks (`relabel review`) -> the gate's margin.

A verdict says which of two masks is better, never by how much: it can move the point at which the refined mask
replaces the coarse one, and nothing else. Estimates and their maps stay the base's; promises about IoU need ground
truth and are left out. Only masks drawn at random count: a page's other masks were picked for how they look.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.calibration.apply import Floats, columns_of, estimate_side
from pipeline.calibration.files import packaged
from pipeline.calibration.fit import FEWEST_MASKS, MARGINS, named
from pipeline.dataset import open_result
from pipeline.dataset.settings import method_of
from pipeline.errors import RefusedError
from pipeline.storage import Access
from pipeline.storage.documents import run_store
from schemas.calibration import Calibration, method_key
from schemas.config import Method


def calibrate_by_verdicts(output: str, access: Access) -> Calibration:
    """The packaged calibration with the margin that agrees best with the verdicts kept beside a result.

    Raises RefusedError where too few were given.
    """
    from pipeline.review.verdicts import as_calibration  # the page's libraries are not needed elsewhere

    result = open_result(output, access)
    method = method_of(run_store(result.store, result.manifest.fingerprint)).method
    return with_verdicts(as_calibration(result), packaged(method), method)


def with_verdicts(table: pa.Table, base: Calibration | None, method: Method) -> Calibration:
    """As `calibrate_by_verdicts`, of verdicts beside scores (report/verdicts.py, TABLE)."""
    fair = table.filter(pc.and_(table["random"], pc.is_in(table["verdict"], pa.array(["better", "worse"]))))
    columns = columns_of(fair.to_pylist())
    gain = estimate_side(columns, base, "refined") - estimate_side(columns, base, "coarse")
    known = np.isfinite(gain)
    if known.sum() < FEWEST_MASKS:
        raise RefusedError(
            f"too few verdicts to calibrate: {known.sum()} of better or worse on masks drawn at random, needed are "
            f"at least {FEWEST_MASKS}; `relabel report` draws them, `relabel review` keeps what its page downloads"
        )
    better = np.array(fair["verdict"].to_pylist())[known] == "better"
    before = base.margin if base else 0.0
    margin = agreeing_margin(gain[known], better, before)
    start = base or Calibration(calibration_id="unnamed", note="", method_key=method_key(method), fitted_on={})
    fitted_on: dict[str, int | float | str] = {
        "base": base.calibration_id if base else "formula",
        "verdicts": int(known.sum()),
        "agreed_before": round(float(np.mean((gain[known] >= before) == better)), 4),
        "agreed": round(float(np.mean((gain[known] >= margin) == better)), 4),
    }
    change = {
        "note": "the gate's margin follows people's verdicts; estimates are the base's, nothing is certified",
        "fitted_on": fitted_on,
        "margin": margin,
        "certificates": [],
        "confidence": None,
        "lower_scale": None,
        "lower_share": None,
    }
    return named(start.model_copy(update=change), "verdicts")


def agreeing_margin(gain: Floats, better: Floats, before: float) -> float:
    """The margin by which most decisions agree with (N,) `better`; of several the one nearest to `before`."""
    agreed = np.array([np.mean((gain >= margin) == better) for margin in MARGINS])
    best = np.flatnonzero(agreed == agreed.max())
    return float(MARGINS[best[np.argmin(np.abs(MARGINS[best] - before))]])
