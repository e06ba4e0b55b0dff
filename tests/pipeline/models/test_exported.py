"""An exported encoder with Segment Anything's decoder, its ONNX file written here byte by byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from pipeline import single
from pipeline.configuration import resolve
from pipeline.errors import RefusedError
from pipeline.masks.scores import stability
from pipeline.models import PromptBatch, frame_for, input_for, load_model, weights
from pipeline.storage import Access
from tests.pipeline.models_fixture import tiny_sam

pytest.importorskip("onnxruntime", reason="the extra `onnx` is not installed")
SIDE, STRIDE = 512, 8


def varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + varint(rest) if rest else bytes([low])


def field(number: int, content: bytes | str | int) -> bytes:
    """One field of a protocol buffer: a number, or bytes with their length."""
    if isinstance(content, int):
        return varint(number << 3) + varint(content)
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def value_info(name: str, shape: tuple[int, ...]) -> bytes:
    sizes = b"".join(field(1, field(1, size)) for size in shape)
    return field(1, name) + field(2, field(1, field(1, 1) + field(2, sizes)))


def attribute(name: str, values: list[int]) -> bytes:
    return field(5, field(1, name) + b"".join(field(8, value) for value in values) + field(20, 7))


def onnx_model(kernel: np.ndarray) -> bytes:
    """One convolution whose stride is its size. kernel: (256, 3, STRIDE, STRIDE) float32."""
    tensor = (
        b"".join(field(1, size) for size in kernel.shape) + field(2, 1) + field(8, "w") + field(9, kernel.tobytes())
    )
    node = field(1, "x") + field(1, "w") + field(2, "y") + field(4, "Conv") + attribute("strides", [STRIDE] * 2)
    shapes = field(11, value_info("x", (1, 3, SIDE, SIDE))) + field(12, value_info("y", (1, 256, 64, 64)))
    graph = field(1, node) + field(2, "encoder") + field(5, tensor) + shapes
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 17))


def config(**changes: Any) -> str:
    content = {
        "format": "relabel-exported-1",
        "input_side": SIDE,
        "view": "padded",
        "mean": [1, 2, 3],
        "std": [4, 5, 6],
    }
    return json.dumps({**content, **changes})


@pytest.fixture
def kernel() -> np.ndarray:
    return (np.random.RandomState(0).standard_normal((256, 3, STRIDE, STRIDE)) / 14).astype(np.float32)


@pytest.fixture
def folder(kernel: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(sam_model_registry, "vit_b", tiny_sam)
    torch.manual_seed(0)
    state = {name: tensor.clone() for name, tensor in tiny_sam().state_dict().items() if "image_encoder" not in name}
    made = tmp_path / "exported"
    made.mkdir()
    save_file(state, made / "decoder.safetensors")
    (made / "encoder.onnx").write_bytes(onnx_model(kernel))
    (made / "config.json").write_text(config())
    return made


def loaded(folder: Path) -> Any:
    return load_model("exported", weights.resolve("exported", str(folder), Access()), "cpu", 1)


def test_the_encoder_is_the_files(folder: Path, kernel: np.ndarray) -> None:
    model = loaded(folder)
    photos = [np.random.default_rng(seed).integers(0, 256, (300, 400, 3), dtype=np.uint8) for seed in range(2)]
    frames = [input_for(model, photo) for photo in photos]
    embedding = model.encode(frames)
    squares = torch.zeros(2, 3, SIDE, SIDE)
    for row, frame in enumerate(frames):
        pixels = (torch.from_numpy(frame.astype(np.float32)) - torch.tensor([1, 2, 3])) / torch.tensor([4, 5, 6])
        squares[row, :, : frame.shape[0]] = pixels.permute(2, 0, 1)
    expected = torch.nn.functional.conv2d(squares, torch.from_numpy(kernel), stride=STRIDE)
    torch.testing.assert_close(embedding.image, expected, atol=1e-3, rtol=1e-4)
    assert frame_for(model, (300, 400)).input_hw == (384, 512)
    assert model.features(embedding, 0).shape == (256, 48, 64)


def test_it_refines(folder: Path) -> None:
    mask = np.zeros((60, 80), np.uint8)
    mask[10:40, 20:60] = 1
    method = resolve(overrides={"method": {"model": "exported", "iterations": 1}}).method
    [outcome] = single.refine_all(np.full((60, 80, 3), 90, np.uint8), [mask], loaded(folder), method)
    assert outcome.refined.shape == mask.shape


def test_where_the_head_is_not_trusted_the_steadiest_candidate_is_chosen(folder: Path) -> None:
    boxes = np.array([[100, 100, 700, 800]], np.float32)
    asked = PromptBatch(np.zeros(1, np.int64), None, None, boxes, None, None)
    frames = [np.zeros((SIDE, SIDE, 3), np.uint8)]
    model = loaded(folder)
    said = model.predict(model.encode(frames), asked)
    (folder / "config.json").write_text(config(choose_by="stability"))
    model = loaded(folder)
    chosen = model.predict(model.encode(frames), asked)
    np.testing.assert_array_equal(chosen.logits, said.logits)
    np.testing.assert_allclose(chosen.predicted_iou[0], [stability(one) for one in said.logits[0]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("config.json", b"{}", "is no exported model: its config.json has no format relabel-exported-1"),
        ("config.json", config(view="sideways").encode(), "view, mean, std or choose_by is wrong"),
        ("config.json", config(input_side=500).encode(), r"input_side \(a multiple of 64\)"),
        ("encoder.onnx", b"no graph", "encoder.onnx of .* cannot be read"),
        ("decoder.safetensors", b"", "decoder.safetensors of .* is damaged"),
    ],
)
def test_a_damaged_folder_is_refused(name: str, content: bytes, said: str, folder: Path) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(RefusedError, match=said) as refused:
        loaded(folder)
    assert "\n" not in str(refused.value)


def test_an_encoder_of_another_size_is_refused(folder: Path, kernel: np.ndarray) -> None:
    (folder / "encoder.onnx").write_bytes(onnx_model(kernel[:128]))
    with pytest.raises(RefusedError, match=r"encoder.onnx of .* (answers|cannot be read|does not run)"):
        loaded(folder).encode([np.zeros((SIDE, SIDE, 3), np.uint8)])
