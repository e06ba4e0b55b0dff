"""Models and images for the GPU's benchmark: Segment Anything with random weights, masks that are like real ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from segment_anything.build_sam import _build_sam

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.masks.frames import Frame
from pipeline.models import MODELS, Asked, Candidates, Pending, PromptBatch, prepare
from pipeline.models.device.rounds import look
from pipeline.models.device.transfer import PromptTensors
from pipeline.models.lite.model import LiteModel
from pipeline.models.sam import SamModel
from pipeline.refiners import RefineImage
from schemas.config import Method

MASKS_PER_IMAGE = 7
THREADS = 1
"""Of torch and OpenCV, as `threads_per_actor` is by default: chunks side by side are what uses the cores."""
SIZES = {"0.5 MP": (612, 816), "12 MP": (3000, 4000)}
SMALL_SIZES = {"0.2 MP": (384, 512), "0.5 MP": (612, 816)}
SMALL = "vit_small"  # stands for the others where --small is given
sam_model_registry[SMALL] = partial(
    _build_sam, encoder_embed_dim=64, encoder_depth=2, encoder_num_heads=2, encoder_global_attn_indexes=[1]
)
SPECS = {**MODELS, SMALL: replace(MODELS["vit_b"], name=SMALL, encoder_tflop=None)}


class CoarseLike:
    """A model whose candidates are replaced by where its mask prompt is above 0, the coarse mask, at its own cost.

    Random weights make masks of a thousand pieces, whose components, holes and run lengths are several times the work.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def decode(self, embedding: Any, prompts: PromptTensors) -> tuple[torch.Tensor, torch.Tensor]:
        """See SamModel; prompts must have masks."""
        _, predicted_iou = self._model.decode(embedding, prompts)
        assert prompts.mask_logits is not None
        inside = (prompts.mask_logits > 0).float()
        return torch.stack([12 * inside - offset for offset in (5.0, 6.0, 7.0)], 1), predicted_iou

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        """See MaskModel; prompts must have masks."""
        own = self._model.predict(embedding, prompts)
        assert prompts.mask_logits is not None
        inside = (prompts.mask_logits > 0).astype(np.float32)
        logits = np.stack([12 * inside - np.float32(offset) for offset in (5.0, 6.0, 7.0)], 1)
        return Candidates(logits, own.predicted_iou)

    def look(self, embedding: Any, mirrored: Any | None, asked: Asked) -> Pending:
        """See MaskModel."""
        of_mirrored = None if mirrored is None else partial(self.decode, mirrored)
        return look(partial(self.decode, embedding), of_mirrored, embedding.squares, asked)


def official(small: bool) -> list[str]:
    return [SMALL] if small else ["vit_b", "vit_h"]


@contextmanager
def checkpoint(model: str, device: str) -> Iterator[Path]:
    """A file of random weights whose relative positions and biases are not zero. Made on the device: it is faster."""
    torch.manual_seed(0)
    with torch.device(device):
        sam = sam_model_registry[model]()
    for name, tensor in sam.image_encoder.named_parameters():
        if "rel_pos" in name or name == "pos_embed" or name.endswith("bias"):
            torch.nn.init.normal_(tensor, std=0.05)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{model}.safetensors"
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in sam.state_dict().items()}, path)
        del sam
        yield path


def load(model: str, path: Path | None, device: str, dtype: torch.dtype, batch: int | None = None) -> Any:
    """As load_model, without hashing the file; every model under the same settings of torch."""
    prepare(THREADS)
    if model == "lite":
        return LiteModel(None, device, dtype)
    assert path is not None
    return SamModel(SPECS[model], path, "0" * 64, device, dtype, batch)


def coarse_like(model: str, path: Path, device: str, dtype: torch.dtype, batch: int | None) -> CoarseLike:
    """The model, loaded, with candidates like coarse masks."""
    return CoarseLike(load(model, path, device, dtype, batch))


def method(model: str) -> Method:
    """As published, one iteration, in bfloat16; `model` gives the batches."""
    named = "vit_b" if model == SMALL else model
    return resolve("published-code", None, {"method": {"model": named, "iterations": 1}}).method


def scenes(size_hw: tuple[int, int], count: int, input_side: int) -> list[RefineImage]:
    """Noise of the model's input size, and masks at the photograph's: ragged outlines, a hole, a second piece."""
    frame = Frame(size_hw, input_side)
    made = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        pixels = rng.integers(0, 256, (*frame.input_hw, 3), dtype=np.uint8)
        coarse = [binary.encode(ragged(rng, size_hw)) for _ in range(MASKS_PER_IMAGE)]
        made.append(RefineImage(pixels, frame, coarse))
    return made


def ragged(rng: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W) uint8: about 3 to 12 % of the image, as objects of photographs are."""
    height, width = 300, max(32, round(300 * size_hw[1] / size_hw[0]))
    mask, centre = np.zeros((height, width), np.uint8), (int(rng.integers(80, width - 80)), int(rng.integers(80, 220)))
    axes = (int(rng.integers(30, 75)), int(rng.integers(20, 60)))
    cv2.ellipse(mask, centre, axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
    cv2.circle(mask, (min(width - 9, centre[0] + axes[0] + 12), centre[1]), 7, 1, -1)
    cv2.circle(mask, centre, 6, 0, -1)
    wave = cv2.resize(rng.normal(0, 0.35, (24, 32)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    field = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 2) + wave * cv2.dilate(mask, np.ones((9, 9), np.uint8))
    large = cv2.resize(field, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return (large > 0.5).astype(np.uint8)
