"""Segment Anything's official architectures (vit_b, vit_l, vit_h) as a MaskModel.

The networks are segment-anything's own. Prompts are decoded for many images at once, which `Sam.forward` and
`SamPredictor` cannot; everything else follows them (normalisation, padding, prompt and mask frames).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry

from pipeline.errors import RefusedError
from pipeline.masks.frames import FloatArray
from pipeline.masks.scores import STABILITY_OFFSET
from pipeline.models.on_device import OnDevice
from pipeline.models.passes import IMAGES_PER_PASS, PROMPTS_PER_PASS, decoded
from pipeline.models.protocol import Candidates, PromptBatch
from pipeline.models.registry import ModelSpec, Runtime
from pipeline.models.sam_encoder import CompiledEncoder, FastEncoder
from pipeline.models.two_way import dense_position
from pipeline.storage import brief

GRID_SIDE = 64
"""Of embeddings, along a side."""

Encode = Callable[[torch.Tensor], torch.Tensor]
"""Normalised squares (B, 3, input_side, input_side) float32 -> embeddings (B, 256, 64, 64) float32."""


@dataclass(frozen=True)
class SamEmbedding:
    """`image` (B, 256, 64, 64) float32 and each image's (h, w) within it."""

    image: torch.Tensor
    grid_hw: list[tuple[int, int]]


class SamModel:
    """An official Segment Anything checkpoint. See `MaskModel`."""

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
        dtype: of the encoder's matrix products; prompts and masks are float32. compiled_batch: see CompiledEncoder;
        None: not compiled.
        Raises RefusedError when the checkpoint does not hold this architecture.
        """
        self.name, architecture = spec.name, spec.architecture or spec.name
        self._by_stability = spec.choose_by == "stability"
        self.input_side, self.mask_side, self.candidates = spec.input_side, spec.mask_side, spec.candidates
        self.stretched, self.similarity_cut = spec.stretched, spec.similarity_cut
        self.weights_sha256 = weights_sha256
        self._device = torch.device(device)
        self.on_device = None if self._device.type == "cpu" else OnDevice(self._device)
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
        position = dense_position(self._sam.prompt_encoder.pe_layer, *self._sam.prompt_encoder.image_embedding_size)
        self._position = position[None].to(self._device)
        self._prompts = self._sam.prompt_encoder.to(self._device)
        self._decoder = self._sam.mask_decoder.to(self._device)
        self._mean = torch.tensor(spec.normalisation.mean, device=self._device).view(3, 1, 1)
        self._std = torch.tensor(spec.normalisation.std, device=self._device).view(3, 1, 1)

    def _own_encoder(self, dtype: torch.dtype, compiled_batch: int | None) -> Encode:
        encoder = FastEncoder(self._sam.image_encoder.to(self._device), dtype)
        return CompiledEncoder(encoder, compiled_batch) if compiled_batch else encoder

    @torch.inference_mode()
    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> SamEmbedding:
        """See MaskModel.encode."""
        most = IMAGES_PER_PASS[self._device.type]
        passes = [self._encoder(self._squares(frames[start : start + most])) for start in range(0, len(frames), most)]
        stride = self.input_side // GRID_SIDE
        grid = [(-(-frame.shape[0] // stride), -(-frame.shape[1] // stride)) for frame in frames]
        return SamEmbedding(torch.cat(passes), grid)

    def _squares(self, frames: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """Frames normalised and padded: (B, 3, input_side, input_side) float32."""
        batch = torch.zeros(len(frames), 3, self.input_side, self.input_side, device=self._device)
        for row, frame in enumerate(frames):
            pixels = torch.tensor(frame, device=self._device).permute(2, 0, 1).float()
            batch[row, :, : frame.shape[0], : frame.shape[1]] = (pixels - self._mean) / self._std
        return batch

    def features(self, embedding: SamEmbedding, image: int) -> FloatArray:
        """See MaskModel.features."""
        height, width = embedding.grid_hw[image]
        return np.asarray(embedding.image[image, :, :height, :width].float().cpu().numpy(), np.float32)

    @torch.inference_mode()
    def predict(self, embedding: SamEmbedding, prompts: PromptBatch) -> Candidates:
        """See MaskModel.predict."""
        most = PROMPTS_PER_PASS[self._device.type]
        return decoded(prompts, partial(self._decode, embedding), most, self.candidates, self.mask_side)

    @property
    def iou_head(self) -> torch.nn.Module:
        """See adapter.AdaptableModel."""
        return self._decoder.iou_prediction_head

    @property
    def iou_layers(self) -> list[torch.nn.Linear]:
        """See adapter.AdaptableModel."""
        return list(self._decoder.iou_prediction_head.layers)

    def to_predicted_iou(self, output: torch.Tensor, inputs: torch.Tensor) -> torch.Tensor:  # noqa: ARG002
        """See adapter.AdaptableModel; the first output is the single-mask one's."""
        return output[:, 1:]

    def _decode(self, embedding: SamEmbedding, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Prompts of one token count -> logits (N, 3, 256, 256), predicted IoU (N, 3).

        As MaskDecoder.predict_masks, with an image for each prompt in place of one image for all.
        """
        decoder = self._decoder
        sparse, dense = self._prompts(
            points=self._points(prompts),
            boxes=self._tensor(prompts.boxes_xyxy),
            masks=(None if prompts.mask_logits is None else self._tensor(prompts.mask_logits[:, None])),
        )
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(len(prompts), -1, -1), sparse], dim=1)
        image = embedding.image[torch.as_tensor(prompts.image_index, device=self._device)] + dense
        position = self._position.expand(len(prompts), -1, -1, -1)
        hidden, source = decoder.transformer(image, position, tokens)
        upscaled = decoder.output_upscaling(source.transpose(1, 2).reshape(image.shape))
        # Token 0 is the IoU's; mask token 0 is the single-mask output, which multimask selection leaves out.
        weights = torch.stack(
            [mlp(hidden[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps) if i > 0], dim=1
        )
        masks = torch.einsum("nkc,nchw->nkhw", weights, upscaled)
        if self._by_stability:
            return masks, _stability(masks)
        return masks, decoder.iou_prediction_head(hidden[:, 0])[:, 1:]

    def _points(self, prompts: PromptBatch) -> tuple[torch.Tensor, torch.Tensor] | None:
        if prompts.points_xy is None or prompts.point_labels is None:
            return None
        present = int((prompts.point_labels[0] >= 0).sum())
        return self._tensor(prompts.points_xy[:, :present]), self._tensor(prompts.point_labels[:, :present])

    def _tensor(self, values: npt.NDArray[Any] | None) -> Any:
        return None if values is None else torch.as_tensor(np.ascontiguousarray(values), device=self._device)


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
