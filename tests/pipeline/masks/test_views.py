"""Views at an object and their fusion, the colour vote, and the box-only baseline."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.masks.canvas import Canvas
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.masks.views import View, cut, evidence, fuse, mirrored, object_window, pushed_boxes, voted
from pipeline.refiners import REFINERS, RefineImage, load_side
from pipeline.refiners.colour import colour_cut, vote
from schemas.config import Method
from tests.fakes import FakeModel

SIZE_HW = (120, 200)
SIDE = 64
WHOLE = Canvas(0, 0, *SIZE_HW, 1)


def box(x1: int, y1: int, x2: int, y2: int) -> binary.Mask:
    mask = np.zeros(SIZE_HW, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def view(mask: binary.Mask, window: tuple[int, int, int, int], mirror: bool = False, logit: float = 4.0) -> View:
    """What a model that answers exactly `mask` says."""
    part = cut(mask, window)
    part = mirrored(part) if mirror else part
    frame = Frame((part.shape[0], part.shape[1]), 2 * SIDE)
    logits = logit * (2 * frame.field_to_mask(part.astype(np.float32), SIDE) - 1)
    return View(window, frame, mirror, logits, 0.9)


def test_a_window_holds_the_object_and_stays_inside() -> None:
    assert object_window((10, 20, 49, 59), SIZE_HW, 1.5) == (0, 10, 60, 70)
    assert object_window((0, 0, 189, 109), SIZE_HW, 1.5) is None  # nothing closer to see
    assert object_window((100, 60, 101, 61), SIZE_HW, 1.2) == (92, 52, 110, 70)  # a margin in pixels at least
    assert object_window((10, 20, 49, 59), SIZE_HW, 1.5, below=0.21) == (0, 10, 60, 70)
    assert object_window((10, 20, 49, 59), SIZE_HW, 1.5, below=0.2) is None  # 40 of 200 pixels


@pytest.mark.parametrize("mirror", [False, True])
def test_views_come_back_to_where_they_were_taken(mirror: bool) -> None:
    mask = box(20, 30, 70, 60)
    whole, closer = (0, 0, 200, 120), (0, 10, 100, 80)
    fused, own = fuse([view(mask, whole), view(mask, whole, mirror), view(mask, closer)], WHOLE)
    assert binary.iou((fused > 0).astype(np.uint8), mask) > 0.93
    assert all(binary.iou(one, mask) > 0.93 for one in own)


def test_where_views_disagree_the_mask_is_less_certain() -> None:
    whole = (0, 0, 200, 120)
    mask, other = box(20, 30, 70, 60), box(20, 30, 95, 60)
    sure = [view(mask, whole), view(mask, whole, mirror=True)]
    unsure = [view(mask, whole), view(other, whole, mirror=True)]
    found = []
    for views in (sure, unsure):
        fused, own = fuse(views, WHOLE)
        found.append(evidence(views, own, fused, WHOLE, mask, (fused > 0).astype(np.uint8)))
    assert found[0]["look_iou"] > 0.95 > found[1]["look_iou"]
    assert found[0]["expected_iou"] > found[1]["expected_iou"]
    assert found[0]["coarse_expected_iou"] > found[1]["coarse_expected_iou"]
    assert found[0]["outline_logit"] > 0
    sharper = evidence(sure, own, 2 * fused, WHOLE, mask, mask)
    assert sharper["outline_logit"] == pytest.approx(2 * evidence(sure, own, fused, WHOLE, mask, mask)["outline_logit"])
    single = evidence(sure[:1], own[:1], fused, WHOLE, mask, mask)
    assert single["look_iou"] == 1.0


def test_boxes_are_pushed_outward_the_same_ones_always() -> None:
    size_hw = (480, 640)
    tight = (100, 50, 399, 89)
    boxes = pushed_boxes(tight, size_hw, 500)
    outward = (boxes - tight) * [-1, -1, 1, 1]
    assert outward.min() >= 0
    half_normal = np.sqrt(2 / np.pi)
    assert outward.mean(axis=0) == pytest.approx(half_normal * np.array([10, 4, 10, 4]), rel=0.1)  # 1/64, a tenth
    np.testing.assert_array_equal(pushed_boxes(tight, size_hw, 3), boxes[:3])
    assert boxes[0] == pytest.approx([91.74166, 46.480515, 409.22528, 91.95131], abs=1e-4)  # with any numpy
    assert not np.array_equal(pushed_boxes((100, 50, 399, 90), size_hw, 3), boxes[:3])
    at_the_border = pushed_boxes((0, 0, 639, 479), size_hw, 5)
    np.testing.assert_array_equal(at_the_border, [[0, 0, 639, 479]] * 5)


def test_a_vote_is_the_majority_of_the_masks() -> None:
    whole = (0, 0, 200, 120)
    small, large = view(box(20, 30, 70, 60), whole), view(box(20, 30, 95, 60), whole, logit=40.0)
    median, agreed = voted(np.stack([small.logits, small.logits, small.logits, large.logits, large.logits]))
    assert ((median > 0) == (small.logits > 0)).all()  # however sure the others are
    assert agreed == pytest.approx((3 + 2 * 50 / 75) / 5, abs=0.05)
    assert voted(np.stack([small.logits] * 3))[1] == 1.0
    for told, trial_iou in (({}, None), ({"trial_iou": agreed}, agreed)):
        views = [small._replace(trial_iou=trial_iou), small]
        fused, own = fuse(views, WHOLE)
        found = evidence(views, own, fused, WHOLE, own[0], own[0])
        assert {name: value for name, value in found.items() if name == "trial_iou"} == told


def test_colours_find_the_edge_that_the_logits_leave_open() -> None:
    truth, coarse = box(60, 30, 130, 90), box(56, 26, 134, 94)
    noise = np.random.default_rng(0).normal(0, 10, (*SIZE_HW, 3))
    image = np.clip(np.where(truth[..., None] > 0, (190, 60, 50), (60, 130, 70)) + noise, 0, 255).astype(np.uint8)
    logits = np.full(SIZE_HW, -6, np.float32)
    logits[box(50, 20, 140, 100) > 0] = -1
    logits[coarse > 0] = 1  # leans to the coarse mask
    logits[box(66, 36, 124, 84) > 0] = 6
    found = colour_cut(image, SIZE_HW, logits, coarse, WHOLE)
    assert binary.iou(found, truth) > 0.97 > binary.iou(coarse, truth)
    assert (colour_cut(image, SIZE_HW, logits, coarse, WHOLE) == found).all()
    flat = np.full((*SIZE_HW, 3), 90, np.uint8)
    nothing_to_tell = colour_cut(flat, SIZE_HW, logits, coarse, WHOLE)
    assert binary.iou(nothing_to_tell, coarse) > 0.5  # no crash, no invention
    assert not colour_cut(image, SIZE_HW, np.full(SIZE_HW, -9, np.float32), coarse, WHOLE).any()
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    smaller = colour_cut(half, SIZE_HW, logits, coarse, WHOLE)  # at the model's size: the same edge
    assert binary.iou(smaller, truth) > 0.95


def test_small_objects_are_voted_on_by_their_coarse_mask() -> None:
    coarse, coloured = box(60, 30, 100, 70), box(80, 30, 120, 70)
    logits = np.where(box(50, 20, 120, 80) > 0, 2, -2).astype(np.float32)  # 4200 pixels
    assert ((vote(logits, coarse, coloured, 1.0) > 0) == (coloured > 0)).all()
    assert ((vote(logits, coarse, coloured, 0.5) > 0) == (coarse > 0)).all()  # 1050 of the model's


def photo(size_hw: tuple[int, int]) -> RefineImage:
    pixels = np.random.default_rng(3).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    coarse = [box(20, 30, 70, 60), box(110, 20, 160, 90)]
    return RefineImage(pixels, Frame(size_hw, FakeModel.input_side), [binary.encode(mask) for mask in coarse])


def test_presets_look_as_often_as_they_say() -> None:
    """The whole image, then its mirror image, then a crop for each mask."""
    image = photo(SIZE_HW)
    for preset, passes in (("fast", [2]), ("balanced", [2, 2]), ("best", [2, 2, 2]), ("published-code", [2] * 5)):
        model, method = FakeModel(), resolve(preset).method
        assert load_side(method, 1024) == (4096 if preset == "best" else 1024)
        [[first, _]] = REFINERS["samrefiner"].run(model, [image], method)
        assert [len(shown) for shown in model.shown] == passes, preset
        assert ("colour_iou" in first.scores) == (preset in ("balanced", "best"))


def test_the_default_is_a_preset_of_lite_and_the_published_method_of_the_official_models() -> None:
    assert resolve().method == resolve("balanced").method
    official = resolve("default", None, {"method": {"model": "vit_h"}}).method
    assert (official.mirror, official.crop_ratio, official.colour_vote, official.iterations) == (False, 0, 0, 5)
    assert resolve("default", "method: {mirror: false, colour_vote: 0}").method == resolve("fast").method


def test_the_mirror_image_is_shown_mirrored_prompts() -> None:
    model = FakeModel()
    REFINERS["samrefiner"].run(model, [photo(SIZE_HW)], resolve("balanced").method)
    plain, there = model.shown
    assert plain.boxes_xyxy is not None
    assert there.boxes_xyxy is not None
    width = 1024 * 199 / 200  # the last pixel's column, in the prompt frame
    assert there.boxes_xyxy[:, [2, 0]] == pytest.approx(width - plain.boxes_xyxy[:, [0, 2]], abs=0.1)


def test_crops_without_the_original_pixels_are_a_mistake() -> None:
    image = photo(SIZE_HW)
    small = image._replace(pixels=resize_to_input(image.pixels, 100))
    with pytest.raises(ValueError, match="crops need"):
        REFINERS["samrefiner"].run(FakeModel(), [small], resolve("best").method)


def test_sam_box_shows_boxes_alone_once() -> None:
    model = FakeModel()
    method = Method(refiner="sam-box", iterations=4, mirror=True, box_trials=3)
    [[result, _]] = REFINERS["sam-box"].run(model, [photo(SIZE_HW)], method)
    [shown] = model.shown
    assert (shown.points_xy, shown.mask_logits, shown.coarse) == (None, None, None)
    assert shown.boxes_xyxy is not None
    assert binary.iou(binary.decode(result.rle), box(20, 30, 70, 60)) > 0.8
