"""What frozen networks make of windows: features at several strides, so that what learns from labels can be small.

They were trained to classify ImageNet's photographs. Those of `lite` know from its training what a refined mask looks
like: a segmenter on them is no independent judge, so they are taken only where they are asked for.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torchvision.models import get_model, get_model_weights
from torchvision.models.feature_extraction import create_feature_extractor

from pipeline.errors import RefusedError
from pipeline.extras import install_command
from pipeline.models.lite.backbone import Lite0Backbone
from pipeline.models.lite.model import normalise
from pipeline.models.lite.network import ImageFeatures, LiteNetwork, load_weights
from pipeline.models.lite.training.imagenet import load_imagenet
from pipeline.models.weights import LITE_WEIGHTS
from pipeline.storage import brief

BATCH = 8
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Features(NamedTuple):
    """A frozen network. maps: (B, S, S, 3) uint8 RGB -> features (B, C, S/4, S/4), (B, C', S/8, S/8), ...; digest: of
    its weights.
    """

    name: str
    maps: Callable[[Tensor], list[Tensor]]
    digest: str


@torch.inference_mode()
def of_windows(features: Features, windows: Sequence[npt.NDArray]) -> list[Tensor]:  # type: ignore[type-arg]
    """N windows (S, S, 3) uint8 RGB -> (N, C, h, w) float16 for each stride, the finest first."""
    found = []
    for start in range(0, len(windows), BATCH):
        batch = torch.stack([torch.from_numpy(window) for window in windows[start : start + BATCH]])
        found.append([each.half() for each in features.maps(batch)])
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


def _efficientnet(name: str) -> Features:
    backbone = Lite0Backbone()
    load_imagenet(backbone)
    return _frozen(name, backbone, lambda windows: backbone(normalise(windows))[1:])


def _lite(name: str) -> Features:
    network = LiteNetwork()
    load_weights(network, LITE_WEIGHTS.read_bytes())

    def maps(windows: Tensor) -> list[Tensor]:
        found: ImageFeatures = network.encoder(normalise(windows))
        return [found.skip4, found.skip8, found.embedding]

    return _frozen(name, network, maps)


def _resnet(name: str) -> Features:
    """torchvision's; its weights from torch's cache, or fetched into it."""
    network = get_model(name)
    weights = get_model_weights(name)["DEFAULT"]
    network.load_state_dict(weights.get_state_dict(progress=False, check_hash=True, weights_only=True))
    taps = create_feature_extractor(network.eval(), {f"layer{number}": str(number) for number in range(1, 5)})
    mean, std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    return _frozen(name, taps, lambda windows: list(taps(((windows - mean) / std).permute(0, 3, 1, 2)).values()))


def _frozen(name: str, network: nn.Module, maps: Callable[[Tensor], list[Tensor]]) -> Features:
    network.eval().requires_grad_(False)
    digest = hashlib.sha256()
    for tensor in network.state_dict().values():
        digest.update(tensor.contiguous().numpy().tobytes())
    return Features(name, maps, digest.hexdigest())


FEATURES: dict[str, Callable[[str], Features]] = {
    "efficientnet-lite0": _efficientnet,
    "resnet18": _resnet,
    "resnet50": _resnet,
    "lite": _lite,
}
DEFAULT, CIRCULAR = "efficientnet-lite0", "lite"


def load(name: str, threads: int) -> Features:
    """A frozen network by name. Raises RefusedError in one line where there is none, or its weights cannot be had."""
    torch.set_num_threads(threads)
    if name not in FEATURES:
        raise RefusedError(f"--features {name}: there are {', '.join(FEATURES)}")
    others = f"--features {', '.join(other for other in FEATURES if other not in (name, CIRCULAR))} are others"
    try:
        return FEATURES[name](name)
    except RefusedError:
        why = f"its ImageNet weights are not installed: {install_command('value')}"
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:  # no network; another file
        why = f"its ImageNet weights are not in {torch.hub.get_dir()}/checkpoints and cannot be fetched: {brief(error)}"
    raise RefusedError(f"--features {name}: {why}; {others}, and {CIRCULAR} needs nothing, but is no independent judge")
