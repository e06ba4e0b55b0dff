"""Models of transformers through the registry: loaded, asked, refined with; and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline import single
from pipeline.configuration import resolve
from pipeline.errors import RefusedError
from pipeline.models import PromptBatch, adapter, frame_for, input_for, load_model, weights
from pipeline.models.ceiling import counted_tflop
from pipeline.storage import Access
from tests.pipeline.models import pretrained
from tests.pipeline.models.conftest import SIDE, SIDES, loaded

pytest.importorskip("transformers", reason="the extra `hf` is not installed")


def scene() -> tuple[np.ndarray, np.ndarray]:
    rows, columns = np.ogrid[:60, :90]
    mask = ((rows - 30) ** 2 + (columns - 40) ** 2 < 15**2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 60, (60, 90, 3))
    return (150 * mask[..., None] + noise).astype(np.uint8), mask


def prompts(model: Any, images: list[int]) -> PromptBatch:
    """Of each image one; the second and every other one after it has no negative point."""
    rng, count = np.random.default_rng(0), len(images)
    labels = np.array([[1, 0 if row % 2 == 0 else -1] for row in range(count)])
    return PromptBatch(
        np.array(images),
        rng.uniform(100, 900, (count, 2, 2)).astype(np.float32),
        labels,
        np.array([[200, 150, 700, 800]] * count, np.float32) + rng.uniform(0, 90, (count, 4)).astype(np.float32),
        rng.normal(0, 5, (count, model.mask_side, model.mask_side)).astype(np.float32),
        None,
    )


@pytest.mark.parametrize("architecture", pretrained.ARCHITECTURES)
def test_prompts_of_many_images_in_one_call_are_answered_as_alone(architecture: str, folders: dict[str, Path]) -> None:
    model = loaded(folders[architecture])
    assert (model.input_side, model.mask_side) == SIDES.get(architecture, (SIDE, 64))
    assert model.stretched == (architecture not in ("sam", "sam_hq"))
    photos = [scene()[0], scene()[0][:, ::-1].transpose(1, 0, 2).copy()]
    embedding = model.encode([input_for(model, photo) for photo in photos])
    asked = prompts(model, [0, 1, 1])
    together = model.predict(embedding, asked)
    for row, image in enumerate(asked.image_index):
        alone = asked.take(np.array([row]))
        alone.image_index[:] = 0
        answer = model.predict(model.encode([input_for(model, photos[image])]), alone)
        np.testing.assert_allclose(together.logits[row], answer.logits[0], atol=1e-4)
        np.testing.assert_allclose(together.predicted_iou[row], answer.predicted_iou[0], atol=1e-5)
    features = model.features(embedding, 1)
    grid = frame_for(model, photos[1].shape[:2]).input_hw[1] * model.mask_side // 4 / model.input_side
    assert features.shape == (pretrained.WIDTH, model.mask_side // 4, np.ceil(grid))


@pytest.mark.parametrize("architecture", pretrained.ARCHITECTURES)
def test_each_refines_and_its_noise_is_not_kept(architecture: str, folders: dict[str, Path]) -> None:
    """Random weights: whatever the model says of its masks, without a calibration none may take the mask's place."""
    image, mask = scene()
    method = resolve(overrides={"method": {"model": "hf", "iterations": 2, "mirror": True, "dtype": "float32"}}).method
    [outcome] = single.refine_all(image, [mask], loaded(folders[architecture]), method)
    assert outcome.refined.shape == mask.shape
    assert outcome.calibration_id == "uncalibrated-1"
    assert outcome.decision.kept == "coarse"
    np.testing.assert_array_equal(outcome.mask, mask)


def test_the_encoders_work_is_counted(folders: dict[str, Path]) -> None:
    """Of a ViT: patches, two blocks with their MLPs, one of them in padded windows, and the neck; attention comes on
    top of it."""
    tokens, width, padded = 16 * 16, 32, 28 * 28
    linear = 2 * (tokens * 3 * 16 * 16 * width + (tokens + padded) * 4 * width**2 + 2 * tokens * 2 * width * 64)
    neck = 2 * tokens * (width * width + 9 * width * width)
    counted = counted_tflop(loaded(folders["sam"])) * 1e12
    assert linear + neck < counted < 3 * (linear + neck)


