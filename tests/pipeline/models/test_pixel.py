"""Exported models and CascadePSP: the real loaders on real networks, with weights made here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.errors import JobError, RefusedError
from pipeline.masks import binary
from pipeline.masks.frames import ORIGINAL_SIZE, Frame
from pipeline.models import load_model
from pipeline.models import pixel as pixel_models
from pipeline.models.weights import resolve
from pipeline.refiners import REFINERS, RefineImage
from pipeline.storage import Access
from schemas.config import Method

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
MASK = np.zeros((40, 60), np.uint8)
MASK[10:30, 20:50] = 1


class BrightWithin(torch.nn.Module):
    """Foreground where the coarse mask is and red is above half: looks at both inputs."""

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return (image[:, :1] > 0.5).float() * mask


class Logits(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return 10 * mask - 5


class Smaller(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mask[:, :, ::2, ::2]


def export(module: torch.nn.Module, folder: Path) -> pixel_models.TorchScriptModel:
    path = folder / "model.pt"
    torch.jit.save(torch.jit.script(module), str(path))
    model = load_model("torchscript", resolve("torchscript", str(path), Access()), "cpu", 1)
    assert isinstance(model, pixel_models.TorchScriptModel)
    return model


def test_an_exported_model_refines_through_the_registry(tmp_path: Path) -> None:
    model = export(BrightWithin(), tmp_path)
    image = RefineImage(IMAGE, Frame((40, 60), ORIGINAL_SIZE), [binary.encode(MASK)])
    [[refined]] = REFINERS["torchscript"].run(model, [image], Method(refiner="torchscript"))
    np.testing.assert_array_equal(binary.decode(refined.rle), MASK * (IMAGE[..., 0] > 127))


def test_a_model_of_torch_export_is_taken_too(tmp_path: Path) -> None:
    dynamic = {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    example = torch.zeros(1, 3, 16, 24), torch.zeros(1, 1, 16, 24)
    program = torch.export.export(BrightWithin(), example, dynamic_shapes=(dynamic, dynamic))
    torch.export.save(program, tmp_path / "model.pt2")
    model = load_model("torchscript", resolve("torchscript", str(tmp_path / "model.pt2"), Access()), "cpu", 1)
    assert isinstance(model, pixel_models.TorchScriptModel)
    np.testing.assert_array_equal(model.probability(IMAGE, MASK), MASK * (IMAGE[..., 0] > 127))


@pytest.mark.parametrize(("module", "message"), [(Logits(), "outside \\[0, 1\\]"), (Smaller(), "\\(1, 1, 20, 30\\)")])
def test_answers_that_are_no_probability_stop_the_job(module: torch.nn.Module, message: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=message):
        export(module, tmp_path).probability(IMAGE, MASK)


def test_a_file_that_is_no_exported_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pt").write_bytes(b"not a model")
    with pytest.raises(RefusedError, match=r"not a model saved by torch\.jit\.save"):
        load_model("torchscript", resolve("torchscript", str(tmp_path / "model.pt"), Access()), "cpu", 1)


@pytest.mark.parametrize("name", ["torchscript", "cascadepsp"])
def test_weights_must_be_brought(name: str) -> None:
    with pytest.raises(RefusedError, match=f"model {name} needs --checkpoint"):
        resolve(name, None, Access())


def test_cascadepsp_is_the_packages_own_refiner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = pytest.importorskip("segmentation_refinement", reason="the extra cascadepsp is not installed")
    from segmentation_refinement.models.psp.pspnet import RefinementModule

    torch.manual_seed(0)
    weights = RefinementModule().state_dict()
    torch.save({f"module.{name}": value for name, value in weights.items()}, tmp_path / "model")
    monkeypatch.setattr(pixel_models, "CASCADE_SIDE_PX", 96)  # the package's 900 takes long on a CPU
    model = load_model("cascadepsp", resolve("cascadepsp", str(tmp_path / "model"), Access()), "cpu", 1)
    reference = package.Refiner(device="cpu", model_folder=str(tmp_path), download_and_check_model=False)
    expected = reference.refine(IMAGE, MASK * 255, L=96) / 255
    assert isinstance(model, pixel_models.CascadePspModel)
    found = model.probability(IMAGE, MASK)
    np.testing.assert_allclose(found, expected, atol=1.5 / 255)
    assert found.std() > 0  # not a constant that anything would equal


def test_cascadepsp_refuses_other_weights(tmp_path: Path) -> None:
    pytest.importorskip("segmentation_refinement", reason="the extra cascadepsp is not installed")
    torch.save({"module.weight": torch.zeros(1)}, tmp_path / "model")
    with pytest.raises(RefusedError, match="does not hold CascadePSP's weights"):
        load_model("cascadepsp", resolve("cascadepsp", str(tmp_path / "model"), Access()), "cpu", 1)
