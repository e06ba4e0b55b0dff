"""Class maps through a refiner: region by region, and without overlap."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline import refiners
from pipeline.masks import binary, regions
from pipeline.masks.frames import ORIGINAL_SIZE, Frame, resize_to_input
from pipeline.refiners import RefinedMask, RefineImage
from schemas.config import Method
from tests.fakes import FakeModel

SIZE = (90, 120)


def box(x1: int, y1: int, x2: int, y2: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[y1:y2, x1:x2] = 1
    return mask


def given(*coarse: np.ndarray) -> RefineImage:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    return RefineImage(resize_to_input(pixels, 1024), Frame(SIZE, 1024), [binary.encode(mask) for mask in coarse])


def refine(images: Sequence[RefineImage], model: FakeModel | None = None, **method: object) -> list[list[RefinedMask]]:
    return refiners.refine(model or FakeModel(), images, Method(**{"iterations": 1, **method}))


def test_every_region_is_prompted_by_itself_and_comes_back_in_one_mask() -> None:
    two, speck = box(5, 5, 25, 25) | box(80, 60, 110, 85), box(60, 2, 62, 4)
    model = FakeModel()
    [[result]] = refine([given(two | speck)], model, split_regions=True)
    assert sum(len(shown) for shown in model.shown) == 2
    assert binary.area(result.rle) > 0
    found = binary.decode(result.rle)
    assert binary.iou(found, two) > 0.6
    assert not found[2:4, 60:62].any()
    assert result.scores["coarse_iou"] == pytest.approx(binary.iou(found, two | speck))
    assert result.scores["components"] == regions.split(found).max()
    assert result.scores["predicted_iou"] == pytest.approx(0.9)
    assert np.isfinite(list(result.scores.values())).all()
    assert result.logits is None


def test_an_undivided_mask_is_refined_as_without_splitting() -> None:
    image = given(box(20, 20, 60, 70))
    assert refine([image], split_regions=True) == refine([image])


def test_masks_of_an_image_do_not_overlap_when_exclusive() -> None:
    left, right = box(10, 10, 62, 80), box(60, 10, 110, 80)
    image = given(left, right)
    plain = [binary.decode(result.rle) for result in refine([image])[0]]
    assert (plain[0] & plain[1]).any()
    model = FakeModel()
    apart = [binary.decode(result.rle) for result in refine([image], model, exclusive=True)[0]]
    assert not (apart[0] & apart[1]).any()
    assert np.array_equal(apart[0] | apart[1], plain[0] | plain[1])
    contested = (plain[0] & plain[1]) > 0
    logits = model.predict(model.encode([image.pixels]), model.shown[0]).logits[:, 1]
    fields = [image.frame.logits_to_image(field) for field in logits]
    assert np.array_equal(apart[1][contested] > 0, (fields[1] > fields[0])[contested])


def test_images_do_not_mix_and_batches_do_not_matter() -> None:
    images = [given(box(5, 5, 25, 25) | box(80, 60, 110, 85)), given(), given(box(9, 9, 50, 50), box(40, 40, 80, 80))]
    options = {"split_regions": True, "exclusive": True}
    together = refine(images, encode_batch=3, **options)
    assert [len(of_image) for of_image in together] == [1, 0, 2]
    assert together == refine(images, encode_batch=1, **options)


def test_a_mask_of_specks_becomes_empty() -> None:
    [[result]] = refine([given(box(3, 3, 5, 5))], split_regions=True)
    assert binary.area(result.rle) == 0
    assert result.scores["area_ratio"] == 0


def test_refiners_without_logits_give_a_contested_pixel_to_the_first() -> None:
    coarse = [binary.encode(mask) for mask in (box(10, 10, 60, 60), box(50, 10, 90, 60))]
    image = RefineImage(np.zeros((*SIZE, 3), np.uint8), Frame(SIZE, ORIGINAL_SIZE), coarse)
    [[first, second]] = refiners.refine(None, [image], Method(refiner="none", split_regions=True, exclusive=True))
    assert np.array_equal(binary.decode(first.rle), binary.decode(image.coarse[0]))
    assert np.array_equal(binary.decode(second.rle), box(60, 10, 90, 60))
