"""Several models that refine together: each is asked as it would be alone, and their answers are fused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline import refiners
from pipeline.configuration import resolve
from pipeline.decoding.decode import decode_image
from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models import load_model, registry, weights
from pipeline.models.ensemble import Ensemble
from pipeline.models.weights import LITE_WEIGHTS
from pipeline.refiners import REFINERS, RefineImage
from pipeline.single import refine_with_scores
from pipeline.storage import Access
from schemas.config import ConfigError, Method
from tests.conftest import DEMO, Cli
from tests.fakes import FakeModel
from tests.pipeline.models_fixture import tiny_sam

METHOD = Method(iterations=1, mirror=True)
refine = REFINERS["samrefiner"].run


class Smaller(FakeModel):
    """Of another input side, and with another opinion."""

    input_side = 512

    def _candidates(self, grey: np.ndarray, prompts: object, row: int) -> np.ndarray:
        return super()._candidates(grey, prompts, row) - 2  # type: ignore[arg-type]


class Stretched(Smaller):
    """For which images are stretched to a square."""

    stretched = True


def together(*members: FakeModel) -> Ensemble:
    side = max(member.input_side for member in members)
    return Ensemble("fakes", "", side, members[0].stretched, members[0].mask_side, 0.5, members)


@pytest.fixture
def image() -> RefineImage:
    pixels = decode_image((DEMO / "images" / "coffee.jpg").read_bytes(), 1 << 24)
    coarse = np.zeros(pixels.shape[:2], np.uint8)
    coarse[100:260, 150:400] = 1
    frame = Frame((pixels.shape[0], pixels.shape[1]), 1024)
    return RefineImage(resize_to_input(pixels, 1024), frame, [binary.encode(coarse)])


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Weights of lite that are not the packaged ones."""
    tensors = load_file(LITE_WEIGHTS)
    path = tmp_path / "other.safetensors"
    save_file({name: (values * 1.01).to(values.dtype) for name, values in tensors.items()}, path)
    return path


def test_models_that_agree_answer_as_one(image: RefineImage) -> None:
    [[alone]] = refine(FakeModel(), [image], METHOD)
    [[both]] = refine(together(FakeModel(), FakeModel()), [image], METHOD)
    assert both.rle == alone.rle
    assert both.scores == pytest.approx(alone.scores, abs=1e-5)


@pytest.mark.parametrize("kind", [Smaller, Stretched])
def test_models_that_disagree_meet_in_the_middle_and_say_so(image: RefineImage, kind: type[Smaller]) -> None:
    one, other = FakeModel(), kind()
    frame = Frame(image.frame.size_hw, 512, kind.stretched)
    pixels = resize_to_input(image.pixels, 512, frame.size_hw, kind.stretched)
    reduced = image._replace(pixels=pixels, frame=frame)
    [[alone]], [[smaller]] = refine(one, [image], METHOD), refine(other, [reduced], METHOD)
    [[both]] = refine(together(one, other), [image], METHOD)
    assert binary.area(smaller.rle) < binary.area(both.rle) < binary.area(alone.rle)
    assert both.scores["look_iou"] < min(alone.scores["look_iou"], smaller.scores["look_iou"])
    assert len(one.shown) == len(other.shown) == 4  # each alone, then together: the image and its mirror image
    for shown, again in ((one.shown[0], one.shown[2]), (other.shown[0], other.shown[2])):
        assert shown.boxes_xyxy is not None
        np.testing.assert_array_equal(shown.boxes_xyxy, again.boxes_xyxy)
        np.testing.assert_array_equal(shown.mask_logits, again.mask_logits)


@pytest.mark.parametrize("method", [METHOD, METHOD.model_copy(update={"exclusive": True})], ids=["masks", "class map"])
def test_the_first_says_how_an_image_lies_in_the_square(image: RefineImage, method: Method) -> None:
    frame = Frame(image.frame.size_hw, 1024, True)
    stretched = image._replace(pixels=resize_to_input(image.pixels, 1024, frame.size_hw, True), frame=frame)
    [[one]] = refiners.refine(together(Stretched(), FakeModel()), [stretched], method)
    [[other]] = refiners.refine(together(FakeModel(), Stretched()), [image], method)
    assert binary.iou(binary.decode(one.rle), binary.decode(other.rle)) > 0.95


