"""The fast image encoder computes what segment-anything's does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from pipeline.models import sam_attention, sam_linear
from pipeline.models.encoder_batches import CompiledEncoder, FixedBatch
from pipeline.models.sam_attention import Attention
from pipeline.models.sam_encoder import FastEncoder, Patches, preferred_dtype
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
def test_patches_by_one_product_are_the_convolution(encoder: ImageEncoderViT, images: Tensor) -> None:
    convolution = encoder.patch_embed.proj
    found, expected = Patches(convolution, torch.float32)(images), convolution(images)
    assert found.shape == expected.shape
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("attention", ["bias", "folded", "flex"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@torch.inference_mode()
def test_every_way_of_attention_agrees(
    encoder: ImageEncoderViT, images: Tensor, expected: Tensor, attention: Attention, dtype: torch.dtype
) -> None:
    found = FastEncoder(encoder, dtype, attention)(images[:1])
    assert relative_error(found, expected[:1]) < TOLERANCE[dtype]


@torch.inference_mode()
def test_channels_are_filled_up_for_the_fused_kernels() -> None:
    for side, channels, wide in ((14, 80, 112), (14, 64, 96), (64, 80, 208), (64, 64, 192)):
        places = sam_attention.places_of(side, channels)
        assert places.shape == (side * side, wide - channels)
        assert places.sum(1).eq(2).all()


@torch.inference_mode()
def test_eight_bits_are_near(encoder: ImageEncoderViT, images: Tensor, expected: Tensor) -> None:
    found = FastEncoder(encoder, torch.bfloat16, "folded", float8=True)(images[:1])
    assert 1e-3 < relative_error(found, expected[:1]) < 0.1
    values = torch.randn(5, 40) * torch.logspace(-6, 6, 5)[:, None]
    in_8_bits, scale = sam_linear.in_8_bits(values)
    torch.testing.assert_close(in_8_bits.float() * scale, values, rtol=0.07, atol=0)


@torch.inference_mode()
def test_a_fixed_batch_is_filled_up_and_taken_in_turns() -> None:
    shown = []

    def encoder(images: Tensor) -> Tensor:
        shown.append(images.shape)
        return images * 2

    images = torch.randn(5, 3, 4, 4)
    assert torch.equal(FixedBatch(encoder, 2)(images), images * 2)
    assert shown == [(2, 3, 4, 4)] * 3


@torch.inference_mode()
def test_blocks_of_any_size_agree(
    encoder: ImageEncoderViT, images: Tensor, expected: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for elements, tokens in ((1, 100), (1 << 40, 1 << 40)):
        monkeypatch.setitem(sam_attention.BIAS_ELEMENTS, "cpu", elements)
        monkeypatch.setitem(sam_linear.MLP_TOKENS, "cpu", tokens)
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
    monkeypatch.setattr(sam_attention, "SCORES_AT_ONCE", 1)
    monkeypatch.setattr(sam_attention, "ROWS_AT_ONCE", 7)  # the last block is smaller
    assert relative_error(fast(images[:1]), whole) < 1e-3


def test_biases_are_the_same_sums_in_both_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, columns = (torch.randn(3, 5, 7, count).bfloat16() for count in (6, 7))  # 5 rows of queries of a 6 x 7 grid
    by_product = sam_attention.bias_of(rows, columns)
    monkeypatch.setattr(sam_attention, "MANY_TOKENS", 0)
    assert by_product.shape == (3, 5 * 7, 6 * 7)
    assert torch.equal(by_product, sam_attention.bias_of(rows, columns))


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
