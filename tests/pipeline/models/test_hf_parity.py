"""Each class of transformers, as we ask it, against its original package on the same weights.

segment-anything is asked here. What the others' own code answered, with the weights of `pretrained.py`, is in
tests/golden/originals.npz, every eighth row and column of it: sam_hq by segment-anything-hq 0.3, the rest by Meta's
repositories sam2, EdgeTAM and sam3.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from pipeline.masks.frames import PROMPT_SIDE
from pipeline.models import MaskModel, PromptBatch, load_model, weights
from pipeline.storage import Access
from tests.conftest import ROOT
from tests.pipeline.models import pretrained
from tests.pipeline.models.pretrained import DECODER, SHOWN, VIT, WIDTH, Scene

pytest.importorskip("transformers", reason="the extra `hf` is not installed")
ORIGINALS = ROOT / "tests" / "golden" / "originals.npz"
LEAST_CORRELATION = 0.9999


def answers(model: MaskModel, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Logits (5, 3, m, m) and predicted IoU (5, 3) of a scene's prompts."""
    embedding = model.encode([scene.image])
    scale = np.float32(PROMPT_SIDE / model.input_side)
    found = []
    for shown in SHOWN:
        points = shown["points"]
        prompts = PromptBatch(
            image_index=np.zeros(1, np.int64),
            points_xy=scene.points_xy[None] * scale if points else None,
            point_labels=np.array([[1, 0 if points == 2 else -1]]) if points else None,
            boxes_xyxy=scene.box_xyxy[None] * scale if shown["box"] else None,
            mask_logits=scene.mask[None] if shown["mask"] else None,
            coarse=None,
        )
        found.append(model.predict(embedding, prompts))
    return np.concatenate([one.logits for one in found]), np.concatenate([one.predicted_iou for one in found])


def loaded(architecture: str, folder: Path) -> MaskModel:
    given = weights.resolve("hf", str(pretrained.save(architecture, folder)), Access())
    model: Any = load_model("hf", given, "cpu", 1)
    return model


def size_of(model: MaskModel) -> tuple[int, int]:
    """A stretched image fills the square; a padded one need not."""
    return (model.input_side, model.input_side) if model.stretched else (768, model.input_side)


def check(found: tuple[np.ndarray, np.ndarray], logits: np.ndarray, iou: np.ndarray) -> None:
    for one, other in zip(found[0], logits, strict=True):
        assert np.corrcoef(one.ravel(), other.astype(np.float32).ravel())[0, 1] >= LEAST_CORRELATION
    np.testing.assert_allclose(found[0], logits, atol=2e-3 * np.abs(logits).max())
    np.testing.assert_allclose(found[1], iou, atol=2e-3)


@pytest.mark.parametrize("architecture", ["sam_hq", "sam2", "edgetam", "sam3_tracker"])
def test_the_original_answers_the_same(architecture: str, tmp_path: Path) -> None:
    model = loaded(architecture, tmp_path)
    logits, iou = answers(model, pretrained.scene(size_of(model), model.mask_side))
    with np.load(ORIGINALS) as originals:
        expected, expected_iou = originals[f"{architecture}_logits"], originals[f"{architecture}_iou"]
    if architecture == "sam_hq":  # it returns the best of its masks
        best = iou.argmax(1)
        logits, iou = logits[np.arange(len(best)), best][:, None], iou.max(1, keepdims=True)
    check((logits[..., ::8, ::8], iou), expected, expected_iou)


def test_segment_anything_answers_the_same(tmp_path: Path) -> None:
    model = loaded("sam", tmp_path)
    scene = pretrained.scene(size_of(model), model.mask_side)
    original = segment_anything()
    original.load_state_dict(to_segment_anything(pretrained.tiny("sam").state_dict()))
    predictor = SamPredictor(original.eval())
    predictor.set_image(scene.image)
    expected = [predictor.predict(**as_predictors_take(scene, shown), multimask_output=True) for shown in SHOWN]
    check(answers(model, scene), np.stack([one[2] for one in expected]), np.stack([one[1] for one in expected]))


def as_predictors_take(scene: Scene, shown: dict[str, Any]) -> dict[str, Any]:
    """One prompt as SamPredictor.predict and its successors take it."""
    points = shown["points"]
    return {
        "point_coords": scene.points_xy[:points] if points else None,
        "point_labels": np.array([1, 0][:points]) if points else None,
        "box": scene.box_xyxy if shown["box"] else None,
        "mask_input": scene.mask[None] if shown["mask"] else None,
    }


def segment_anything() -> Sam:
    """The architecture of pretrained.tiny("sam")."""
    encoder = ImageEncoderViT(
        depth=VIT["num_hidden_layers"],
        embed_dim=VIT["hidden_size"],
        img_size=1024,
        mlp_ratio=VIT["mlp_dim"] / VIT["hidden_size"],
        norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
        num_heads=VIT["num_attention_heads"],
        patch_size=16,
        qkv_bias=True,
        use_rel_pos=True,
        global_attn_indexes=VIT["global_attn_indexes"],
        window_size=VIT["window_size"],
        out_chans=WIDTH,
    )
    prompts = PromptEncoder(
        embed_dim=WIDTH, image_embedding_size=(64, 64), input_image_size=(1024, 1024), mask_in_chans=16
    )
    decoder = MaskDecoder(
        num_multimask_outputs=3,
        transformer=TwoWayTransformer(depth=2, embedding_dim=WIDTH, mlp_dim=DECODER["mlp_dim"], num_heads=8),
        transformer_dim=WIDTH,
        iou_head_depth=3,
        iou_head_hidden_dim=DECODER["iou_head_hidden_dim"],
    )
    return Sam(encoder, prompts, decoder)


NAMES = [
    ("vision_encoder.", "image_encoder."),
    ("patch_embed.projection", "patch_embed.proj"),
    ("image_encoder.layers.", "image_encoder.blocks."),
    ("neck.conv1", "neck.0"), ("neck.layer_norm1", "neck.1"), ("neck.conv2", "neck.2"), ("neck.layer_norm2", "neck.3"),
    ("mask_embed.conv1", "mask_downscaling.0"), ("mask_embed.layer_norm1", "mask_downscaling.1"),
    ("mask_embed.conv2", "mask_downscaling.3"), ("mask_embed.layer_norm2", "mask_downscaling.4"),
    ("mask_embed.conv3", "mask_downscaling.6"),
    ("shared_embedding.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
    ("encoder.point_embed.", "encoder.point_embeddings."),
    ("layer_norm_final_attn", "norm_final_attn"), (".layer_norm", ".norm"),
    ("upscale_conv1", "output_upscaling.0"), ("upscale_norm", "output_upscaling.1"),
    ("upscale_layer_norm", "output_upscaling.1"), ("upscale_conv2", "output_upscaling.3"),
]  # fmt: skip
"""Of tensors: transformers' and segment-anything's."""


def to_segment_anything(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors of transformers' SamModel by the names of segment-anything's Sam."""
    renamed = {}
    for name, tensor in state.items():
        if name.startswith("shared_image_embedding"):
            continue
        new = name
        for old, other in NAMES:
            new = new.replace(old, other)
        if "hypernetworks" in new or "iou_prediction_head" in new:  # proj_in, layers.0, proj_out
            new = new.replace(".layers.0.", ".layers.1.").replace(".proj_in.", ".layers.0.")
            new = new.replace(".proj_out.", ".layers.2.")
        renamed[new] = tensor
    return renamed