def test_members_crop_what_they_would_alone(image: RefineImage) -> None:
    """An image is loaded once, for the largest of them; each sees it as it is loaded for itself."""
    method = Method(iterations=1, crop_ratio=1.6, crop_sides=4)
    pixels = decode_image((DEMO / "images" / "coffee.jpg").read_bytes(), 1 << 24)
    one, other = FakeModel(), Smaller()
    [[result]] = refine(together(one, other), [image._replace(pixels=pixels)], method)
    assert len(one.shown) == len(other.shown) == 2
    assert result.scores["look_iou"] < 1


def test_what_is_known_of_models_together() -> None:
    spec = registry.find("lite+vit_b")
    assert (spec.name, spec.input_side, spec.stretched, spec.adaptable) == ("lite+vit_b", 1024, False, False)
    assert [member.name for member in spec.members] == ["lite", "vit_b"]
    assert resolve(overrides={"method": {"model": "lite+vit_b"}}).method.model == "lite+vit_b"
    with pytest.raises(RefusedError, match="unknown model 'nothing'"):
        registry.find("lite+nothing")
    with pytest.raises(RefusedError, match="cascadepsp refines alone"):
        registry.find("lite+cascadepsp")
    with pytest.raises(ConfigError, match="model lite\\+vit_b is for refiner samrefiner, not sam-box"):
        resolve(overrides={"method": {"model": "lite+vit_b", "refiner": "sam-box"}})


def test_checkpoints_go_to_the_models_that_want_them(tmp_path: Path, other: Path) -> None:
    torch.manual_seed(0)
    official = tmp_path / "tiny.safetensors"
    save_file(tiny_sam().state_dict(), official)
    found = weights.resolve("lite+vit_b", str(official), Access())
    assert [one.uri for one in found.members] == [registry.PACKAGED, str(official)]
    both = weights.resolve("lite+vit_b", (str(other), str(official)), Access())
    assert [one.uri for one in both.members] == [str(other), str(official)]
    assert len({found.sha256, both.sha256, *(one.sha256 for one in (*found.members, *both.members))}) == 5
    one = str(other)
    for model in ("lite+lite", "vit_b+vit_b"):
        with pytest.raises(RefusedError, match="2 models, and 1 checkpoint came with them: give --checkpoint for each"):
            weights.resolve(model, (one,), Access())
    with pytest.raises(RefusedError, match="model lite takes one checkpoint, and 2 were given"):
        weights.resolve("lite", (one, one), Access())


def test_two_of_lite_refine_and_the_order_is_theirs(image: RefineImage, other: Path) -> None:
    found = weights.resolve("lite+lite", (registry.PACKAGED, str(other)), Access())
    model = load_model("lite+lite", found, "cpu", 1)
    assert isinstance(model, Ensemble)
    assert [member.weights_sha256 for member in model.members] == [one.sha256 for one in found.members]
    seen = image._replace(pixels=resize_to_input(image.pixels, 512), frame=Frame(image.frame.size_hw, 512))
    [[result]] = refine(model, [seen], METHOD)
    assert 0 < result.scores["look_iou"] < 1
    turned = weights.resolve("lite+lite", (str(other), registry.PACKAGED), Access())
    assert turned.sha256 != found.sha256


def test_from_python(other: Path) -> None:
    photo = DEMO / "images" / "coffee.jpg"
    size_hw = decode_image(photo.read_bytes(), 1 << 24).shape[:2]
    coarse = np.zeros(size_hw, np.uint8)
    coarse[100:260, 150:400] = 1
    method = resolve(overrides={"method": {"model": "lite+lite"}}).method
    given = {"model": "lite+lite", "checkpoint": (registry.PACKAGED, str(other)), "method": method, "device": "cpu"}
    [outcome] = refine_with_scores(photo, coarse, **given)  # type: ignore[arg-type]
    assert outcome.calibration_id.startswith("uncalibrated")
    assert outcome.refined.any()


def test_a_run_with_two_models(relabel: Cli, other: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    command = [
        "run", "--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", output, "--actors", "1",
        "--model", "lite", "--model", "lite", "--checkpoint", registry.PACKAGED, "--checkpoint", other,
    ]  # fmt: skip
    done = relabel(*command, timeout=300)
    assert done.returncode == 0, done.stderr
    [config] = (output / "runs").glob("*/config.yaml")
    assert "model: lite+lite\n" in config.read_text()
    pointer = (output / "current.json").read_bytes()
    assert relabel(*command, timeout=300).returncode == 0
    assert (output / "current.json").read_bytes() == pointer
    refused = relabel("bench", "--model", "lite", "--model", "lite")
    assert refused.returncode == 2
    assert "measure them one by one" in refused.stderr
