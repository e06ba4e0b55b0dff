"""The correction of the predicted IoU: what it learns, and that there is none until it is fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pipeline.models.lite.model import LiteModel
from pipeline.models.lite.network import CORRECTION, DIM, IOU_FACTS, OUTLINE_FACTS, IouHead, outline_band, outline_facts
from pipeline.models.lite.training.iou_fit import Answers, fit
from pipeline.models.weights import LITE_WEIGHTS


@pytest.fixture
def head() -> IouHead:
    torch.manual_seed(0)
    return IouHead().requires_grad_(False)


def answers(count: int, seed: int) -> Answers:
    """Masks whose IoU is told by the first fact alone, whatever the tokens say."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(count, 3, 2 * DIM + IOU_FACTS + OUTLINE_FACTS)).astype(np.float32)
    hidden[..., 2 * DIM] = rng.uniform(size=(count, 3))
    return Answers(hidden, hidden[..., 2 * DIM].copy())


def error(head: IouHead, seen: Answers) -> float:
    return float((torch.sigmoid(head(torch.from_numpy(seen.hidden))) - torch.from_numpy(seen.iou)).abs().mean())


def test_a_fresh_head_has_no_correction(head: IouHead) -> None:
    hidden = torch.from_numpy(answers(4, 0).hidden)
    assert torch.equal(head(hidden), head.raw(hidden).squeeze(-1))


def test_the_correction_learns_what_the_facts_tell(head: IouHead) -> None:
    seen, unseen = answers(1000, 1), answers(200, 2)
    before = error(head, unseen)
    fitted = fit(head, seen, seed=0)
    again = fit(head, seen, seed=0)
    head.correction.load_state_dict(fitted.state_dict())
    assert error(head, unseen) < 0.5 * before
    assert all(torch.equal(a, b) for a, b in zip(fitted.parameters(), again.parameters(), strict=True))


def test_the_packaged_weights_have_one() -> None:
    tensors = load_file(LITE_WEIGHTS)
    for name, tensor in LiteModel().iou_head.correction.state_dict().items():
        assert tensor.any()
        assert torch.equal(tensor, tensors[f"decoder.{CORRECTION}{name}"].float())


def test_a_sharp_outline_and_a_blurred_one() -> None:
    """Logits of +8 and -8 are as sure as can be; a ramp across the edge is not; without a mask nothing is known."""
    sharp = torch.full((1, 1, 64, 64), -8.0)
    sharp[..., 16:48, 16:48] = 8
    ramp = (torch.arange(64.0) - 32).div(8).expand(1, 1, 64, 64)
    mean, capped, doubtful, area = outline_facts(sharp, outline_band(sharp))[0, 0].tolist()
    assert (mean, capped, doubtful) == pytest.approx((8 / 6, 1, 0))
    assert area > 0
    assert outline_facts(ramp, outline_band(ramp))[0, 0, 2] == 1
    nothing = torch.full((1, 1, 64, 64), -8.0)
    assert not outline_facts(nothing, outline_band(nothing)).any()
