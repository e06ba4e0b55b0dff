"""What models take and give: `encode` once per image, `predict` once per batch of prompts.

What passes these protocols is numpy and an opaque embedding; nobody else needs torch. A model is a MaskModel (prompted
by points, boxes and masks), a PixelModel (image and mask in, probability out) or NoModel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.masks.frames import ORIGINAL_SIZE, FloatArray, Frame, resize_to_input

if TYPE_CHECKING:
    from pipeline.models.on_device import OnDevice  # imports torch


@dataclass(frozen=True)
class PromptBatch:
    """N prompts for a batch of images. Any of points, boxes and masks may be absent; not all three.

    image_index   (N,) int64, which image of the batch each prompt belongs to
    points_xy     (N, P, 2) float32 in the prompt frame (0-1024), or None
    point_labels  (N, P) int64: 1 positive, 0 negative, -1 no point. Prompts with and without a missing point are
                  decoded apart: SAM's padding is a real token
    boxes_xyxy    (N, 4) float32 in the prompt frame, or None
    mask_logits   (N, mask_side, mask_side) float32 SAM mask prompt, or None
    coarse        (N, mask_side, mask_side) float32 in [0, 1], the mask itself, area-averaged; models that were
                  trained to look at it (lite) do, others ignore it. None goes with mask_logits None
    """

    image_index: npt.NDArray[np.int64]
    points_xy: FloatArray | None
    point_labels: npt.NDArray[np.int64] | None
    boxes_xyxy: FloatArray | None
    mask_logits: FloatArray | None
    coarse: FloatArray | None

    def __len__(self) -> int:
        return len(self.image_index)

    def take(self, rows: npt.NDArray[np.int64]) -> PromptBatch:
        """The prompts at `rows`, in that order."""

        def pick(values: Any) -> Any:
            return None if values is None else values[rows]

        return PromptBatch(
            self.image_index[rows],
            pick(self.points_xy),
            pick(self.point_labels),
            pick(self.boxes_xyxy),
            pick(self.mask_logits),
            pick(self.coarse),
        )


@dataclass(frozen=True)
class Candidates:
    """C candidate masks for each of N prompts.

    logits         (N, C, mask_side, mask_side) float32, foreground where > 0, in the model's square
    predicted_iou  (N, C) float32, the model's own estimate of each candidate's IoU
    """

    logits: FloatArray
    predicted_iou: FloatArray


class Model(Protocol):
    """What every model says of itself. Refiners ask for one of the kinds below."""

    name: str
    weights_sha256: str
    input_side: int  # long side, in pixels, of the images that it takes; ORIGINAL_SIZE: any


@dataclass
class NoModel:
    """For refiners that need none."""

    name: str = "none"
    weights_sha256: str = ""
    input_side: int = ORIGINAL_SIZE


class PixelModel(Model, Protocol):
    """A network that refines one mask of one image directly (pixel.py)."""

    def probability(self, image_rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> FloatArray:
        """(H, W, 3) uint8 RGB, (H, W) uint8 {0, 1} -> (H, W) float32 probability of foreground."""
        ...


class MaskModel(Model, Protocol):
    """A promptable segmentation model of the SAM family. Deterministic for a given batch composition."""

    stretched: bool  # whether images are stretched to its square, not padded
    mask_side: int  # side of mask prompts and of the masks that come out
    similarity_cut: float  # cosine above which two embeddings are "the same object" (elastic box)
    on_device: OnDevice | None  # does the work on every pixel of a mask where the model is; None: OpenCV does it

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """Images (h, w, 3) uint8 RGB, long side `input_side` (stretched: both) -> an opaque embedding of the batch."""
        ...

    def features(self, embedding: Any, image: int) -> FloatArray:
        """(C, h, w) float32 features of one image of the batch, cropped of padding."""
        ...

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        """Decode all prompts, in one pass for each token count. Returns them in the order given."""
        ...


def frame_for(model: Model, size_hw: tuple[int, int]) -> Frame:
    """An image's place in a model's square. A model that does not say otherwise pads."""
    return Frame(size_hw, model.input_side, getattr(model, "stretched", False))


def input_for(model: Model, image_rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB -> as the model's `encode` takes it."""
    return resize_to_input(image_rgb, model.input_side, stretched=getattr(model, "stretched", False))


def token_groups(point_labels: npt.NDArray[np.int64] | None, count: int) -> list[npt.NDArray[np.int64]]:
    """Rows of prompts that may share a decoder pass: those with the same number of real points.

    point_labels: (N, P) int64, or None (all in one group). Missing points (-1) must come last in a row.
    """
    if point_labels is None:
        return [np.arange(count)]
    present = (point_labels >= 0).sum(axis=1)
    return [np.flatnonzero(present == points) for points in np.unique(present)]
