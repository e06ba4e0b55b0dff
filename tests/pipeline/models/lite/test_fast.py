"""The inference form of `lite` computes what the network that was trained computes."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models.device.transfer import PromptTensors
from pipeline.models.fused import FusedConv
from pipeline.models.lite.backbone import SameConv
from pipeline.models.lite.fast import FastDecoder, FastEncoder, fast_outline_band, mask_facts
from pipeline.models.lite.model import LiteModel
from pipeline.models.lite.network import ImageFeatures, LiteNetwork, load_weights, outline_band
from pipeline.models.lite.network import mask_facts as plain_facts
from pipeline.models.weights import LITE_WEIGHTS
from pipeline.refiners import REFINERS, RefineImage
from schemas.config import Method
from tests.conftest import DEMO, ROOT

SIDE = 512


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    """Relative to the largest value."""
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max().clamp_min(1))


@pytest.fixture(scope="module")
def network() -> LiteNetwork:
    network = LiteNetwork()
    load_weights(network, LITE_WEIGHTS.read_bytes())
    return network.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def features(network: LiteNetwork) -> ImageFeatures:
    with torch.inference_mode():
        return network.encoder(images())


def images() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(1, 3, SIDE, SIDE).contiguous(memory_format=torch.channels_last)


def prompts(count: int, *absent: str) -> PromptTensors:
    torch.manual_seed(1)
    coarse = torch.zeros(count, SIDE // 2, SIDE // 2)
    coarse[:, 40:120, 60:200] = 1
    whole = PromptTensors(
        torch.zeros(count, dtype=torch.int64),
        torch.rand(count, 2, 2) * 1000,
        torch.tensor([[1, 0], [1, -1], [1, 0]])[:count],
        torch.tensor([[240.0, 160, 800, 480]]).expand(count, -1),
        30 * coarse - 15,
        coarse,
    )
    return whole._replace(**dict.fromkeys(absent))


@torch.inference_mode()
def test_the_encoder_agrees(network: LiteNetwork, features: ImageFeatures) -> None:
    for name, found, expected in zip(
        ImageFeatures._fields, FastEncoder(network.encoder)(images()), features, strict=True
    ):
        assert close(found, expected), name


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("absent", [(), ("mask_logits", "coarse"), ("points_xy", "point_labels", "boxes_xyxy")])
@torch.inference_mode()
def test_the_decoder_agrees(network: LiteNetwork, features: ImageFeatures, count: int, absent: tuple[str, ...]) -> None:
    decoder, given = FastDecoder(network.decoder, SIDE // 16), prompts(count, *absent)
    for found, expected in zip(decoder(features, given), network.decoder(features, given), strict=True):
        assert close(found, expected, 1e-4)


@torch.inference_mode()
def test_facts_agree() -> None:
    torch.manual_seed(2)
    logits, coarse = 3 * torch.randn(2, 3, 64, 64), torch.rand(2, 64, 64)
    for given in (coarse, None):
        torch.testing.assert_close(mask_facts(logits, given), plain_facts(logits, given), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_outline_bands_are_the_same() -> None:
    """Ragged masks, whole and empty ones, and those that touch the border."""
    torch.manual_seed(4)
    ragged = nn.functional.interpolate(torch.randn(2, 3, 9, 12), size=(72, 96), mode="bilinear")
    plain = torch.cat([torch.full_like(ragged, 5), torch.full_like(ragged, -5), ragged, torch.randn_like(ragged)])
    band = fast_outline_band(plain)
    assert torch.equal(band, outline_band(plain))
    assert 0 < band[4:6].mean() < 1


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@pytest.mark.parametrize(("kernel", "stride", "groups"), [(1, 1, 1), (3, 1, 8), (3, 2, 1), (5, 2, 8)])
@torch.inference_mode()
def test_one_call_is_convolution_sum_and_activation(
    kernel: int, stride: int, groups: int, activation: str, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    conv = SameConv(8, 8, kernel, stride, groups)
    x = torch.randn(2, 8, 12, 16).contiguous(memory_format=torch.channels_last)
    before = None if conv.extra is None else conv.extra[0]
    made = FusedConv(conv, activation, before)  # type: ignore[arg-type]
    monkeypatch.setattr(made, "_onednn", fused and made._onednn)
    after = {"none": nn.Identity(), "relu": nn.ReLU(), "relu6": nn.ReLU6()}[activation]
    plain = conv(x)
    other = torch.randn_like(plain)
    assert close(made(x), after(plain))
    assert close(made(x, other), after(plain + other))


@torch.inference_mode()
def test_bfloat16_gives_nearly_the_same_mask(network: LiteNetwork) -> None:
    photo = np.asarray(Image.open(DEMO / "images" / "chelsea.jpg").convert("RGB"))
    exact, short = LiteModel(), LiteModel(dtype=torch.bfloat16)
    rows, columns = np.ogrid[: photo.shape[0], : photo.shape[1]]
    coarse = binary.encode((rows - 120) ** 2 + (columns - 170) ** 2 < 40**2)
    frame = Frame((photo.shape[0], photo.shape[1]), 512)
    image = RefineImage(resize_to_input(photo, 512), frame, [coarse, coarse])
    method = Method(iterations=1, mirror=True)
    found = [REFINERS["samrefiner"].run(model, [image], method)[0][0] for model in (exact, short)]
    first, second = (binary.decode(mask.rle) for mask in found)
    assert binary.iou(first, second) >= 0.99
    assert found[0].rle != found[1].rle, "it did compute in bfloat16"
    assert abs(found[0].scores["predicted_iou"] - found[1].scores["predicted_iou"]) < 0.02
    features = short.features(short.encode([image.pixels]), 0)
    assert features.dtype == np.float32


@pytest.mark.parametrize(("inputs", "outputs", "kernel", "groups"), [(24, 24, 5, 24), (24, 40, 1, 1), (16, 16, 3, 1)])
def test_packed_weights_give_the_same_bits(inputs: int, outputs: int, kernel: int, groups: int) -> None:
    torch.manual_seed(3)
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)
    fused = FusedConv(conv, "relu6")
    if not fused._onednn:
        pytest.skip("torch was built without oneDNN")
    for side in (32, 20, 32):
        x = torch.randn(2, inputs, side, side).contiguous(memory_format=torch.channels_last)
        plain = torch.ops.mkldnn._convolution_pointwise(
            x, fused._weight, fused._bias, *fused._geometry, "hardtanh", [0.0, 6.0], ""
        )
        with torch.inference_mode():
            assert torch.equal(fused(x), plain)


def test_an_actor_starts_without_torchvision_and_torchs_compiler() -> None:
    script = "import sys, pipeline.models.lite.model; print(*{'torchvision', 'torch._dynamo'} & set(sys.modules))"
    script += "; from segment_anything import build_sam, modeling; from pipeline.models import sam_layers as layers"
    script += "; assert modeling.PromptEncoder is layers.PromptEncoder"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
