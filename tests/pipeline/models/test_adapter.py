"""Adapters of the IoU head: trained from a ranking, merged when loaded, refused where they do not belong."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from segment_anything import sam_model_registry

from pipeline.errors import RefusedError
from pipeline.models import PromptBatch, adapter, load_model
from pipeline.models.adapter import AdaptableModel, Ranking
from pipeline.models.weights import adapter_metadata, hash_file, resolve, with_adapter
from pipeline.storage import Access
from tests.pipeline.models_fixture import tiny_sam

Load = Callable[[Path | None], AdaptableModel]


@pytest.fixture(params=["lite", "vit_b"])
def load_with(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads lite, or a tiny SAM in the place of vit_b, with an adapter or without."""
    checkpoint = None
    if request.param == "vit_b":
        monkeypatch.setitem(sam_model_registry, "vit_b", tiny_sam)
        torch.manual_seed(0)
        checkpoint = str(tmp_path / "tiny.pth")
        torch.save(tiny_sam().state_dict(), checkpoint)

    def loaded(path: Path | None) -> AdaptableModel:
        weights = resolve(request.param, checkpoint, Access())
        return load_model(request.param, weights if path is None else with_adapter(weights, str(path)), "cpu", 1)

    return loaded


def boxes(count: int) -> PromptBatch:
    corners = np.random.default_rng(1).uniform(100, 900, (count, 2, 2))
    xyxy = np.sort(corners, axis=1).reshape(count, 4).astype(np.float32)
    return PromptBatch(np.zeros(count, np.int64), None, None, xyxy, None, None)


def examples(model: AdaptableModel, count: int = 12) -> tuple[object, np.ndarray, np.ndarray]:
    """An embedding of noise; for some boxes the head's inputs, and the model's own predicted IoU."""
    frame = np.random.default_rng(0).integers(0, 256, (model.input_side, model.input_side, 3), dtype=np.uint8)
    embedding = model.encode([frame])
    candidates, inputs = adapter.head_inputs(model, embedding, boxes(count))
    return embedding, inputs, candidates.predicted_iou


def trained(model: AdaptableModel, inputs: np.ndarray, agreement: np.ndarray) -> bytes:
    ranking = Ranking(np.concatenate([inputs] * 40), np.concatenate([agreement] * 40))
    return adapter.train(model, ranking, rank=4, seed=0, note={"of": "a test"})


def test_an_adapter_teaches_the_choice_and_is_merged_when_loaded(load_with: Load, tmp_path: Path) -> None:
    model = load_with(None)
    embedding, inputs, plain = examples(model)
    assert adapter.predicted_iou(model, inputs) == pytest.approx(plain, abs=1e-5)
    agreement = np.eye(3, dtype=np.float32)[[2] * 12]  # always the last one
    content = trained(model, inputs, agreement)
    taught = adapter.predicted_iou(model, inputs, content)
    wanted = torch.full((12,), 2)
    losses = [adapter._ranking_loss(torch.from_numpy(scores), wanted).item() for scores in (plain, taught)]
    assert losses[1] < losses[0]
    assert len(content) < 100_000
    path = tmp_path / "a.safetensors"
    path.write_bytes(content)
    adapted = load_with(path).predict(embedding, boxes(12))
    assert adapted.predicted_iou == pytest.approx(taught, abs=1e-5)
    assert np.array_equal(adapted.logits, model.predict(embedding, boxes(12)).logits)
    assert content == trained(model, inputs, agreement)
    assert adapter_metadata(content)["base_sha256"] == model.weights_sha256
    assert adapter_metadata(content)["of"] == "a test"


def test_the_loss_asks_for_a_margin() -> None:
    scores = torch.tensor([[0.9, 0.5, 0.89]])
    assert adapter._ranking_loss(scores, torch.tensor([0])).item() == pytest.approx(0.01)
    assert adapter._ranking_loss(scores, torch.tensor([2])).item() == pytest.approx(0.03)


def rewritten(content: bytes, tensors: dict[str, torch.Tensor] | None = None, **metadata: str) -> bytes:
    return bytes(save(load(content) if tensors is None else tensors, {**adapter_metadata(content), **metadata}))


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda content: rewritten(content, base_sha256="ab" * 32), "was made for lite with weights abababab"),
        (lambda content: rewritten(content, format="lora"), "is not an adapter"),
        (lambda content: b"\x80\x04K\x01.", "is not an adapter"),
        (lambda content: (1 << 62).to_bytes(8, "little") + b"{}", "is not an adapter"),
        (lambda content: (2).to_bytes(8, "little") + b"[]", "is not an adapter"),
        (lambda content: rewritten(content, {"layers.0.a": torch.zeros(4, 5)}), "does not fit"),
        (lambda content: rewritten(content, {**load(content), "more": torch.zeros(1)}), "unknown more"),
    ],
)
def test_what_does_not_fit_is_refused(spoil: Callable[[bytes], bytes], why: str, tmp_path: Path) -> None:
    weights = resolve("lite", None, Access())
    model: AdaptableModel = load_model("lite", weights, "cpu", 1)
    _, inputs, plain = examples(model, 4)
    path = tmp_path / "a.safetensors"
    path.write_bytes(spoil(trained(model, inputs, plain)))
    with pytest.raises(RefusedError, match=why):
        load_model("lite", with_adapter(weights, str(path)), "cpu", 1)


def test_its_hash_is_that_of_the_file(tmp_path: Path) -> None:
    weights = resolve("lite", None, Access())
    model: AdaptableModel = load_model("lite", weights, "cpu", 1)
    _, inputs, plain = examples(model, 4)
    path = tmp_path / "a.safetensors"
    path.write_bytes(trained(model, inputs, plain))
    found = with_adapter(weights, str(path)).adapter
    assert found is not None
    assert found.sha256 == hash_file(path)
    with pytest.raises(RefusedError, match="does not exist"):
        with_adapter(weights, str(tmp_path / "none.safetensors"))
    with pytest.raises(RefusedError, match="no IoU head"):
        load_model("torchscript", with_adapter(scripted(tmp_path, path, model.weights_sha256), str(path)), "cpu", 1)


def scripted(folder: Path, path: Path, base: str) -> object:
    """Weights of a model without an IoU head, and an adapter that says it was made for them."""
    torch.jit.save(torch.jit.script(torch.nn.Identity()), folder / "identity.pt")
    weights = resolve("torchscript", str(folder / "identity.pt"), Access())
    path.write_bytes(rewritten(path.read_bytes(), base_sha256=weights.sha256))
    return weights
