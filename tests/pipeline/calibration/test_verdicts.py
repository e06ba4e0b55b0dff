"""The gate's margin from what people said of pairs of masks."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.calibration.verdicts import agreeing_margin, with_verdicts
from pipeline.errors import RefusedError
from pipeline.review import verdicts
from schemas.calibration import Calibration, Certificate, method_key, parse_calibration
from schemas.config import Method
from schemas.records import SCORES

CERTIFICATE = Certificate(quality=0.5, share=0.9, iou=0.8, images=9, masks=9, observed=1.0, p_value=0.0, certified=True)
BASE = Calibration(
    calibration_id="base",
    note="",
    method_key=method_key(Method()),
    fitted_on={},
    margin=0.01,
    lower_scale=1.0,
    confidence=0.9,
    certificates=[CERTIFICATE],
)


def said(count: int, cut: float, random: bool = True) -> pa.Table:
    """Verdicts of people who take the refined mask where the formula estimates it more than `cut` better."""
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        gain = float(rng.uniform(0, 0.1))
        row: dict[str, Any] = {name: 1 for name, _ in SCORES} | {"mask_id": str(number), "random": random}
        rows.append(row | {"coarse_iou": 1 - gain, "verdict": "better" if gain > cut else "worse"})
    return pa.Table.from_pylist(rows, verdicts.TABLE)


def test_the_margin_goes_where_people_are() -> None:
    found = with_verdicts(said(200, 0.06), BASE, Method())
    assert found.margin == pytest.approx(0.06, abs=0.006)
    assert float(found.fitted_on["agreed_before"]) < 0.6
    assert float(found.fitted_on["agreed"]) > 0.96
    assert found.calibration_id.startswith("verdicts-")
    assert not found.certificates
    assert found.lower_scale is None  # promises were about another gate
    assert parse_calibration(found.model_dump_json()) == found


def test_what_was_not_drawn_at_random_does_not_count() -> None:
    with pytest.raises(RefusedError, match="too few verdicts to calibrate: 0 of"):
        with_verdicts(said(200, 0.06, random=False), BASE, Method())
    mixed = pa.concat_tables([said(60, 0.02), said(400, 0.09, random=False)])
    assert with_verdicts(mixed, BASE, Method()).margin == pytest.approx(0.02, abs=0.006)


def test_of_equal_margins_the_one_nearest_to_the_old_one_stays() -> None:
    gain, better = np.array([-0.2, 0.3]), np.array([False, True])
    assert agreeing_margin(gain, better, 0.01) == 0.01
