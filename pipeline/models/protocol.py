"""What models take and give: `encode` once per image, `predict` once per batch of prompts.

What passes these protocols is numpy and an opaque embedding; nobody else needs torch. A model is a MaskModel (prompted
by points, boxes and masks), a PixelModel (image and mask in, probability out) or NoModel.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pipeline.masks.canvas import Patch
from pipeline.masks.frames import ORIGINAL_SIZE, FloatArray, Frame, resize_to_input


@dataclass(frozen=True)
class PromptBatch:
    """N prompts for a batch of images. Any of points, boxes and masks may be absent; not all three.

    image_index   (N,) int64, which image of the batch each prompt belongs to
    points_xy     (N, P, 2) float32 in the prompt frame (0-1024), or None
    point_labels  (N, P) int64: 1 positive, 0 negative, -1 no point. A missing point is none to the model: SAM's own
                  padding, which is a real token, is not what it becomes
    boxes_xyxy    (N, 4) float32 in the prompt frame, or None
    mask_logits   (N, mask_side, mask_side) float32 SAM mask prompt, or None
    coarse        (N, mask_side, mask_side) float32 in [0, 1], the mask itself, area-averaged, for models that were
                  trained to look at it (`reads_coarse`), or None; None goes with mask_logits None
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


@dataclass(frozen=True)
class Asked:
    """A decoder batch of N masks that a model refines by itself, round after round, and judges.

    prompts, mirrored   of the first round, and for the mirror image of the coarse masks (None: it is not looked at)
    frames              of each mask's image, at the model's input size
    coarse, margin_px   the coarse masks, and the least number of pixels around masks that is looked at for contrasts
    points to strength  how later rounds prompt (schemas.config.Method)
    judged              whether scores are wanted
    """

    prompts: PromptBatch
    mirrored: PromptBatch | None
    frames: Sequence[Frame]
    coarse: Sequence[Patch]
    margin_px: Sequence[int]
    iterations: int
    points: bool
    box: bool
    mask: bool
    form: Literal["paper", "code"]
    gamma: float
    strength: float
    judged: bool


class Found(NamedTuple):
    """Answers to N masks.

    logits (V, N, mask_side, mask_side) and predicted_iou (V, N) float32 of the image and of its mirror image, if that
    was looked at; sound: all that the model returned is finite; previous (N, mask_side, mask_side): logits of the round
    before the last, and counted (N,): rounds, None where there was one round; scores: of each mask, None where they
    were not asked for.
    """

    logits: FloatArray
    predicted_iou: FloatArray
    sound: bool
    previous: FloatArray | None
    counted: npt.NDArray[np.int64] | None
    scores: list[dict[str, float]] | None


class Pending(Protocol):
    """Answers that are being computed."""

    def found(self) -> Found:
        """The answers, waited for."""
        ...


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
    reads_coarse: bool  # whether it looks at PromptBatch.coarse
    looks: bool  # whether `look` is to be had: on devices where waiting for each answer costs more than computing it

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """Images (h, w, 3) uint8 RGB, long side `input_side` (stretched: both) -> an opaque embedding of the batch."""
        ...

    def features(self, embedding: Any, image: int) -> FloatArray:
        """(C, h, w) float32 features of one image of the batch, cropped of padding."""
        ...

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        """Decode all prompts. Returns them in the order given."""
        ...

    def look(self, embedding: Any, mirrored: Any | None, asked: Asked) -> Pending:
        """Refine masks round after round and judge them, without waiting for any answer.

        mirrored: the embedding of the mirror images, where they are looked at.
        """
        ...


def frame_for(model: Model, size_hw: tuple[int, int]) -> Frame:
    """An image's place in a model's square. A model that does not say otherwise pads."""
    return Frame(size_hw, model.input_side, getattr(model, "stretched", False))


def input_for(
    model: Model, image_rgb: npt.NDArray[np.uint8], size_hw: tuple[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB -> as the model's `encode` takes it. size_hw: see `resize_to_input`."""
    return resize_to_input(image_rgb, model.input_side, size_hw, getattr(model, "stretched", False))
