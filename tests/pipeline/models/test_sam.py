"""Official checkpoints: loading, refusing, and agreement with segment_anything.SamPredictor."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import SamPredictor, sam_model_registry

from pipeline.errors import RefusedError
from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.masks.views import pushed_boxes
from pipeline.models import PromptBatch, load_model, weights
from pipeline.models.registry import VIT_B
from pipeline.models.sam import SamModel
from pipeline.refiners import RefineImage, samrefiner
from pipeline.storage import Access
from schemas.config import Method
from tests.pipeline.models_fixture import tiny_sam


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return tiny_sam().state_dict()


@pytest.fixture(autouse=True)
def small_architecture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`vit_b` is the tiny SAM here; everything else is the real code."""
    monkeypatch.setitem(sam_model_registry, "vit_b", tiny_sam)
    monkeypatch.setenv("RELABEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(state: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    path = tmp_path / "custom.pth"
    torch.save(state, path)
    return path


def test_agrees_with_sam_predictor(state: dict[str, torch.Tensor], checkpoint: Path) -> None:
    """One predictor call for each mask, against all masks of two images in one call."""
    reference = tiny_sam()
    reference.load_state_dict(state)
    predictor = SamPredictor(reference.eval())
    rng = np.random.default_rng(0)
    photos = [rng.integers(0, 256, (60, 90, 3), dtype=np.uint8), rng.integers(0, 256, (80, 50, 3), dtype=np.uint8)]
    model = SamModel(VIT_B, checkpoint, "")
    embedding = model.encode([resize_to_input(photo, 1024) for photo in photos])
    frames = [Frame((photo.shape[0], photo.shape[1]), 1024) for photo in photos]
    image_index = np.array([0, 1, 1, 0])
    points = rng.uniform(5, 45, (4, 2, 2))
    labels = np.array([[1, 0], [1, -1], [1, 0], [1, -1]])
    boxes = np.array([[5.0, 6, 40, 45]] * 4)
    logits = rng.normal(size=(4, 256, 256)).astype(np.float32)
    prompts = PromptBatch(
        image_index,
        np.stack([frames[i].points_to_prompt(p) for i, p in zip(image_index, points, strict=True)]),
        labels,
        np.stack([frames[i].box_to_prompt(b) for i, b in zip(image_index, boxes, strict=True)]),
        logits,
        None,
    )
    found = model.predict(embedding, prompts)
    for row, image in enumerate(image_index):
        predictor.set_image(photos[image])
        present = labels[row] >= 0
        _, iou, low = predictor.predict(
            points[row][present], labels[row][present], boxes[row], logits[row][None], multimask_output=True
        )
        np.testing.assert_allclose(found.predicted_iou[row], iou, atol=1e-4)
        np.testing.assert_allclose(found.logits[row], low, atol=1e-3)
    predictor.set_image(photos[1])
    features = predictor.get_image_embedding()[0].numpy()
    cropped = model.features(embedding, 1)
    assert cropped.shape == (256, 64, 40)
    np.testing.assert_allclose(cropped, features[:, :64, :40], atol=1e-4)


def test_trials_of_boxes_are_answers_to_them(checkpoint: Path) -> None:
    """Each trial's answer is that to its box alone, and the vote is theirs."""
    model = SamModel(VIT_B, checkpoint, "")
    pixels = np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    coarse = np.zeros((60, 90), np.uint8)
    coarse[20:45, 30:70] = 1
    image = RefineImage(resize_to_input(pixels, 1024), Frame((60, 90), 1024), [binary.encode(coarse)])
    [[tried]] = samrefiner.refine(model, [image], Method(iterations=1, use_points=False, use_mask=False, box_trials=4))
    boxes = np.array([(30, 20, 69, 44), *pushed_boxes((30, 20, 69, 44), (60, 90), 4)])
    prompts = PromptBatch(np.zeros(5, np.int64), None, None, image.frame.box_to_prompt(boxes), None, None)
    answers = model.predict(model.encode([image.pixels]), prompts)
    best = answers.predicted_iou.argmax(axis=1)
    chosen = answers.logits[np.arange(5), best]
    majority = ((chosen > 0).sum(axis=0) > 2).astype(np.uint8)
    agreed = np.mean([binary.iou(majority, (one > 0).astype(np.uint8)) for one in chosen])
    assert tried.scores["trial_iou"] == pytest.approx(agreed, abs=1e-3)
    assert tried.scores["predicted_iou"] == pytest.approx(
        np.clip(answers.predicted_iou.max(axis=1).mean(), 0, 1), abs=1e-4
    )


def test_loads_from_a_uri_through_the_cache(checkpoint: Path, tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://bucket/custom.pth", "wb") as remote:
        remote.write(checkpoint.read_bytes())
    found = weights.resolve("vit_b", "memory://bucket/custom.pth", Access(tries=1))
    assert found.sha256 == weights.hash_file(checkpoint)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{found.sha256}.pth"]
    assert load_model("vit_b", found, "cpu", 1).weights_sha256 == found.sha256


def test_safetensors_are_the_same_model(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "custom.safetensors")
    assert SamModel(VIT_B, tmp_path / "custom.safetensors", "").name == "vit_b"


def test_a_file_with_an_official_name_must_have_the_published_hash(checkpoint: Path, tmp_path: Path) -> None:
    official = checkpoint.rename(tmp_path / "sam_vit_b_01ec64.pth")
    with pytest.raises(RefusedError, match="is damaged"):
        weights.resolve("vit_b", str(official), Access())


def test_a_checkpoint_that_changes_during_the_run_is_refused(checkpoint: Path) -> None:
    found = weights.resolve("vit_b", str(checkpoint), Access())
    checkpoint.write_bytes(checkpoint.read_bytes() + b"more")
    with pytest.raises(RefusedError, match="changed"):
        weights.local_path(found)


class Evil:
    """Unpickling this would create a file."""

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return open, ("/tmp/relabel-unpickled", "w")


def test_pickled_code_is_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(RefusedError, match="cannot be read as weights"):
        SamModel(VIT_B, tmp_path / "evil.pth", "")
    assert not Path("/tmp/relabel-unpickled").exists()


@pytest.mark.parametrize("content", [b"", b"no weights", b"PK\x03\x04 cut"])
def test_damaged_files_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(RefusedError, match="cannot be read as weights"):
        SamModel(VIT_B, tmp_path / "x.pth", "")


def test_weights_of_another_model_are_refused(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    torch.save({name: tensor for name, tensor in state.items() if "iou_token" not in name}, tmp_path / "less.pth")
    with pytest.raises(RefusedError, match=r"lacks mask_decoder\.iou_token"):
        SamModel(VIT_B, tmp_path / "less.pth", "")
    torch.save({**state, "image_encoder.pos_embed": torch.zeros(1, 64, 64, 8)}, tmp_path / "wide.pth")
    with pytest.raises(RefusedError, match="is not a vit_b checkpoint"):
        SamModel(VIT_B, tmp_path / "wide.pth", "")


def test_only_official_models_on_gpus_are_compiled(checkpoint: Path) -> None:
    found = weights.resolve("vit_b", str(checkpoint), Access())
    with pytest.raises(RefusedError, match="on GPUs, not for vit_b on cpu"):
        load_model("vit_b", found, "cpu", 1, compiled=True)
