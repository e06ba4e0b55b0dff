"""Segment Anything's official architectures (vit_b, vit_l, vit_h) as a MaskModel.

The networks are segment-anything's own. Prompts are decoded for many images at once, which `Sam.forward` and
`SamPredictor` cannot; everything else follows them (normalisation, padding, prompt and mask frames).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry

from pipeline.errors import RefusedError
from pipeline.masks.frames import FloatArray
from pipeline.masks.scores import STABILITY_OFFSET
from pipeline.models.device.rounds import look
from pipeline.models.device.transfer import PromptTensors, prompt_tensors, sent, split, squares_of
from pipeline.models.encoder_batches import CompiledEncoder
from pipeline.models.passes import IMAGES_PER_PASS, PROMPTS_PER_PASS
from pipeline.models.protocol import Asked, Candidates, Pending, PromptBatch
from pipeline.models.registry import ModelSpec, Runtime
from pipeline.models.sam_decoder import SamDecoder
from pipeline.models.sam_encoder import FastEncoder
from pipeline.storage import brief

GRID_SIDE = 64
"""Of embeddings, along a side."""

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Normalised squares (B, 3, input_side, input_side) float32 -> embeddings (B, 256, 64, 64) float32."""


@dataclass(frozen=True)
class SamEmbedding:
    """`image` (B, 256, 64, 64) float32, each image's (h, w) within it, and the images `squares` (B, S, S, 3) uint8."""

    image: torch.Tensor
    grid_hw: list[tuple[int, int]]
    squares: torch.Tensor