@pytest.mark.parametrize("architecture", pretrained.ARCHITECTURES)
def test_its_dtype_changes_no_count(architecture: str, folders: dict[str, Path]) -> None:
    model = loaded(folders[architecture], dtype="bfloat16")
    assert counted_tflop(model) == counted_tflop(loaded(folders[architecture]))
    assert model.autocast_dtype == torch.bfloat16


def test_bfloat16_is_the_encoders_and_keeps_close(folders: dict[str, Path]) -> None:
    image = scene()[0]
    answers = []
    for dtype in ("float32", "bfloat16"):
        model = loaded(folders["sam2"], dtype=dtype)
        embedding = model.encode([input_for(model, image)])
        assert {one.dtype for one in embedding.maps} == {torch.float32}
        answers.append(model.predict(embedding, prompts(model, [0])).logits)
    assert not np.array_equal(*answers)
    assert np.corrcoef(answers[0].ravel(), answers[1].ravel())[0, 1] > 0.99


def test_an_adapter_is_learnt_and_merged(folders: dict[str, Path], tmp_path: Path) -> None:
    """IoU adaption reads the head's inputs and predicts from them what the model says; of both kinds of head."""
    for architecture in ("sam_hq", "sam2"):
        model = loaded(folders[architecture])
        embedding = model.encode([input_for(model, scene()[0])])
        boxes = np.array([[200, 150, 700, 800], [100, 100, 500, 400]], np.float32)
        asked = PromptBatch(np.zeros(2, np.int64), None, None, boxes, None, None)
        candidates, inputs = adapter.head_inputs(model, embedding, asked)
        np.testing.assert_allclose(adapter.predicted_iou(model, inputs), candidates.predicted_iou, atol=1e-5)
        agreement = np.array([[0.1, 0.9, 0.2], [0.3, 0.8, 0.1]], np.float32)
        ranking = adapter.Ranking(
            np.tile(inputs, (20, 1, 1) if inputs.ndim == 3 else (20, 1)), np.tile(agreement, (20, 1))
        )
        made = adapter.train(model, ranking, rank=2, seed=0, note={})
        path = tmp_path / f"{architecture}.safetensors"
        path.write_bytes(made)
        adapter.apply(model, path)
        merged = model.predict(embedding, asked).predicted_iou
        np.testing.assert_allclose(
            merged, adapter.predicted_iou(loaded(folders[architecture]), inputs, made), atol=1e-4
        )


def test_a_name_stands_for_its_architecture(folders: dict[str, Path]) -> None:
    named = weights.resolve("sam2.1-large", str(folders["sam2"]), Access())
    assert load_model("sam2.1-large", named, "cpu", 2).name == "sam2.1-large"
    other = weights.resolve("sam-hq-h", str(folders["sam2"]), Access())
    with pytest.raises(RefusedError, match="is no sam-hq-h: it holds a sam2; `--model hf` takes it"):
        load_model("sam-hq-h", other, "cpu", 2)
    with pytest.raises(RefusedError, match="model hf needs --checkpoint: a folder as save_pretrained writes it"):
        weights.resolve("hf", None, Access())
    with pytest.raises(RefusedError, match="does not exist, or is no folder"):
        weights.resolve("hf", str(folders["sam"] / "config.json"), Access())


def test_a_checkpoint_of_the_video_model_holds_the_image_model(folders: dict[str, Path], tmp_path: Path) -> None:
    """As the published ones of SAM 2 are."""
    from transformers import Sam2VideoConfig, Sam2VideoModel

    prompts_of = {"hidden_size": pretrained.WIDTH, "image_size": SIDE}
    small = {"prompt_encoder_config": prompts_of, "mask_decoder_config": pretrained.DECODER}
    memory = {
        "memory_attention_hidden_size": 32, "memory_attention_feed_forward_hidden_size": 32,
        "memory_encoder_hidden_size": 32, "memory_encoder_output_channels": 16, "memory_fuser_embed_dim": 32,
        "mask_downsampler_embed_dim": 32, "memory_fuser_intermediate_dim": 32, "memory_attention_num_layers": 1,
    }  # fmt: skip
    config = Sam2VideoConfig(vision_config=pretrained.sam2_vision(SIDE), **small, **memory)
    pretrained.fill(Sam2VideoModel(config)).save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "sam2_video"
    image, asked = scene()[0], None
    answers = []
    for given in (tmp_path, folders["sam2"]):
        model = loaded(given)
        asked = prompts(model, [0])
        answers.append(model.predict(model.encode([input_for(model, image)]), asked).logits)
    np.testing.assert_array_equal(*answers)
