"""`lite` keeps the model protocol: shapes, determinism, independence from neighbours, promptability, size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.masks.frames import Frame
from pipeline.masks.prompts import build_prompts, gaussian_logits
from pipeline.models import MaskModel, PromptBatch
from pipeline.models.lite.model import LiteModel
from pipeline.models.lite.network import LiteNetwork, box_picture, mask_facts
from pipeline.models.lite.training.checkpoint import export
from pipeline.models.weights import LITE_WEIGHTS

MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> LiteModel:
    """The packaged model, or random weights while there are none."""
    if LITE_WEIGHTS.exists():
        return LiteModel()
    torch.manual_seed(0)
    return LiteModel(export(LiteNetwork(), tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def scene() -> tuple[np.ndarray, np.ndarray]:
    """A bright disc on a dark ground, (h, w, 3) uint8 with long side 512, and its mask."""
    rows, columns = np.mgrid[:384, :512]
    mask = ((rows - 180) ** 2 + (columns - 250) ** 2 < 90**2).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 30, (384, 512, 3))
    return (np.where(mask[..., None] > 0, (200, 120, 60), (40, 70, 50)) + noise).astype(np.uint8), mask


def batch_of(masks: list[np.ndarray], image_index: list[int] | None = None) -> PromptBatch:
    frame = Frame((masks[0].shape[0], masks[0].shape[1]), 512)
    prompts = [build_prompts(mask, "code", 4.0) for mask in masks]
    return PromptBatch(
        np.array(image_index or [0] * len(masks), np.int64),
        np.stack([frame.points_to_prompt(p.points.points_xy) for p in prompts]),
        np.stack([p.points.labels for p in prompts]),
        np.stack([frame.box_to_prompt(p.box_xyxy) for p in prompts]),
        np.stack([gaussian_logits(frame.field_to_mask(p.gaussian, 256), 15.0) for p in prompts]),
        np.stack([frame.field_to_mask(mask, 256) for mask in masks]),
    )


def only(batch: PromptBatch, *kept: str) -> PromptBatch:
    """The batch without the optional prompts that are not named."""
    names = ("points_xy", "point_labels", "boxes_xyxy", "mask_logits", "coarse")
    return PromptBatch(batch.image_index, *(getattr(batch, name) if name in kept else None for name in names))


def test_it_is_a_mask_model(model: LiteModel, scene: tuple[np.ndarray, np.ndarray]) -> None:
    protocol: MaskModel = model
    image, mask = scene
    embedding = protocol.encode([image, image[:, :300]])
    assert protocol.features(embedding, 0).shape == (128, 24, 32)
    assert protocol.features(embedding, 1).shape == (128, 24, 19)
    answer = protocol.predict(embedding, batch_of([mask, mask], [1, 0]))
    assert answer.logits.shape == (2, 3, protocol.mask_side, protocol.mask_side)
    assert answer.logits.dtype == answer.predicted_iou.dtype == np.float32
    assert ((answer.predicted_iou >= 0) & (answer.predicted_iou <= 1)).all()
    assert len(protocol.weights_sha256) == 64


def test_a_prompt_does_not_depend_on_its_neighbours(model: LiteModel, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    other = np.roll(mask, 60, axis=1)
    whole = np.ones_like(mask)  # has no negative point, so one token is SAM's "not a point"
    alone = model.predict(model.encode([image]), batch_of([mask]))
    crowd = model.predict(
        model.encode([image[::-1].copy(), image]), batch_of([whole, other, mask, other, mask], [0, 1, 1, 0, 1])
    )
    for row in (2, 4):
        np.testing.assert_allclose(crowd.logits[row], alone.logits[0], atol=2e-4)
        np.testing.assert_allclose(crowd.predicted_iou[row], alone.predicted_iou[0], atol=1e-5)


def test_the_same_call_gives_the_same_bytes(model: LiteModel, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    first, second = (model.predict(model.encode([image]), batch_of([mask] * 3)) for _ in range(2))
    assert first.logits.tobytes() == second.logits.tobytes()
    assert first.predicted_iou.tobytes() == second.predicted_iou.tobytes()


@pytest.mark.parametrize(
    "kept",
    [
        ("boxes_xyxy",),
        ("points_xy", "point_labels"),
        ("points_xy", "point_labels", "boxes_xyxy"),
        ("mask_logits", "coarse"),
    ],
)
def test_any_subset_of_prompts_gets_an_answer(
    model: LiteModel, scene: tuple[np.ndarray, np.ndarray], kept: tuple[str, ...]
) -> None:
    image, mask = scene
    answer = model.predict(model.encode([image]), only(batch_of([mask, mask]), *kept))
    assert np.isfinite(answer.logits).all()
    assert answer.logits.shape[0] == 2


def test_the_strength_of_the_gaussian_does_not_matter(model: LiteModel, scene: tuple[np.ndarray, np.ndarray]) -> None:
    image, mask = scene
    embedding, batch = model.encode([image]), batch_of([mask])
    weak = PromptBatch(
        *(getattr(batch, n) for n in ("image_index", "points_xy", "point_labels", "boxes_xyxy")),
        batch.mask_logits / 15,
        batch.coarse,
    )
    first, second = model.predict(embedding, batch), model.predict(embedding, weak)
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-3)


def test_box_picture_covers_the_box() -> None:
    boxes = torch.tensor([[0.0, 0.0, 511.0, 255.0], [256.0, 128.0, 260.0, 132.0]])
    picture = (box_picture(boxes, 256) + 1) / 2
    inclusive = [(512 / 4) * (256 / 4), (5 / 4) * (5 / 4)]
    np.testing.assert_allclose(picture.sum((1, 2)).numpy(), inclusive, rtol=1e-4)
    assert picture[0, 0, 0] == 1
    assert picture[0, -1, -1] == 0


def test_facts_of_a_certain_mask() -> None:
    logits = torch.full((1, 1, 8, 8), -20.0)
    logits[..., :4] = 20
    coarse = torch.zeros(1, 8, 8)
    coarse[..., :2] = 1
    expected, stability, agreement, squared, given, log_area = mask_facts(logits, coarse)[0, 0]
    np.testing.assert_allclose([expected, stability, agreement, squared, given], [1, 1, 0.5, 0.25, 1], atol=1e-6)
    np.testing.assert_allclose(log_area, np.log(33) / 10, rtol=1e-6)
    assert mask_facts(logits, None)[0, 0, 2:5].tolist() == [0, 0, 0]


def test_the_package_ships_small_weights(scene: tuple[np.ndarray, np.ndarray]) -> None:
    assert LITE_WEIGHTS.stat().st_size <= MAX_BYTES
    assert LITE_WEIGHTS.with_suffix(".md").exists()
    image, mask = scene
    eroded = np.zeros_like(mask)
    eroded[120:240, 190:310] = mask[120:240, 190:310]
    answer = LiteModel().predict(LiteModel().encode([image]), batch_of([eroded]))
    best = answer.logits[0, answer.predicted_iou[0].argmax()]
    refined = Frame((384, 512), 512).logits_to_image(best) > 0
    before = (eroded & mask).sum() / (eroded | mask).sum()
    after = (refined & (mask > 0)).sum() / (refined | (mask > 0)).sum()
    assert after > before


def test_weights_of_another_shape_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"encoder.x": torch.zeros(1)}, tmp_path / "wrong.safetensors")
    with pytest.raises(RuntimeError, match="Missing key"):
        LiteModel(tmp_path / "wrong.safetensors")
