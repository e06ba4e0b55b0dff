"""`lite`: the embedded model. A small Segment Anything whose weights come with the package.

Same prompts and protocol as the official models (`models.MaskModel`): images with a long side of 512, masks of 256 x
256, coordinates 0-1024. It looks at `PromptBatch.coarse` and corrects it; without masks it answers boxes and points.

Not here: the layers (`network.py`, `backbone.py`; `fast.py` computes the same, faster), the training (`training/`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pipeline.masks.frames import FloatArray
from pipeline.models.device.rounds import look
from pipeline.models.device.transfer import PromptTensors, prompt_tensors, sent
from pipeline.models.lite.fast import FastDecoder, FastEncoder
from pipeline.models.lite.network import ImageFeatures, LiteNetwork, load_weights
from pipeline.models.protocol import Asked, Candidates, Pending, PromptBatch
from pipeline.models.registry import LITE, ModelSpec, Runtime
from pipeline.models.weights import LITE_WEIGHTS

INPUT_SIDE, MASK_SIDE, STRIDE = LITE.input_side, LITE.mask_side, 16
PIXEL_MEAN, PIXEL_STD = LITE.normalisation.mean[0], LITE.normalisation.std[0]  # the same in each channel
PROMPTS_PER_PASS = {"cpu": 4, "cuda": 64}  # bounds memory, and on CPUs keeps the working set in cache


@dataclass(frozen=True)
class LiteEmbedding:
    """Features of a batch of images, the (h, w) pixels that each fills of its square, and those (B, S, S, 3) uint8."""

    features: ImageFeatures
    sizes_hw: tuple[tuple[int, int], ...]
    squares: Tensor


class LiteModel:
    """The `MaskModel` that ships with the package."""

    name = "lite"
    input_side = INPUT_SIDE
    stretched = False
    mask_side = MASK_SIDE
    reads_coarse = True
    similarity_cut = LITE.similarity_cut

    def __init__(
        self, weights_path: Path | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        """Weights: a safetensors file as `export` writes it; the packaged one when None.

        dtype: of the networks' inner values; logits and predicted IoU are float32 (models/lite/fast.py).
        """
        content = (weights_path or LITE_WEIGHTS).read_bytes()
        self.weights_sha256 = hashlib.sha256(content).hexdigest()
        self.device = torch.device(device)
        self.looks = self.device.type != "cpu"
        network = LiteNetwork()
        load_weights(network, content)
        network = network.eval().requires_grad_(False).to(self.device).to(memory_format=torch.channels_last)
        self._encoder = FastEncoder(network.encoder, dtype)
        self._decoder = FastDecoder(network.decoder, INPUT_SIDE // STRIDE, dtype)
        self.iou_head = network.decoder.iou_head  # the decoder runs it as it is

    @torch.inference_mode()
    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> LiteEmbedding:
        """Images (h, w, 3) uint8 RGB, long side 512 -> embedding. One image a pass: none depends on its neighbours."""
        squares = np.full((len(frames), INPUT_SIDE, INPUT_SIDE, 3), PIXEL_MEAN, np.uint8)
        for square, frame in zip(squares, frames, strict=True):
            square[: frame.shape[0], : frame.shape[1]] = frame
        there = sent(squares, self.device)
        parts = [self._encoder(normalise(square)) for square in there.split(1)]
        sizes = tuple((frame.shape[0], frame.shape[1]) for frame in frames)
        features = ImageFeatures(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        return LiteEmbedding(features, sizes, there)

    def features(self, embedding: LiteEmbedding, image: int) -> FloatArray:
        """(C, h, w) float32 embedding of one image, cropped of padding."""
        height, width = (-(-side // STRIDE) for side in embedding.sizes_hw[image])
        return np.asarray(embedding.features.embedding[image, :, :height, :width].float().cpu().numpy(), np.float32)

    @torch.inference_mode()
    def predict(self, embedding: LiteEmbedding, prompts: PromptBatch) -> Candidates:
        """Decode all prompts, few at a time, and return them in the order given.

        A missing point is a token of its own here, so prompts with and without one need not be apart.
        """
        logits = np.empty((len(prompts), LITE.candidates, MASK_SIDE, MASK_SIDE), np.float32)
        predicted_iou = np.empty((len(prompts), LITE.candidates), np.float32)
        most = PROMPTS_PER_PASS[self.device.type]
        for image in np.unique(prompts.image_index):
            features = ImageFeatures(*(tensor[image : image + 1] for tensor in embedding.features))
            mine = np.flatnonzero(prompts.image_index == image)
            for rows in np.split(mine, range(most, len(mine), most)):
                masks, scores = self._decoder(features, prompt_tensors(prompts.take(rows), self.device))
                logits[rows], predicted_iou[rows] = masks.cpu().numpy(), scores.cpu().numpy()
        return Candidates(logits, predicted_iou)

    def decode(self, embedding: LiteEmbedding, prompts: PromptTensors) -> tuple[Tensor, Tensor]:
        """Logits (N, 3, 256, 256) and predicted IoU (N, 3) of prompts on any images of a batch, all in one pass."""
        return self._decoder(ImageFeatures(*(of[prompts.image_index] for of in embedding.features)), prompts)

    def look(self, embedding: LiteEmbedding, mirrored: LiteEmbedding | None, asked: Asked) -> Pending:
        """See MaskModel.look."""
        of_mirrored = None if mirrored is None else partial(self.decode, mirrored)
        return look(partial(self.decode, embedding), of_mirrored, embedding.squares, asked)

    @property
    def iou_layers(self) -> list[nn.Linear]:
        """See adapter.AdaptableModel."""
        return list(self.iou_head.layers)

    def to_predicted_iou(self, output: Tensor, inputs: Tensor) -> Tensor:
        """See adapter.AdaptableModel."""
        return torch.sigmoid(self.iou_head.correct(output, inputs))


def load(_spec: ModelSpec, path: Path, _sha256: str, runtime: Runtime) -> LiteModel:
    """See registry.Load."""
    return LiteModel(path, runtime.device, getattr(torch, runtime.dtype))


def normalise(images: Tensor) -> Tensor:
    """(B, S, S, 3) uint8 RGB -> (B, 3, S, S) float32, as EfficientNet-Lite was trained (channels last in memory)."""
    return ((images.float() - PIXEL_MEAN) / PIXEL_STD).permute(0, 3, 1, 2)
