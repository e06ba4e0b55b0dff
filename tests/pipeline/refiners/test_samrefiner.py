"""The refiner with a deterministic model: what it shows the model, and what it makes of the answers."""

from collections.abc import Sequence

import numpy as np
import pytest

from pipeline.configuration import resolve
from pipeline.errors import JobError
from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import Candidates
from pipeline.refiners import REFINERS, RefineImage, samrefiner
from schemas.config import Method
from tests.fakes import FakeModel

refine = REFINERS["samrefiner"].run


def photo(seed: int, size_hw: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size_hw, 3), dtype=np.uint8)


def disc(size_hw: tuple[int, int], centre: tuple[int, int], radius: int) -> np.ndarray:
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2).astype(np.uint8)


def given(pixels: np.ndarray, coarse: Sequence[np.ndarray]) -> RefineImage:
    size = pixels.shape[0], pixels.shape[1]
    return RefineImage(resize_to_input(pixels, 1024), Frame(size, 1024), [binary.encode(mask) for mask in coarse])


@pytest.fixture
def images() -> list[RefineImage]:
    sizes = [(120, 160), (200, 100), (90, 90)]
    coarse = [
        [disc(sizes[0], (60, 80), 30), disc(sizes[0], (30, 30), 12)],
        [disc(sizes[1], (100, 50), 25)],
        [np.ones(sizes[2], np.uint8), disc(sizes[2], (45, 45), 20), disc(sizes[2], (20, 60), 10)],
    ]
    return [given(photo(seed, size), masks_) for seed, (size, masks_) in enumerate(zip(sizes, coarse, strict=True))]


def test_every_mask_comes_back_in_place_with_finite_scores(images: list[RefineImage]) -> None:
    refined = refine(FakeModel(), images, Method(iterations=2))
    assert [len(of_image) for of_image in refined] == [2, 1, 3]
    for image, of_image in zip(images, refined, strict=True):
        for coarse, result in zip(image.coarse, of_image, strict=True):
            assert result.rle["size"] == list(image.frame.size_hw)
            assert np.isfinite(list(result.scores.values())).all()
            assert result.scores["predicted_iou"] == pytest.approx(0.9)  # the most confident candidate
            found = binary.iou(binary.decode(result.rle), binary.decode(coarse))
            assert result.scores["coarse_iou"] == pytest.approx(found)
            assert found > 0.5


def test_masks_of_several_images_share_decoder_passes(images: list[RefineImage]) -> None:
    model = FakeModel()
    refine(model, images, Method(iterations=1, encode_batch=3, decode_batch=4))
    assert [shown.image_index.tolist() for shown in model.shown] == [[0, 0, 1, 2], [2, 2]]


def test_neighbours_do_not_change_a_result(images: list[RefineImage]) -> None:
    together = refine(FakeModel(), images, Method(iterations=3))
    alone = [refine(FakeModel(), [image], Method(iterations=3))[0] for image in images]
    assert together == alone


def test_prompts_follow_the_method(images: list[RefineImage]) -> None:
    for off in ("use_points", "use_box", "use_mask"):
        model = FakeModel()
        if off == "use_mask":
            refine(model, images, Method(iterations=1, use_mask=False))
            assert model.shown[0].mask_logits is None
            assert model.shown[0].coarse is None
            continue
        refine(model, images, Method(**{"iterations": 1, off: False}))
        shown = model.shown[0]
        assert (shown.points_xy is None) == (off == "use_points")
        assert (shown.boxes_xyxy is None) == (off == "use_box")
        assert shown.mask_logits is not None
        assert shown.mask_logits.min() == -30


def test_a_mask_that_fills_its_box_has_no_negative_point(images: list[RefineImage]) -> None:
    model = FakeModel()
    refine(model, [images[2]], Method(iterations=1))
    assert model.shown[0].point_labels is not None
    assert model.shown[0].point_labels.tolist() == [[1, -1], [1, 0], [1, 0]]


