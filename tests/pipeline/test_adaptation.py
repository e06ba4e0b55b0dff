"""`relabel adapt`: examples from images and coarse masks, and no adapter without a gain on unseen images."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import adaptation
from pipeline.adaptation import Examples
from pipeline.masks import binary
from pipeline.models import load_model
from pipeline.models.adapter import AdaptableModel, Ranking
from pipeline.models.weights import adapter_metadata, resolve
from pipeline.refining.chunk import Inputs
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from tests.conftest import DEMO, Cli


@pytest.fixture(scope="module")
def model() -> AdaptableModel:
    loaded: AdaptableModel = load_model("lite", resolve("lite", None, Access()), "cpu", 2)
    return loaded


@pytest.fixture(scope="module")
def examples(model: AdaptableModel) -> Examples:
    store = Store(str(DEMO / "images"))
    listed = {file.path: file for file in store.list()}
    planned = adaptation.sample(scan("coco", SourceInput(str(DEMO / "coarse.json"), Access(), listed)), 100)
    loaded = adaptation.load(planned, listed, Inputs(store, None), model)
    return adaptation.collect(model, loaded, regions=False, on_image=lambda _count: None)


def test_every_mask_gives_an_example(examples: Examples) -> None:
    assert examples.image.tolist() == sorted(examples.image.tolist())
    assert len(examples.image) == len(json.loads((DEMO / "coarse.json").read_text())["annotations"])
    assert examples.ranking.agreement.shape == (10, 3)
    assert examples.ranking.agreement.max() > 0.5
    assert examples.ranking.agreement.min() >= 0


def test_agreement_is_that_of_the_candidates(model: AdaptableModel, examples: Examples) -> None:
    """The choice that the model makes by itself, against its own answer."""
    own = adaptation.chosen(model, examples.ranking, None)
    assert own.shape == (10,)
    assert (own <= examples.ranking.agreement.max(axis=1) + 1e-6).all()


class Head:
    """As much of a model as adaptation uses: three candidates ranked by two linear layers."""

    name = "head"
    weights_sha256 = "0" * 64

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.iou_layers = [torch.nn.Linear(8, 32), torch.nn.Linear(32, 3)]
        self.iou_head = torch.nn.Sequential(*self.iou_layers)

    def to_predicted_iou(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:
        return output


def prompts(learnable: bool, images: int = 120) -> Examples:
    """Four prompts an image; the head's first input tells which candidate is near, or nothing does."""
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(images * 4, 8)).astype(np.float32)
    near = (inputs[:, 0] > 0).astype(np.int64)
    agreement = np.eye(3, dtype=np.float32)[near] if learnable else np.full((images * 4, 3), 0.7, np.float32)
    return Examples(np.repeat(np.arange(images), 4), Ranking(inputs, agreement))


def test_a_gain_on_unseen_images_makes_an_adapter() -> None:
    done = adaptation.adapt(Head(), prompts(learnable=True), held_out=0.3, rank=4, seed=0, epochs=3)
    assert done.after > done.before + 0.2
    assert done.gain_low > 0
    assert done.best == 1.0
    assert (done.fitted_masks, done.held_out_masks, done.held_out_images) == (336, 144, 36)
    assert done.adapter is not None
    assert adapter_metadata(done.adapter)["rank"] == "4"


def test_no_gain_makes_none() -> None:
    done = adaptation.adapt(Head(), prompts(learnable=False), held_out=0.3, rank=4, seed=0)
    assert done.before == done.after == pytest.approx(0.7)
    assert done.adapter is None


def test_the_command_says_so_and_writes_nothing_without_a_gain(relabel: Cli, tmp_path: Path) -> None:
    """Five photographs are far too few to be certain of anything."""
    folders = ("--images", DEMO / "images", "--masks", DEMO / "coarse.json")
    done = relabel("adapt", *folders, "--output", tmp_path / "a.safetensors", "--held-out", "0.5")
    assert done.returncode == 4, done.stderr
    assert "held out" in done.stdout
    assert "no adapter written" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_adapter_of_other_weights_is_refused_before_work(relabel: Cli, tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"not one")
    folders = ("--images", DEMO / "images", "--masks", DEMO / "coarse.json", "--output", tmp_path / "out")
    done = relabel("run", *folders, "--adapter", tmp_path / "a.safetensors")
    assert done.returncode == 2
    assert "is not an adapter" in done.stderr
    assert not (tmp_path / "out" / "plan").exists()


def test_regions_of_a_class_are_examples_of_their_own(model: AdaptableModel) -> None:
    from pipeline.masks.frames import Frame
    from pipeline.refiners import RefineImage

    mask = np.zeros((512, 512), np.uint8)
    mask[10:90, 10:90] = mask[300:480, 320:500] = 1
    image = RefineImage(np.zeros((512, 512, 3), np.uint8), Frame((512, 512), 512), [binary.encode(mask)])
    for regions, count in ((False, 1), (True, 2)):
        assert len(adaptation.collect(model, [image], regions=regions, on_image=lambda _count: None).image) == count
