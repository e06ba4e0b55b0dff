"""What a folder of transformers' says of itself, read from its JSON before any weights are. No torch here.

Of the classes that segment by points, boxes and masks. Coordinates, sides and normalisation come from the folder; where
it does not say them, from the class's own defaults, below.

Nothing about these models was measured: the similarity cut, the presets and what a method starts from are those of
Segment Anything (`models/registry.py`), whose prompt encoder and mask decoder all of them keep.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.errors import RefusedError
from pipeline.extras import require
from pipeline.models import registry
from pipeline.models.folders import CONFIG, MAX_JSON_BYTES
from pipeline.models.registry import ModelSpec, Normalisation
from pipeline.storage import STORE_ERRORS, Access, brief, split_uri

MASK_PER_EMBEDDING = 4
"""Mask prompts and masks are so many times as large as the grid of embeddings, along a side."""
LARGEST_SIDE = 4096

Json = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """A class of transformers that makes masks.

    module, network   where the class is, and its name
    side, patch       of its square and of a patch, in pixels, where the folder does not say
    mean, std         of channels in [0, 1], where the folder does not say
    inside            key of config.json under which it lies in the checkpoints of a larger model
    needs             a module that it takes beside transformers
    """

    name: str
    module: str
    network: str
    stretched: bool
    side: int = 1024
    patch: int = 16
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    inside: str = ""
    needs: str = ""


SAM = Architecture("sam", "sam.modeling_sam", "SamModel", stretched=False)
SAM_HQ = Architecture("sam_hq", "sam_hq.modeling_sam_hq", "SamHQModel", stretched=False)
SAM_2 = Architecture("sam2", "sam2.modeling_sam2", "Sam2Model", stretched=True)
EDGETAM = Architecture("edgetam", "edgetam.modeling_edgetam", "EdgeTamModel", stretched=True, needs="timm")
HALF = (0.5, 0.5, 0.5)
SAM_3 = Architecture(
    "sam3_tracker", "sam3_tracker.modeling_sam3_tracker", "Sam3TrackerModel", stretched=True, side=1008, patch=14,
    mean=HALF, std=HALF,
)  # fmt: skip

ARCHITECTURES: dict[str, Architecture] = {
    "sam": SAM,
    "sam_hq": SAM_HQ,
    "sam2": SAM_2,
    "sam2_video": SAM_2,
    "edgetam": EDGETAM,
    "edgetam_video": EDGETAM,
    "sam3_tracker": SAM_3,
    "sam3_tracker_video": SAM_3,
    "sam3_video": replace(SAM_3, inside="tracker_config"),
}
"""By `model_type` of config.json. Checkpoints of the video models hold the image models."""


def read(name: str, uri: str, access: Access) -> ModelSpec:
    """The spec of the model in a folder, under a registered name. Raises RefusedError."""
    config = read_json_of(uri, CONFIG, access)
    if config is None:
        raise RefusedError(f"{uri} has no {CONFIG}: give a folder as save_pretrained writes it")
    architecture = architecture_of(config, uri)
    wanted = registry.find(name).architecture
    if wanted and architecture.name != wanted:
        raise RefusedError(f"{uri} is no {name}: it holds a {architecture.name}; `--model hf` takes it as what it is")
    processor = _processor(uri, access)
    side, mask_side = _sides(config, architecture, uri)
    return replace(
        registry.find(name),
        input_side=side,
        mask_side=mask_side,
        view=_view(processor, architecture, side, uri),
        normalisation=_normalisation(processor, architecture, uri),
    )


def architecture_of(config: Json, uri: str) -> Architecture:
    """Raises RefusedError for what is none of ours, and for what would have code of its own run."""
    if config.get("auto_map"):
        raise RefusedError(f"{uri} asks for code of its own (auto_map in {CONFIG}), which is never run")
    found = ARCHITECTURES.get(str(config.get("model_type")))
    if found is None:
        known = ", ".join(ARCHITECTURES)
        raise RefusedError(f"{uri} is of model_type {config.get('model_type')!r}; there are {known}")
    if found.needs:
        require(module=found.needs, extra="hf", what=f"model {found.name}")
    return found


def _sides(config: Json, architecture: Architecture, uri: str) -> tuple[int, int]:
    """Input side and mask side in pixels."""
    inner = config.get(architecture.inside) if architecture.inside else config
    prompts = inner.get("prompt_encoder_config") if isinstance(inner, Mapping) else None
    given = prompts if isinstance(prompts, Mapping) else {}
    side = _pixels(given.get("image_size", architecture.side), "image_size", uri)
    patch = _pixels(given.get("patch_size", architecture.patch), "patch_size", uri)
    if side % patch:
        raise RefusedError(f"{CONFIG} of {uri}: image_size {side} is no multiple of patch_size {patch}")
    return side, MASK_PER_EMBEDDING * side // patch


def _pixels(value: Any, key: str, uri: str) -> int:
    """A side in pixels, given once or for both axes."""
    sides = value if isinstance(value, list) else [value]
    if len(set(map(str, sides))) != 1 or not isinstance(sides[0], int) or not 1 <= sides[0] <= LARGEST_SIDE:
        raise RefusedError(f"{CONFIG} of {uri}: {key} is {value!r}, not a number of pixels up to {LARGEST_SIDE}")
    return sides[0]


def _processor(uri: str, access: Access) -> Json:
    """How the folder wants images prepared; empty where it does not say."""
    given = read_json_of(uri, "preprocessor_config.json", access)
    if given is None:
        given = (read_json_of(uri, "processor_config.json", access) or {}).get("image_processor")
    return given if isinstance(given, Mapping) else {}


def _view(processor: Json, architecture: Architecture, side: int, uri: str) -> Any:
    """Whether images are padded or stretched: `size` names their long side, or both."""
    size = processor.get("size")
    if not isinstance(size, Mapping):
        return "stretched" if architecture.stretched else "padded"
    if set(size.values()) != {side}:
        raise RefusedError(f"{uri} resizes images to {dict(size)}, and its {CONFIG} says {side}")
    return "padded" if "longest_edge" in size else "stretched"


def _normalisation(processor: Json, architecture: Architecture, uri: str) -> Normalisation:
    """Of values in [0, 255]."""
    normalises = processor.get("do_normalize", True)
    mean = processor.get("image_mean", architecture.mean) if normalises else (0, 0, 0)
    std = processor.get("image_std", architecture.std) if normalises else (1, 1, 1)
    scale = processor.get("rescale_factor", 1 / 255) if processor.get("do_rescale", True) else 1
    try:
        return Normalisation(_channels(mean, scale), _channels(std, scale))
    except (TypeError, ValueError, ZeroDivisionError):
        raise RefusedError(
            f"{uri}: image_mean, image_std or rescale_factor is not what normalises three channels"
        ) from None


def _channels(values: Sequence[float], scale: float) -> tuple[float, float, float]:
    red, green, blue = (round(value / scale, 6) for value in values)
    return red, green, blue


def read_json_of(uri: str, name: str, access: Access) -> Json | None:
    """A file of the folder; None where it is not there."""
    try:
        store, path = split_uri(f"{uri.rstrip('/')}/{name}", access)
        size = store.size(path)
        content = json.loads(store.read(path, size)) if size <= MAX_JSON_BYTES else None
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, RecursionError):
        content = None
    except STORE_ERRORS as error:
        raise RefusedError(f"cannot read {name} of {uri}: {brief(error)}") from None
    if not isinstance(content, dict):
        raise RefusedError(f"{name} of {uri} is not a JSON object")
    return content