class SamModel:
    """An official Segment Anything checkpoint. See `MaskModel`."""

    reads_coarse = False

    def __init__(
        self,
        spec: ModelSpec,
        checkpoint: Path,
        weights_sha256: str,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
        compiled_batch: int | None = None,
        encoder: Encode | None = None,
    ) -> None:
        """checkpoint: a local `.pth` (read with weights_only) or `.safetensors` file in the official format.

        spec: its architecture, or else its name, is that in segment-anything. encoder: in place of the checkpoint's,
        which then holds none.
        dtype: of the encoder's matrix products, on GPUs of the decoder's transformer as well; masks are float32.
        compiled_batch: see CompiledEncoder; None: not compiled.
        Raises RefusedError when the checkpoint does not hold this architecture.
        """
        self.name, architecture = spec.name, spec.architecture or spec.name
        self._by_stability = spec.choose_by == "stability"
        self.input_side, self.mask_side, self.candidates = spec.input_side, spec.mask_side, spec.candidates
        self.stretched, self.similarity_cut = spec.stretched, spec.similarity_cut
        self.weights_sha256 = weights_sha256
        self._device = torch.device(device)
        on_gpu = self._device.type != "cpu"
        self.looks = on_gpu and not self.stretched  # models/device upsamples in two steps, as padded squares want it
        # Built without memory, then given the checkpoint's tensors: random initialisation of ViT-H takes longer.
        with torch.device("meta"):
            sam = sam_model_registry[architecture]()
        if encoder:
            sam.image_encoder = torch.nn.Identity()
        try:
            missing, unexpected = sam.load_state_dict(_read(checkpoint), strict=False, assign=True)
        except RuntimeError as error:
            raise RefusedError(f"{checkpoint.name} is not a {architecture} checkpoint: {brief(error)}") from None
        if missing or unexpected:
            named = ", ".join((missing or unexpected)[:3])
            state = "lacks" if missing else "has unknown"
            raise RefusedError(f"{checkpoint.name} is not a {architecture} checkpoint: it {state} {named}")
        self._sam = sam.float().requires_grad_(False).eval()
        self._encoder = encoder or self._own_encoder(dtype, compiled_batch)
        self._decoder = SamDecoder(
            self._sam.prompt_encoder.to(self._device),
            self._sam.mask_decoder.to(self._device),
            dtype if on_gpu else torch.float32,
        )
        self._mean = torch.tensor(spec.normalisation.mean, device=self._device)
        self._std = torch.tensor(spec.normalisation.std, device=self._device)

    def _own_encoder(self, dtype: torch.dtype, compiled_batch: int | None) -> Encode:
        own = self._sam.image_encoder.to(self._device)
        if not compiled_batch:
            return FastEncoder(own, dtype)
        return CompiledEncoder(FastEncoder(own, dtype), compiled_batch)

    @torch.inference_mode()
    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> SamEmbedding:
        """See MaskModel.encode."""
        there = squares_of(frames, self.input_side, self._device)
        sizes = sent(np.array([frame.shape[:2] for frame in frames], np.int64), self._device)
        most = IMAGES_PER_PASS[self._device.type]
        parts = zip(there.split(most), sizes.split(most), strict=True)
        passes = [self._encoder(self._normalised(*part)) for part in parts]
        stride = self.input_side // GRID_SIDE
        grid = [(-(-frame.shape[0] // stride), -(-frame.shape[1] // stride)) for frame in frames]
        return SamEmbedding(torch.cat(passes), grid, there)

    def _normalised(self, squares: torch.Tensor, sizes: torch.Tensor) -> torch.Tensor:
        """(B, S, S, 3) uint8 and how much of each is image, (B, 2) -> (B, 3, S, S) float32, 0 beside the images."""
        steps = torch.arange(self.input_side, device=self._device)
        inside = (steps < sizes[:, :1])[:, :, None] & (steps < sizes[:, 1:])[:, None, :]
        return (((squares - self._mean) / self._std) * inside[..., None]).permute(0, 3, 1, 2)

    def features(self, embedding: SamEmbedding, image: int) -> FloatArray:
        """See MaskModel.features."""
        height, width = embedding.grid_hw[image]
        return np.asarray(embedding.image[image, :, :height, :width].float().cpu().numpy(), np.float32)

    @torch.inference_mode()
    def predict(self, embedding: SamEmbedding, prompts: PromptBatch) -> Candidates:
        """See MaskModel.predict."""
        given, most = prompt_tensors(prompts, self._device), PROMPTS_PER_PASS[self._device.type]
        parts = [self.decode(embedding, part) for part in split(given, most)]
        masks, predicted_iou = (torch.cat(of).cpu().numpy() for of in zip(*parts, strict=True))
        return Candidates(np.asarray(masks, np.float32), np.asarray(predicted_iou, np.float32))

    def decode(self, embedding: SamEmbedding, prompts: PromptTensors) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (N, 3, 256, 256) and predicted IoU (N, 3) of prompts, all in one pass."""
        masks, predicted_iou = self._decoder(embedding.image, prompts)
        return masks, _stability(masks) if self._by_stability else predicted_iou

    def look(self, embedding: SamEmbedding, mirrored: SamEmbedding | None, asked: Asked) -> Pending:
        """See MaskModel.look."""
        of_mirrored = None if mirrored is None else partial(self.decode, mirrored)
        return look(partial(self.decode, embedding), of_mirrored, embedding.squares, asked)

    @property
    def iou_head(self) -> torch.nn.Module:
        """See adapter.AdaptableModel."""
        return self._sam.mask_decoder.iou_prediction_head

    @property
    def iou_layers(self) -> list[torch.nn.Linear]:
        """See adapter.AdaptableModel."""
        return list(self._sam.mask_decoder.iou_prediction_head.layers)

    def to_predicted_iou(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """See adapter.AdaptableModel; the first output is the single-mask one's."""
        return output[:, 1:]


def _stability(masks: torch.Tensor) -> torch.Tensor:
    """As masks/scores.py, of logits (N, C, m, m): what is chosen by, where the IoU head is not to be trusted."""
    high, low = ((masks > offset).sum((2, 3)) for offset in (STABILITY_OFFSET, -STABILITY_OFFSET))
    return high / low.clamp_min(1)


def load(spec: ModelSpec, path: Path, sha256: str, runtime: Runtime) -> SamModel:
    """See registry.Load."""
    compiled_batch = runtime.encode_batch if runtime.compiled else None
    return SamModel(spec, path, sha256, runtime.device, getattr(torch, runtime.dtype), compiled_batch)


def _read(checkpoint: Path) -> dict[str, torch.Tensor]:
    try:
        if checkpoint.suffix == ".safetensors":
            return dict(load_file(checkpoint))
        state = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch, zipfile and safetensors each have their own for a damaged file
        raise RefusedError(f"{checkpoint.name} cannot be read as weights: {brief(error)}") from None
    if not isinstance(state, dict):
        raise RefusedError(f"{checkpoint.name} holds a {type(state).__name__}, not a state dictionary")
    return state
