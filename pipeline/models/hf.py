"""The Segment Anything models of transformers, from folders as `save_pretrained` writes them, as a MaskModel.

SAM (SlimSAM and MedSAM are it, too), SAM-HQ, SAM 2 and 2.1, EdgeTAM, SAM 3's tracker. Weights are safetensors, classes
are transformers' own; nothing is fetched here, and no code of a folder's is run. The encoder's matrix products are in
the method's dtype (by autocast: norms and sums stay float32), the decoder is float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import RefusedError
from pipeline.extras import require
from pipeline.masks.frames import PROMPT_SIDE, FloatArray
from pipeline.models import folders
from pipeline.models.folders import CONFIG, PRETRAINED
from pipeline.models.hf_config import Architecture, architecture_of
from pipeline.models.hf_decoders import FAMILIES, Maps, Prompted
from pipeline.models.passes import IMAGES_PER_PASS, PROMPTS_PER_PASS, decoded
from pipeline.models.protocol import Asked, Candidates, Pending, PromptBatch
from pipeline.models.registry import ModelSpec, Runtime
from pipeline.storage import brief


class HfEmbedding(NamedTuple):
    """`maps` of the batch (hf_decoders.Maps) and each image's (h, w) within the last one."""

    maps: Maps
    grid_hw: list[tuple[int, int]]


