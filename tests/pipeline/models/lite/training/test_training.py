"""Training end to end on four drawn photographs: it runs, resumes exactly, learns, and leaves loadable weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from pipeline.errors import RefusedError
from pipeline.masks.binary import encode
from pipeline.models.lite.model import LiteModel
from pipeline.models.lite.network import LiteNetwork
from pipeline.models.lite.training.config import Event, TrainConfig
from pipeline.models.lite.training.data import Sampler, check_parts, load_photos, part_of
from pipeline.models.lite.training.loop import train
from pipeline.models.lite.training.loss import hard_iou, losses, mask_losses


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gt.json and images/ with a few photographs in every part of the split."""
    root = tmp_path_factory.mktemp("data")
    (root / "images").mkdir()
    rng, images, annotations = np.random.default_rng(0), [], []
    wanted = {"fit": 3, "iou": 1, "val": 1}
    number = 0
    while any(wanted.values()):
        number += 1
        name = f"drawn_{number}.png"
        if not wanted[part_of(name)]:
            continue
        wanted[part_of(name)] -= 1
        mask = np.zeros((120, 160), np.uint8)
        cv2.ellipse(mask, (int(rng.integers(60, 100)), 60), (40, 30), float(rng.uniform(0, 90)), 0, 360, 1, -1)
        image = np.where(mask[..., None] > 0, rng.integers(0, 255, 3), rng.integers(0, 255, 3)).astype(np.uint8)
        cv2.imwrite(str(root / "images" / name), image)
        images.append({"id": number, "file_name": name, "height": 120, "width": 160, "source": "drawn"})
        annotations.append({"id": number, "image_id": number, "segmentation": encode(mask)})
    (root / "gt.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return root


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> TrainConfig:
    """Three steps; everything at side 256."""
    return TrainConfig(
        [folder],
        tmp_path / "run",
        steps=3,
        images=1,
        masks=2,
        workers=0,
        imagenet=False,
        large_side_from=2.0,
        checkpoint_s=1e9,
        validations=1,
    )


def test_training_leaves_weights_that_load_and_reports_every_step(config: TrainConfig) -> None:
    events: list[Event] = []
    weights = train(config, events.append)
    assert [event.step for event in events] == [1, 2, 3, 3]
    assert events[-1].validation is not None
    assert LiteModel(weights).iou_head.correction[2].weight.any(), "the IoU's correction was fitted"
    assert weights.stat().st_size < 12_000_000


def test_a_resumed_run_equals_an_uninterrupted_one(config: TrainConfig, tmp_path: Path) -> None:
    whole = train(config, lambda _: None)
    broken = replace(config, output=tmp_path / "broken", checkpoint_s=0.0)

    class KilledError(Exception):
        """Stands in for a kill signal."""

    def kill_after_the_first(event: Event) -> None:
        raise KilledError

    with pytest.raises(KilledError):
        train(broken, kill_after_the_first)
    assert (broken.output / "checkpoint.pt").exists()
    resumed = train(broken, lambda _: None)
    assert resumed.read_bytes() == whole.read_bytes()


def test_parts_share_no_image_and_hold_most_for_fitting(folder: Path) -> None:
    names = [{photo.name for photo in load_photos(folder, {part})} for part in ("fit", "iou", "val")]
    assert sum(map(len, names)) == len(set.union(*names)) == 5
    shares = [part_of(f"{n}.jpg") for n in range(2000)]
    assert 0.8 < shares.count("fit") / 2000 < 0.9


def test_examples_repeat_and_fit_the_network(folder: Path) -> None:
    photos = load_photos(folder, {"fit"})
    first, second = (Sampler(photos, images=2, masks=2, seed=5).example(7, 256) for _ in range(2))
    assert first.images.shape == (2, 256, 256, 3)
    assert first.prompts.coarse.shape == first.truth.shape == (4, 128, 128)
    assert np.array_equal(first.images, second.images)
    assert np.array_equal(first.prompts.mask_logits, second.prompts.mask_logits)
    assert not np.array_equal(first.images, Sampler(photos, 2, 2, 5).example(8, 256).images)


def test_a_missing_image_is_refused_by_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "gt.json").write_text((folder / "gt.json").read_text())
    with pytest.raises(RefusedError, match=r"drawn_\d+\.png"):
        load_photos(tmp_path, {"fit", "iou", "val"})


def test_the_loss_falls_towards_the_truth() -> None:
    truth = torch.zeros(1, 64, 64)
    truth[:, 20:40, 20:40] = 1
    near, far = torch.roll(truth, 2, dims=2), torch.roll(truth, 10, dims=2)
    logits = torch.stack([truth, near, far], 1) * 16 - 8
    each = mask_losses(logits, truth)[0]
    assert each[0] < 0.1 < each[1] < each[2]
    np.testing.assert_allclose(hard_iou(logits, truth)[0].numpy(), [1, 18 / 22, 10 / 30], rtol=1e-6)


def test_a_poor_candidate_costs_more_where_a_mask_was_given() -> None:
    truth = torch.zeros(1, 64, 64)
    truth[:, 20:40, 20:40] = 1
    logits = torch.stack([truth, truth, torch.roll(truth, 10, dims=2)], 1) * 16 - 8
    predicted = torch.tensor([[1.0, 1.0, 10 / 30]])
    free, bound = (losses(logits, predicted, truth, given) for given in (False, True))
    assert bound.mask > 4 * free.mask
    assert free.iou == bound.iou < 1e-6


def test_the_network_starts_near_the_coarse_mask(folder: Path) -> None:
    from pipeline.models.lite.training.prompting import EVERYTHING, prompt_tensors, to_batch

    torch.manual_seed(0)
    network = LiteNetwork().eval()
    batch = to_batch(Sampler(load_photos(folder, {"fit"}), 1, 3, 0).example(0, 256))
    with torch.inference_mode():
        logits, _ = network.decoder(network.encoder(batch.images), prompt_tensors(batch, EVERYTHING))
    assert hard_iou(logits, batch.prompts.coarse).mean() > 0.85


@pytest.mark.slow
def test_two_processes_share_a_step(folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(
        [folder], tmp_path, steps=1, images=2, masks=1, processes=2, workers=0, imagenet=False, validations=1
    )
    events: list[Event] = []
    weights = train(config, events.append)
    assert [event.step for event in events] == [1, 1]
    assert np.isfinite(events[0].mask_loss)
    assert LiteModel(weights).iou_head.correction[2].weight.any(), "the IoU's correction was fitted"


@pytest.mark.parametrize("absent", ["fit", "iou", "val"])
def test_every_part_needs_an_image_before_anything_is_trained(folder: Path, tmp_path: Path, absent: str) -> None:
    check_parts([folder])
    truth = json.loads((folder / "gt.json").read_text())
    truth["images"] = [entry for entry in truth["images"] if part_of(entry["file_name"]) != absent]
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    with pytest.raises(RefusedError, match=f"with masks falls into '{absent}'"):
        check_parts([tmp_path])
    check_parts([folder, tmp_path])
    truth["images"].append({"id": truth["images"][0]["id"], "file_name": "named.png", "part": absent})
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    check_parts([tmp_path])