def test_trials_push_the_box_alone_and_share_decoder_passes(images: list[RefineImage]) -> None:
    model = FakeModel()
    method = Method(iterations=1, encode_batch=3, decode_batch=7, box_trials=3)
    refined = refine(model, images, method)
    plain, *trials = model.shown
    asked = [[0, 0, 1, 2, 2, 2], [0] * 6, [1] * 3 + [2] * 3, [2] * 6]
    assert [shown.image_index.tolist() for shown in model.shown] == asked
    joined = np.concatenate([shown.boxes_xyxy for shown in trials])
    outward = (joined - np.repeat(plain.boxes_xyxy, 3, axis=0)) * [-1, -1, 1, 1]
    assert outward.min() >= 0
    assert (outward.max(axis=1) > 0).sum() == 15  # all but those of the mask that fills its image
    for name in ("points_xy", "point_labels", "mask_logits", "coarse"):
        together = np.concatenate([getattr(shown, name) for shown in trials])
        np.testing.assert_array_equal(together, np.repeat(getattr(plain, name), 3, axis=0))
    scores = [result.scores["trial_iou"] for of_image in refined for result in of_image]
    assert scores == [1.0] * 6  # as the model looks at masks and at no box


def test_trials_of_boxes_change_what_boxes_alone_find(images: list[RefineImage]) -> None:
    """The model fills the box: most of the pushed ones are larger."""
    boxes = {"iterations": 1, "use_points": False, "use_mask": False}
    plain, tried = (refine(FakeModel(), images, Method(**boxes, box_trials=trials)) for trials in (0, 4))
    for of_image, of_other in zip(plain, tried, strict=True):
        for one, other in zip(of_image, of_other, strict=True):
            assert binary.area(other.rle) >= binary.area(one.rle)
            assert "trial_iou" not in one.scores
            assert 0.5 < other.scores["trial_iou"] <= 1
    assert tried != plain
    alone = [refine(FakeModel(), [image], Method(**boxes, box_trials=4))[0] for image in images]
    assert alone == tried  # whatever is beside a mask


def test_published_paper_grows_boxes_and_trusts_grown_masks_less() -> None:
    pixels = np.full((100, 200, 3), 200, np.uint8)
    image = given(pixels, [disc((100, 200), (50, 100), 20)])  # all pixels look alike: the box grows on every side
    model = FakeModel()
    refine(model, [image], resolve("published-paper", None, {"method": {"iterations": 1}}).method)
    tight = [81, 31, 119, 69]
    box = model.shown[0].boxes_xyxy[0] / (1024 / 200)
    assert (box - tight).round().tolist() == [-3, -3, 3, 3]
    assert model.shown[0].mask_logits.min() == -1


def test_a_mask_that_vanishes_stays_empty_and_is_not_prompted_again() -> None:
    model = FakeModel(empty=True)
    image = given(photo(0, (60, 60)), [disc((60, 60), (30, 30), 10)])
    [[result]] = refine(model, [image], Method(iterations=4))
    assert binary.area(result.rle) == 0
    assert result.scores["area_ratio"] == 0
    assert len(model.shown) == 1


def test_a_broken_model_stops_the_job_and_blames_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FakeModel()
    predict = model.predict

    def broken(*arguments: object) -> Candidates:
        candidates = predict(*arguments)
        candidates.logits[0, 0, 0, 0] = np.nan
        return candidates

    monkeypatch.setattr(model, "predict", broken)
    with pytest.raises(JobError, match="not finite"):
        refine(model, [given(photo(0, (60, 60)), [disc((60, 60), (30, 30), 10)])], Method())


def test_an_image_without_masks_is_not_encoded() -> None:
    assert refine(FakeModel(), [given(photo(0, (60, 60)), [])], Method()) == [[]]


def test_a_mask_that_no_longer_changes_is_not_iterated_and_ends_the_same(
    images: list[RefineImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    method, soon, late = Method(iterations=30, mirror=True), FakeModel(), FakeModel()
    stopped = refine(soon, images, method)
    monkeypatch.setattr(samrefiner._Instance, "settled", property(lambda instance: not instance.current.mask.size))
    assert refine(late, images, method) == stopped
    assert sum(map(len, soon.shown)) < sum(map(len, late.shown)) == 6 * (30 + 1)