class HfModel:
    """A model of transformers'. See `MaskModel`."""

    reads_coarse = False
    looks = False  # models/device has neither stretched frames nor prompts whose number of tokens differs

    def __init__(self, spec: ModelSpec, folder: Path, weights_sha256: str, device: str, dtype: torch.dtype) -> None:
        """folder: as PRETRAINED has it. dtype: of the encoder's matrix products.

        Raises RefusedError when the folder does not hold a whole model.
        """
        architecture = architecture_of(folders.read_json(folder / CONFIG, str(folder)), str(folder))
        self._device, self.autocast_dtype = torch.device(device), dtype
        self._network = network = _loaded(architecture, folder).requires_grad_(False).eval().to(self._device)
        self._family = FAMILIES[architecture.name]
        self.name, self.weights_sha256 = spec.name, weights_sha256
        self.stretched, self.similarity_cut = spec.stretched, spec.similarity_cut
        self.candidates = int(network.mask_decoder.num_multimask_outputs)
        self.input_side = int(network.prompt_encoder.input_image_size)
        grid = network.prompt_encoder.image_embedding_size[0]
        self.mask_side = 4 * grid
        self._stride = self.input_side // grid
        self._position = _position(network, grid, self._device)
        self._mean = torch.tensor(spec.normalisation.mean, device=self._device).view(3, 1, 1)
        self._std = torch.tensor(spec.normalisation.std, device=self._device).view(3, 1, 1)

    @torch.inference_mode()
    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> HfEmbedding:
        """See MaskModel.encode."""
        most = IMAGES_PER_PASS[self._device.type]
        passes = [self._encode(frames[start : start + most]) for start in range(0, len(frames), most)]
        maps = [torch.cat(parts) for parts in zip(*passes, strict=True)]
        grid = [(-(-frame.shape[0] // self._stride), -(-frame.shape[1] // self._stride)) for frame in frames]
        return HfEmbedding(maps, grid)

    def _encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Maps:
        pixels = self._squares(frames)
        with torch.autocast(self._device.type, self.autocast_dtype, enabled=self.autocast_dtype != torch.float32):
            maps = self._family.encode(self._network, pixels)
        return self._family.finish(self._network, [one.float() for one in maps])

    def _squares(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Tensor:
        """Frames normalised, and padded where they do not fill the square: (B, 3, S, S) float32."""
        batch = torch.zeros(len(frames), 3, self.input_side, self.input_side, device=self._device)
        for row, frame in enumerate(frames):
            pixels = torch.tensor(frame, device=self._device).permute(2, 0, 1).float()
            batch[row, :, : frame.shape[0], : frame.shape[1]] = (pixels - self._mean) / self._std
        return batch

    def features(self, embedding: HfEmbedding, image: int) -> FloatArray:
        """See MaskModel.features."""
        height, width = embedding.grid_hw[image]
        return np.asarray(embedding.maps[-1][image, :, :height, :width].cpu().numpy(), np.float32)

    @torch.inference_mode()
    def predict(self, embedding: HfEmbedding, prompts: PromptBatch) -> Candidates:
        """See MaskModel.predict."""
        most = PROMPTS_PER_PASS[self._device.type]
        return decoded(prompts, partial(self._decode, embedding), most, self.candidates, self.mask_side)

    def look(self, embedding: HfEmbedding, mirrored: HfEmbedding | None, asked: Asked) -> Pending:
        """Not to be had: see `looks`."""
        raise NotImplementedError(f"model {self.name} is asked round by round")

    def _decode(self, embedding: HfEmbedding, prompts: PromptBatch) -> tuple[Tensor, Tensor]:
        """Prompts of one token count, an image for each of them -> logits (N, C, m, m), predicted IoU (N, C)."""
        index = torch.as_tensor(prompts.image_index, device=self._device)
        maps = [one[index] for one in embedding.maps]
        return self._family.decode(self._network, maps, self._prompted(prompts))

    def _prompted(self, prompts: PromptBatch) -> Prompted:
        count, scale = len(prompts), np.float32(self.input_side / PROMPT_SIDE)
        points, labels = None, None
        if prompts.points_xy is not None and prompts.point_labels is not None:
            present = int((prompts.point_labels[0] >= 0).sum())
            points = self._tensor(prompts.points_xy[:, None, :present] * scale)
            labels = self._tensor(prompts.point_labels[:, None, :present])
        sparse, dense = self._network.prompt_encoder(
            input_points=points,
            input_labels=labels,
            input_boxes=None if prompts.boxes_xyxy is None else self._tensor(prompts.boxes_xyxy[:, None] * scale),
            input_masks=None if prompts.mask_logits is None else self._tensor(prompts.mask_logits[:, None]),
        )
        if sparse is None:  # a mask alone
            sparse = dense.new_zeros(count, 1, 0, dense.shape[1])
        return Prompted(sparse, dense, self._position.expand(count, -1, -1, -1))

    def _tensor(self, values: npt.NDArray[Any]) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), device=self._device)

    @property
    def iou_head(self) -> torch.nn.Module:
        """See adapter.AdaptableModel."""
        return self._network.mask_decoder.iou_prediction_head

    @property
    def iou_layers(self) -> list[torch.nn.Linear]:
        """See adapter.AdaptableModel."""
        head = self._network.mask_decoder.iou_prediction_head
        return [head.proj_in, *head.layers, head.proj_out]

    def to_predicted_iou(self, output: Tensor, inputs: Tensor) -> Tensor:  # noqa: ARG002
        """See adapter.AdaptableModel; the first output is the single-mask one's."""
        candidates = output.flatten(0, -2)[:, 1:]
        return candidates.sigmoid() if self._network.mask_decoder.iou_prediction_head.sigmoid_output else candidates


def load(spec: ModelSpec, path: Path, sha256: str, runtime: Runtime) -> HfModel:
    """See registry.Load."""
    require(module="transformers", extra="hf", what=f"model {spec.name}")
    return HfModel(spec, path, sha256, runtime.device, getattr(torch, runtime.dtype))


def _loaded(architecture: Architecture, folder: Path) -> Any:
    """The network with the folder's weights, and with no tensor that the folder lacks. Raises RefusedError."""
    from transformers.utils import logging  # takes seconds, and is an extra

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    network_class = getattr(import_module(f"transformers.models.{architecture.module}"), architecture.network)
    try:
        with folders.alone(folder, PRETRAINED) as given:
            network, found = network_class.from_pretrained(
                given,
                dtype=torch.float32,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers, safetensors and torch each have their own for a damaged folder
        raise RefusedError(f"{folder} cannot be loaded as {architecture.network}: {brief(error)}") from None
    lacking = sorted(map(str, [*found["missing_keys"], *found["mismatched_keys"]]))
    if lacking:
        raise RefusedError(f"{folder} is no whole {architecture.network}: it lacks {', '.join(lacking[:3])}")
    return network


def _position(network: Any, grid: int, device: torch.device) -> Tensor:
    """(1, C, grid, grid) of each place of the embedding, as get_image_wide_positional_embeddings.

    Without its cumulative sums, which are not deterministic on every GPU, and which torch then refuses.
    """
    places = (torch.arange(grid, device=device, dtype=torch.float32) + 0.5) / grid
    coordinates = torch.stack([places.expand(grid, -1), places[:, None].expand(-1, grid)], dim=-1)
    with torch.no_grad():
        return network.shared_image_embedding(coordinates).permute(2, 0, 1)[None]
