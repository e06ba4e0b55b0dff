"""The fast image encoder computes what segment-anything's does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from pipeline.models import sam_encoder
from pipeline.models.sam_encoder import CompiledEncoder, FastEncoder, preferred_dtype
from tests.pipeline.models_fixture import tiny_sam

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 5e-3}


@pytest.fixture(scope="module")
def encoder() -> ImageEncoderViT:
    """Random, with relative positions that matter (segment-anything's start at zero)."""
    torch.manual_seed(0)
    encoder = tiny_sam().image_encoder.requires_grad_(False).eval()
    for name, tensor in encoder.named_parameters():
        if "rel_pos" in name or "pos_embed" in name or name.endswith("bias"):
            torch.nn.init.normal_(tensor, std=0.5)
    return encoder


@pytest.fixture(scope="module")
def images() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 1024, 1024)


@pytest.fixture(scope="module")
def expected(encoder: ImageEncoderViT, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return encoder(images)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("dtype", list(TOLERANCE))
@torch.inference_mode()
def test_it_agrees(encoder: ImageEncoderViT, images: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    found = FastEncoder(encoder, dtype)(images)
    assert found.dtype == torch.float32
    assert relative_error(found, expected) < TOLERANCE[dtype]


@torch.inference_mode()
def test_blocks_of_any_size_agree(
    encoder: ImageEncoderViT, images: Tensor, expected: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for elements, tokens in ((1, 100), (1 << 40, 1 << 40)):
        monkeypatch.setitem(sam_encoder.BIAS_ELEMENTS, "cpu", elements)
        monkeypatch.setitem(sam_encoder.MLP_TOKENS, "cpu", tokens)
        assert relative_error(FastEncoder(encoder)(images[:1]), expected[:1]) < 1e-5


def test_the_original_is_left_as_it_is(encoder: ImageEncoderViT) -> None:
    before = {name: tensor.dtype for name, tensor in encoder.state_dict().items()}
    FastEncoder(encoder, torch.bfloat16)
    assert {name: tensor.dtype for name, tensor in encoder.state_dict().items()} == before


def test_a_cpu_without_bfloat16_computes_in_float32() -> None:
    supported = torch.cpu._is_avx512_bf16_supported()
    assert preferred_dtype("cpu") == (torch.bfloat16 if supported else torch.float32)


@torch.inference_mode()
def test_products_of_any_size_agree(
    encoder: ImageEncoderViT, images: Tensor, expected: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast = FastEncoder(encoder, torch.bfloat16)
    whole = fast(images[:1])
    assert relative_error(whole, expected[:1]) < 5e-3
    monkeypatch.setattr(sam_encoder, "SCORES_AT_ONCE", 1)
    monkeypatch.setattr(sam_encoder, "ROWS_AT_ONCE", 7)  # the last block is smaller
    assert relative_error(fast(images[:1]), whole) < 1e-3


def test_biases_are_the_same_sums_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = (torch.randn(3, 5, 7, count).bfloat16() for count in (6, 7))  # 5 rows of queries of a 6 x 7 grid
    by_product = sam_encoder._bias(rows, columns)
    monkeypatch.setattr(sam_encoder, "MANY_TOKENS", 0)
    assert by_product.shape == (3, 5 * 7, 6 * 7)
    assert torch.equal(by_product, sam_encoder._bias(rows, columns))


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_it_agrees_for_any_number_of_images(
    encoder: ImageEncoderViT, images: Tensor, expected: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    compiled = CompiledEncoder(FastEncoder(encoder), batch=2)
    assert relative_error(compiled(images), expected) < 1e-5
    three = torch.cat([images, images[:1]])
    found = compiled(three)  # the last filled up to two
    assert relative_error(found, torch.cat([expected, expected[:1]])) < 1e-5
    assert torch.equal(found, compiled(three))
    assert any(tmp_path.rglob("*"))  # the next process finds it there
