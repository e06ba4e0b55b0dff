"""Refiners that are not SAM: they follow colour edges, repeat themselves exactly, and survive odd masks."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.configuration import resolve as resolve_config
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.masks.frames import ORIGINAL_SIZE, Frame, resize_to_input
from pipeline.models import NoModel, load_model
from pipeline.models.weights import Weights, resolve
from pipeline.output.shard_rows import seal_masks
from pipeline.refiners import REFINERS, RefineImage, check_refiner, dense_crf, grabcut, none
from pipeline.refiners.pixelwise import RefineOne
from pipeline.storage import Access
from schemas.config import ConfigError, Gate, Method
from schemas.records import SCORES

needs_crf = pytest.mark.skipif(find_spec("pydensecrf") is None, reason="the extra dense-crf is not installed")
BASELINES = [
    pytest.param(none.refine, id="none"),
    pytest.param(grabcut.refine, id="grabcut"),
    pytest.param(dense_crf.refine, id="dense-crf", marks=needs_crf),
]
SIZE_HW = (120, 160)


def disc(radius: float, centre_xy: tuple[float, float] = (80, 60)) -> binary.Mask:
    rows, columns = np.mgrid[: SIZE_HW[0], : SIZE_HW[1]]
    return (np.hypot(columns - centre_xy[0], rows - centre_xy[1]) <= radius).astype(np.uint8)


def photograph(mask: binary.Mask) -> npt.NDArray[np.uint8]:
    """A noisy red object on a noisy green ground, (H, W, 3) uint8."""
    colours = np.where(mask[..., None] > 0, (190, 60, 50), (60, 130, 70))
    noise = np.random.default_rng(0).normal(0, 12, colours.shape)
    return np.clip(colours + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("refine", "least"),
    [
        pytest.param(grabcut.refine, 0.98, id="grabcut"),
        pytest.param(dense_crf.refine, 0.90, id="dense-crf", marks=needs_crf),
    ],
)
@pytest.mark.parametrize("coarse", [disc(34), disc(27), disc(30, (82, 61))], ids=["larger", "smaller", "shifted"])
def test_the_outline_moves_to_the_edge_of_the_object(refine: RefineOne, least: float, coarse: binary.Mask) -> None:
    truth = disc(30)
    refined = refine(photograph(truth), coarse)
    assert binary.iou(refined, truth) > max(least, binary.iou(coarse, truth))


@pytest.mark.parametrize("refine", BASELINES[1:])
def test_it_is_the_image_that_decides(refine: RefineOne) -> None:
    truth, coarse = disc(30), disc(30, (83, 62))
    flat = np.full((*SIZE_HW, 3), 127, np.uint8)
    assert binary.iou(refine(flat, coarse), truth) < binary.iou(refine(photograph(truth), coarse), truth) - 0.05


@pytest.mark.parametrize("refine", BASELINES)
def test_the_same_inputs_give_the_same_mask(refine: RefineOne) -> None:
    image, coarse = photograph(disc(30)), disc(27)
    first = refine(image, coarse)
    refine(photograph(disc(20)), disc(22))  # what ran before must not matter
    np.testing.assert_array_equal(first, refine(image, coarse))


@pytest.mark.parametrize("refine", BASELINES)
@settings(max_examples=15, deadline=None)
@given(
    x=st.integers(0, 159),
    y=st.integers(0, 119),
    width=st.sampled_from([1, 2, 5, 40, 200]),
    height=st.sampled_from([1, 3, 60, 200]),
)
def test_any_mask_gives_a_mask(refine: RefineOne, x: int, y: int, width: int, height: int) -> None:
    coarse = np.zeros(SIZE_HW, np.uint8)
    coarse[y : y + height, x : x + width] = 1
    before = coarse.copy()
    refined = refine(photograph(disc(30)), coarse)
    assert refined.shape == SIZE_HW
    assert refined.dtype == np.uint8
    assert set(np.unique(refined)) <= {0, 1}
    np.testing.assert_array_equal(coarse, before)


def test_grabcut_keeps_what_it_cannot_cut() -> None:
    whole = np.ones(SIZE_HW, np.uint8)
    np.testing.assert_array_equal(grabcut.refine(photograph(disc(30)), whole), whole)


def test_grabcut_of_a_large_crop_works_on_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grabcut, "LONGEST_SIDE_PX", 60)
    truth = disc(30)
    assert binary.iou(grabcut.refine(photograph(truth), disc(34)), truth) > 0.93


@pytest.mark.parametrize("input_side", [ORIGINAL_SIZE, 80])
def test_in_the_registry_masks_return_in_original_pixels(input_side: int) -> None:
    truth, coarse = disc(30), disc(34)
    pixels = resize_to_input(photograph(truth), input_side)
    image = RefineImage(pixels, Frame(SIZE_HW, input_side), [binary.encode(coarse), binary.encode(truth)])
    [refined] = REFINERS["grabcut"].run(NoModel(), [image], Method(refiner="grabcut"))
    assert [item.rle["size"] for item in refined] == [list(SIZE_HW)] * 2
    assert binary.iou(binary.decode(refined[0].rle), truth) > (0.97 if input_side == ORIGINAL_SIZE else 0.9)
    assert refined[0].scores["coarse_iou"] == binary.iou(binary.decode(refined[0].rle), coarse)
    assert refined[0].scores.keys() == {name for name, _ in SCORES if not name.endswith(("colour_iou", "trial_iou"))}
    assert np.isnan(refined[0].scores["predicted_iou"])


def test_a_quality_that_nobody_estimates_is_null() -> None:
    rle = binary.encode(disc(30))
    mask = {"mask_id": "m", "source_mask_id": "1", "category_id": 1, "category": "disc", "reason": None}
    scores = {name: 1.0 for name, _ in SCORES} | {"coarse_iou": 0.9, "predicted_iou": None, "stability": None}
    image = {"image_id": "i", "image_uri": "a.jpg", "source_image_id": "1", "height": 120, "width": 160}
    part_mask = {**mask, **scores, "coarse_rle": rle, "refined_rle": rle}
    [row], _ = seal_masks([(image, part_mask)], Gate(), None)
    assert row["decision"] == "refined"
    assert (row["quality"], row["quality_coarse"], row["quality_refined"]) == (None, None, None)


def test_refiners_without_a_sam_choose_their_model_and_accept_no_other() -> None:
    assert resolve_config(overrides={"method": {"refiner": "grabcut"}}).method.model == "none"
    with pytest.raises(ConfigError, match="refiner grabcut goes with model none, not vit_b"):
        resolve_config(overrides={"method": {"refiner": "grabcut", "model": "vit_b"}})
    with pytest.raises(ConfigError, match="model torchscript is for refiner torchscript, not samrefiner"):
        resolve_config(overrides={"method": {"model": "torchscript"}})


def test_no_model_needs_no_weights() -> None:
    weights = resolve("none", None, Access())
    assert weights == Weights("", "", Access())
    assert load_model("none", weights, "cpu", 1).input_side == ORIGINAL_SIZE


def test_unknown_and_uninstalled_refiners_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RefusedError, match="unknown refiner 'magic'; there are samrefiner, sam-box, none"):
        check_refiner("magic")
    absent: Callable[[str], None] = lambda _name: None  # noqa: E731
    monkeypatch.setattr("pipeline.extras.find_spec", absent)
    with pytest.raises(RefusedError, match=r"pip install 'relabel-masks\[dense-crf\]'"):
        check_refiner("dense-crf")
    check_refiner("grabcut")
