"""Categories with a way of their own: which method each mask is refined by, and what is left of small regions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.masks.regions import without_small
from pipeline.models import load_model
from pipeline.models.weights import Weights
from pipeline.refining import chunk
from pipeline.refining.ways import ways
from pipeline.storage import Access
from schemas.config import ConfigError, Method, fingerprint, parse_config, to_yaml
from schemas.records import LOADED, SCORES
from tests.fakes import FakeModel

TEXT = """
method:
  refiner: grabcut
  min_region_px: 20
  per_category:
    bowl: {use_points: false, use_mask: false}
    bed: {use_points: false, use_mask: false}
    sky: {keep_coarse: true}
    wall: {split_regions: true}
"""


def test_a_method_without_recipes_is_called_what_it_always_was() -> None:
    assert {"min_region_px", "per_category", "box_trials"}.isdisjoint(Method().model_dump())
    assert fingerprint(Method()) == fingerprint(Method(min_region_px=0, per_category={}, box_trials=0))
    assert fingerprint(Method(box_trials=4)) not in (fingerprint(Method()), fingerprint(Method(box_trials=5)))
    given = resolve("default", TEXT)
    assert len({fingerprint(one) for one in (Method(), Method(min_region_px=1), given.method)}) == 3
    assert parse_config(to_yaml(given)) == given
    assert "keep_coarse: true" in to_yaml(given)
    assert "elastic_threshold" not in to_yaml(given).partition("per_category")[2].partition("gate:")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: {per_category: {bowl: {use_pionts: false}}}", "did you mean use_points"),
        ("method: {per_category: {bowl: {use_points: false, use_box: false, use_mask: false}}}", "at least one of"),
        ("method: {exclusive: true, min_region_px: 3}", "exclusive masks are refined together"),
        ("method: {box_trials: 4, use_box: false}", "they need use_box"),
        ("method: {box_trials: 4, per_category: {bowl: {use_box: false}}}", "they need use_box"),
        ("method: {per_category: [bowl]}", "method.per_category"),
    ],
)
def test_recipes_that_cannot_be_meant(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        resolve("default", text)


def test_ways_depend_on_the_categories_that_are_there() -> None:
    method = resolve("default", TEXT).method
    names = ["wall", "cat", "bed", "sky", "bowl", "", "bed"]
    found = ways(method, names)
    assert [categories for _, categories in found] == [{"", "cat"}, {"bed", "bowl"}, {"wall"}]
    assert [(own.use_points, own.split_regions, own.per_category) for own, _ in found] == [
        (True, False, {}),
        (False, False, {}),
        (True, True, {}),
    ]
    assert ways(method, reversed(names)) == found
    assert ways(method, ["sky"]) == []
    assert ways(Method(), names) == [(Method(), None)]
    text = "method: {box_trials: 4, per_category: {bowl: {use_box: false, box_trials: 0}}}"
    assert [own.box_trials for own, _ in ways(resolve("default", text).method, names)] == [4, 0]


def square(size: int, at: tuple[int, int] = (4, 4)) -> np.ndarray[Any, np.dtype[np.uint8]]:
    mask = np.zeros((40, 60), np.uint8)
    mask[at[0] : at[0] + size, at[1] : at[1] + size] = 1
    return mask


def test_small_islands_and_holes_go_from_large_masks() -> None:
    mask = square(30)
    spoiled = mask.copy()
    spoiled[10:13, 10:13] = 0
    spoiled[2:4, 50:52] = 1
    assert (without_small(spoiled, 10) == mask).all()
    assert (without_small(spoiled, 4) == spoiled).all()
    assert without_small(spoiled, 5).sum() == spoiled.sum() - 4  # the island, and not the hole of nine
    small = square(9) | square(2, (30, 50))
    assert (without_small(small, 10) == small).all()  # not large enough to know
    pieces = square(5, (0, 0)) | square(4, (20, 30))
    assert (without_small(pieces * 1, 3) == pieces).all()


def part_mask(name: str, coarse: binary.Rle) -> dict[str, Any]:
    """A mask of a part that is not refined yet."""
    return {
        **dict.fromkeys(score for score, _ in SCORES),
        **dict.fromkeys(("mask_id", "source_mask_id", "category"), name),
        "category_id": 1,
        "coarse_rle": coarse,
        "refined_rle": None,
        "reason": None,
        "crowd": False,
    }


def test_what_trials_say_is_in_the_part() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (683, 1024, 3)).astype(np.uint8)
    row = {"image_id": "a", "image_uri": "a", "height": 40, "width": 60, "status": "ok", "attempt": 0}
    row |= {
        "pixels": pixels.tobytes(),
        "pixels_hw": [683, 1024],
        "masks": [part_mask("cat", binary.encode(square(20)))],
    }
    loaded = pa.Table.from_pylist([row], LOADED)
    method = Method(iterations=1, use_points=False, use_mask=False)
    for trials in (0, 2):
        own = method.model_copy(update={"box_trials": trials})
        [[mask]] = chunk.refine(loaded, FakeModel(), own)["masks"].to_pylist()
        assert (mask["trial_iou"] is None) == (trials == 0)


def test_a_chunk_by_ways() -> None:
    """A real refiner and a real part: the masks of each way are the ones it would make alone."""
    method = resolve("default", TEXT).method
    model = load_model("none", Weights("", "", Access()), "cpu", 1)
    rng = np.random.default_rng(0)
    pixels = rng.integers(60, 110, (40, 60, 3)).astype(np.uint8)
    pixels[square(30) > 0] = rng.integers(150, 200, (900, 3))
    coarse = {"cat": square(28), "sky": square(20), "wall": square(12) | square(12, (20, 40)), "bowl": square(25)}
    masks = [part_mask(name, binary.encode(mask)) for name, mask in coarse.items()]
    row = {"image_id": "a", "image_uri": "a", "height": 40, "width": 60, "status": "ok", "attempt": 0, "masks": masks}
    row |= {"pixels": pixels.tobytes(), "pixels_hw": [40, 60]}
    found = chunk.refine(pa.Table.from_pylist([row], LOADED), model, method).to_pylist()[0]["masks"]
    by_name = {mask["category"]: mask for mask in found}
    assert by_name["sky"]["refined_rle"] is None
    assert by_name["sky"]["coarse_iou"] is None
    assert all(by_name[name]["refined_rle"] for name in ("cat", "wall", "bowl"))
    alone = chunk.refine(
        pa.Table.from_pylist([{**row, "masks": masks[:1]}], LOADED),
        model,
        method.model_copy(update={"per_category": {}}),
    ).to_pylist()[0]["masks"]
    assert by_name["cat"] == alone[0]
