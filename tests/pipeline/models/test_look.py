"""A model that refines and judges by itself, on tensors, against the same in OpenCV and numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import JobError
from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import Asked, Pending
from pipeline.models.device.rounds import look
from pipeline.models.device.transfer import PromptTensors
from pipeline.refiners import REFINERS, RefineImage, samrefiner
from schemas.config import Method
from tests.fakes import FakeModel

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SIZES = [(480, 640), (1500, 1100), (97, 61)]
refine = REFINERS["samrefiner"].run


class Looking(FakeModel):
    """Computes on tensors what FakeModel does; `masks` are refined round after round without coming back."""

    looks = True

    def __init__(self, empty: bool = False, broken: bool = False) -> None:
        super().__init__(empty)
        self._broken = broken

    def look(self, embedding: Any, mirrored: Any | None, asked: Asked) -> Pending:
        squares = np.zeros((len(embedding.frames), self.input_side, self.input_side, 3), np.uint8)
        for square, frame in zip(squares, embedding.frames, strict=True):
            square[: frame.shape[0], : frame.shape[1]] = frame
        there = torch.from_numpy(squares).to(DEVICE)
        of_mirrored = None if mirrored is None else (lambda prompts: self.decode(mirrored, prompts))
        return look(lambda prompts: self.decode(embedding, prompts), of_mirrored, there, asked)

    def decode(self, embedding: Any, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        answers = self.predict(embedding, _as_numpy(prompts))
        logits = torch.from_numpy(answers.logits).to(DEVICE)
        return logits / 0 if self._broken else logits, torch.from_numpy(answers.predicted_iou).to(DEVICE)

    def encode(self, frames: Sequence[np.ndarray]) -> Any:
        return _Encoded(super().encode(frames), list(frames))


class _Encoded(list[Any]):
    def __init__(self, grey: Any, frames: list[np.ndarray]) -> None:
        super().__init__(grey)
        self.frames = frames


def _as_numpy(prompts: PromptTensors) -> Any:
    from pipeline.models import PromptBatch

    return PromptBatch(*(None if of is None else of.cpu().numpy() for of in prompts))  # type: ignore[arg-type]


def blobs(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    """A mask of a few smooth pieces, at no border in particular."""
    rng = np.random.default_rng(seed)
    noise = cv2.resize(rng.normal(size=(6, 6)).astype(np.float32), size_hw[::-1], interpolation=cv2.INTER_CUBIC)
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    centre = rng.uniform(0.3, 0.7, 2) * size_hw
    near = np.exp(-((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (0.2 * max(size_hw)) ** 2)
    return ((near + 0.1 * noise) > 0.4).astype(np.uint8)


def photo(seed: int, size_hw: tuple[int, int], masks: int = 1) -> RefineImage:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
    pixels = resize_to_input(cv2.resize(small, size_hw[::-1], interpolation=cv2.INTER_LINEAR), 1024)
    coarse = [blobs(10 * seed + place, size_hw) for place in range(masks)]
    return RefineImage(pixels, Frame(size_hw, 1024), [binary.encode(mask) for mask in coarse if mask.any()])


@pytest.mark.parametrize("method", [Method(iterations=1), Method(iterations=1, mirror=True)], ids=["plain", "mirror"])
def test_one_round_is_that_of_numpy(method: Method) -> None:
    images = [photo(seed, size) for seed, size in enumerate(SIZES)]
    for of_image, of_other in zip(refine(FakeModel(), images, method), refine(Looking(), images, method), strict=True):
        for one, other in zip(of_image, of_other, strict=True):
            assert binary.iou(binary.decode(one.rle), binary.decode(other.rle)) > 0.9999
            assert other.scores == pytest.approx(one.scores, abs=5e-4)


def test_later_rounds_agree_as_execution_classes_do() -> None:
    """Prompts of later rounds are made on other canvases."""
    images = [photo(seed, size) for seed, size in enumerate(SIZES)]
    method = Method(iterations=3, mirror=True)
    pairs = [
        pair
        for pair_of in zip(refine(FakeModel(), images, method), refine(Looking(), images, method), strict=True)
        for pair in zip(*pair_of, strict=True)
    ]
    ious = [binary.iou(binary.decode(one.rle), binary.decode(other.rle)) for one, other in pairs]
    assert np.mean(ious) > 0.99
    assert min(ious) > 0.97
    for one, other in pairs:
        assert other.scores["iteration_iou"] == pytest.approx(one.scores["iteration_iou"], abs=0.02)
        assert other.scores["expected_iou"] == pytest.approx(one.scores["expected_iou"], abs=0.02)


@pytest.mark.parametrize("off", ["use_points", "use_box", "use_mask"])
def test_prompts_follow_the_method_in_every_round(off: str) -> None:
    model = Looking()
    refine(model, [photo(0, (120, 160))], Method(**{"iterations": 2, off: False}))
    assert len(model.shown) == 2
    for shown in model.shown:
        assert (shown.points_xy is None) == (off == "use_points")
        assert (shown.boxes_xyxy is None) == (off == "use_box")
        assert (shown.mask_logits is None) == (shown.coarse is None) == (off == "use_mask")


def test_later_prompts_are_near_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samrefiner._Instance, "settled", property(lambda instance: not instance.current.mask.size))
    images = [photo(seed, size) for seed, size in enumerate(SIZES)]
    plain, looking = FakeModel(), Looking()
    method = Method(iterations=2, encode_batch=8, decode_batch=64)
    refine(plain, images, method)
    refine(looking, images, method)
    one, other = plain.shown[1], looking.shown[1]
    for name in ("boxes_xyxy", "mask_logits", "coarse", "point_labels"):
        assert getattr(one, name) is not None
        assert np.abs(getattr(one, name) - getattr(other, name)).mean() < 1.0, name
    assert np.abs(one.boxes_xyxy - other.boxes_xyxy).max() < 12  # of 1024
    assert np.abs(one.coarse - other.coarse).max() < 0.6


def test_with_colours_the_rounds_alone_are_the_models() -> None:
    images = [photo(0, (240, 320))]
    method = Method(iterations=1, colour_vote=0.4)
    [plain], [there] = refine(FakeModel(), images, method), refine(Looking(), images, method)
    for one, other in zip(plain, there, strict=True):
        assert one.rle == other.rle
        assert other.scores == pytest.approx(one.scores, abs=1e-5)


def test_a_mask_that_vanishes_stays_as_it_was_when_it_did() -> None:
    [[result, *_]] = refine(Looking(empty=True), [photo(0, (60, 60))], Method(iterations=3))
    assert binary.area(result.rle) == 0
    assert result.scores["iteration_iou"] == 1.0


@pytest.mark.parametrize("given", [{"elastic_threshold": 0.1}, {"box_trials": 2}], ids=["elastic", "trials"])
def test_boxes_that_grow_and_votes_are_left_to_numpy(given: dict[str, Any]) -> None:
    images = [photo(0, (120, 160))]
    method = Method(iterations=2, **given)
    assert refine(Looking(), images, method) == refine(FakeModel(), images, method)


def test_a_broken_model_stops_the_job() -> None:
    with pytest.raises(JobError, match="not finite"):
        refine(Looking(broken=True), [photo(0, (60, 60))], Method())
