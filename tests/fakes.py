"""A deterministic MaskModel without weights: its output depends on the pixels and on every prompt it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from pipeline.masks.frames import PROMPT_SIDE, FloatArray
from pipeline.models import Candidates, PromptBatch

SIDE = 256


class FakeModel:
    """Three candidates from blurred coarse mask and image brightness; remembers the prompts it was shown."""

    name = "fake"
    weights_sha256 = "0" * 64
    input_side = PROMPT_SIDE
    stretched = False
    mask_side = SIDE
    similarity_cut = 0.5
    reads_coarse = True
    looks = False

    def __init__(self, empty: bool = False) -> None:
        self.shown: list[PromptBatch] = []
        self._empty = empty

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        assert all(max(frame.shape[:2]) == self.input_side for frame in frames)
        return [np.asarray(frame, np.float32).mean(axis=2) / 255 for frame in frames]

    def features(self, embedding: Any, image: int) -> FloatArray:
        grey = cv2.resize(embedding[image], None, fx=1 / 16, fy=1 / 16, interpolation=cv2.INTER_AREA)
        return np.stack([grey, 1 - grey]).astype(np.float32)

    def predict(self, embedding: Any, prompts: PromptBatch) -> Candidates:
        self.shown.append(prompts)
        logits = np.full((len(prompts), 3, SIDE, SIDE), -5, np.float32)
        if not self._empty:
            for row in range(len(prompts)):
                logits[row] = self._candidates(embedding[prompts.image_index[row]], prompts, row)
        predicted = np.array([[0.5, 0.9, 0.7]] * len(prompts), np.float32)
        return Candidates(logits, predicted)

    def _candidates(self, grey: FloatArray, prompts: PromptBatch, row: int) -> FloatArray:
        if prompts.coarse is not None:
            mask = prompts.coarse[row]
        else:
            assert prompts.boxes_xyxy is not None
            x1, y1, x2, y2 = (int(v) for v in prompts.boxes_xyxy[row] * SIDE / PROMPT_SIDE)
            mask = np.zeros((SIDE, SIDE), np.float32)
            mask[y1 : y2 + 1, x1 : x2 + 1] = 1
        bright = np.zeros((SIDE, SIDE), np.float32)
        height, width = (max(1, side * SIDE // PROMPT_SIDE) for side in grey.shape)
        small = cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA)
        bright[: small.shape[0], : small.shape[1]] = small
        smooth = cv2.GaussianBlur(mask, (0, 0), 2) - 0.5
        return np.stack([8 * smooth - 1, 8 * smooth + bright - 0.5, 8 * smooth + 1])
