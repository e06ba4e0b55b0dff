"""Folders as transformers' save_pretrained writes them: each architecture with a hundredth of its weights.

Every weight follows from its name and shape alone, so that figures of the original packages, computed elsewhere from
the same weights, can be compared with (tests/golden/originals.npz).
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

WIDTH = 32
"""Of embeddings and decoder. What the originals do not let one choose is as in them: 8 heads, 2048 in the MLPs, ..."""
DECODER = {"hidden_size": WIDTH, "mlp_dim": 2048, "num_attention_heads": 8, "iou_head_hidden_dim": 256}
VIT = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "output_channels": WIDTH, "mlp_dim": 64,
    "global_attn_indexes": [1], "window_size": 14, "num_pos_feats": WIDTH // 2,
}  # fmt: skip
HIERA = {
    "model_type": "sam2_hiera_det_model", "hidden_size": 16, "num_attention_heads": 1, "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 14, 7], "global_attention_blocks": [3],
}  # fmt: skip
SAM_3_VIT = {
    "model_type": "sam3_vit_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 2, "global_attn_indexes": [1], "pretrain_image_size": 336, "window_size": 24,
}  # fmt: skip
PUBLISHED_SIDE = {"sam": 1024, "sam_hq": 1024, "sam2": 1024, "edgetam": 1024, "sam3_tracker": 1008}
PATCH = {"sam3_tracker": 14}
ARCHITECTURES = tuple(PUBLISHED_SIDE)


def tiny(architecture: str, side: int = 0) -> Any:
    """A network of transformers', in evaluation mode, its weights by `fill`. side: of its input; 0: as published."""
    import transformers

    side = side or PUBLISHED_SIDE[architecture]
    grid = side // PATCH.get(architecture, 16)
    prompts = {"hidden_size": WIDTH, "image_size": side}
    heads: dict[str, Any] = {"prompt_encoder_config": prompts, "mask_decoder_config": dict(DECODER)}
    if architecture in ("sam", "sam_hq"):
        prompts["image_embedding_size"] = grid
        vision: Any = {**VIT, "image_size": side}
        name = "SamHQ" if architecture == "sam_hq" else "Sam"
        if architecture == "sam_hq":
            heads["mask_decoder_config"]["vit_dim"] = VIT["hidden_size"]
    elif architecture == "sam2":
        name, vision = "Sam2", sam2_vision(side)
    elif architecture == "edgetam":
        name, vision = "EdgeTam", _edgetam_vision(grid)
    else:
        name, vision = "Sam3Tracker", {"model_type": "sam3_vision_model", **_maps(grid)}
        vision["backbone_config"] = {**SAM_3_VIT, "image_size": side}
    config = getattr(transformers, f"{name}Config")(vision_config=vision, **heads)
    return fill(getattr(transformers, f"{name}Model")(config)).eval()


def _maps(grid: int) -> dict[str, Any]:
    return {"fpn_hidden_size": WIDTH, "backbone_feature_sizes": [[4 * grid] * 2, [2 * grid] * 2, [grid] * 2]}


def sam2_vision(side: int = 1024) -> dict[str, Any]:
    backbone = {**HIERA, "image_size": [side, side]}
    return {"backbone_config": backbone, "backbone_channel_list": [128, 64, 32, 16], **_maps(side // 16)}


def _edgetam_vision(grid: int) -> Any:
    from transformers import EdgeTamVisionConfig, TimmWrapperConfig

    arguments = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
    small = {"embed_dim": [8, 16, 32, 64], "depth": [1, 1, 1, 1]}
    backbone = TimmWrapperConfig(architecture="repvit_m1", model_args={**arguments, **small})
    return EdgeTamVisionConfig(backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], **_maps(grid))


def fill(network: torch.nn.Module) -> Any:
    """Weights by name and shape: of linear layers and convolutions as wide as their inputs are many, norms about 1."""
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(torch.from_numpy(values(name, tuple(tensor.shape))))
    return network


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Both copies of the positional encoding are one in the originals."""
    name = name.replace("prompt_encoder.shared_embedding", "shared_image_embedding")
    noise = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
        return (1 + 0.1 * np.abs(noise)).astype(np.float32)
    if "positional_embedding" in name or "rel_pos" in name or "pos_embed" in name:
        return noise
    return noise / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else np.asarray(0.1 * noise, np.float32)


class Scene(NamedTuple):
    """An image at the model's size, and five prompts: everything, fewer points, a box, points, a mask alone.

    points_xy (2, 2), box_xyxy (4,) and mask (m, m) float32 in the model's own pixels.
    """

    image: np.ndarray
    points_xy: np.ndarray
    box_xyxy: np.ndarray
    mask: np.ndarray


SHOWN = [
    {"points": 2, "box": True, "mask": True},
    {"points": 1, "box": True, "mask": True},
    {"points": 0, "box": True, "mask": False},
    {"points": 2, "box": False, "mask": False},
    {"points": 0, "box": False, "mask": True},
]
"""What of a scene each of the prompts shows; the first point is positive, the second negative."""


def scene(size_hw: tuple[int, int], mask_side: int) -> Scene:
    """The same one each time: waves of colour, and a mask prompt of a blob."""
    rows, columns = (np.arange(side, dtype=np.float64) for side in size_hw)
    waves = [np.outer(np.sin(rows / (31 + 9 * i)), np.cos(columns / (47 - 8 * i))) for i in range(3)]
    image = np.round(127.5 + 127 * np.stack(waves, 2)).astype(np.uint8)
    grid = np.arange(mask_side) / mask_side
    blob = 20 * np.exp(-((grid[:, None] - 0.3) ** 2 + (grid - 0.4) ** 2) / 0.02) - 10
    side = max(size_hw)
    points = np.array([[0.41 * side, 0.31 * side], [0.52 * side, 0.47 * side]], np.float32)
    box = np.array([0.2 * side, 0.11 * side, 0.61 * side, 0.53 * side], np.float32)
    return Scene(image, points, box, blob.astype(np.float32))


def save(architecture: str, folder: Path, side: int = 0) -> Path:
    """The folder of a tiny network."""
    tiny(architecture, side).save_pretrained(folder)
    return folder
