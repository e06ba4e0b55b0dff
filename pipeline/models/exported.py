"""Another encoder with Segment Anything's decoder: MobileSAM, EfficientSAM, EfficientViT-SAM, RepViT-SAM, EdgeSAM.

They keep SAM's prompt encoder and mask decoder, so a folder of three files is enough:

    encoder.onnx          one input, normalised squares (B or 1, 3, S, S) float32; its first output the embeddings
                          (B or 1, 256, 64, 64) float32. All weights are inside: no external data
    decoder.safetensors   tensors `prompt_encoder.*` and `mask_decoder.*` by the names of segment-anything
    config.json           {"format": "relabel-exported-1", "input_side": S, "view": "padded" or "stretched",
                          "mean": [r, g, b], "std": [r, g, b] of values in [0, 255],
                          "choose_by": "predicted_iou", or "stability" for an IoU head that was not trained for it}

ONNX is a graph without code of its own; torch's own archives may be unpickled where they say so, and are not taken.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import RefusedError
from pipeline.models import folders
from pipeline.models.hf_config import read_json_of
from pipeline.models.registry import EXPORTED, ModelSpec, Normalisation, Runtime
from pipeline.models.sam import GRID_SIDE, SamModel
from pipeline.storage import Access, brief

FORMAT = "relabel-exported-1"
EMBEDDING = (256, GRID_SIDE, GRID_SIDE)


def read(uri: str, access: Access) -> ModelSpec:
    """The spec of the folder's model. Raises RefusedError."""
    config = read_json_of(uri, folders.CONFIG, access) or {}
    if config.get("format") != FORMAT:
        raise RefusedError(f"{uri} is no exported model: its config.json has no format {FORMAT}")
    try:
        side, view, choose_by = int(config["input_side"]), config["view"], config.get("choose_by", "predicted_iou")
        mean, std = ((float(red), float(green), float(blue)) for red, green, blue in (config["mean"], config["std"]))
        usable = side > 0 and side % GRID_SIDE == 0 and 0 not in std
        known = view in ("padded", "stretched") and choose_by in ("predicted_iou", "stability")
    except (KeyError, TypeError, ValueError):
        usable = known = False
    if not (usable and known):
        raise RefusedError(
            f"config.json of {uri}: input_side (a multiple of {GRID_SIDE}), view, mean, std or choose_by is wrong"
        )
    return replace(
        EXPORTED,
        input_side=side,
        view=view,
        normalisation=Normalisation(mean, std),
        choose_by=choose_by,
        adaptable=choose_by == "predicted_iou",
    )


def load(spec: ModelSpec, path: Path, sha256: str, runtime: Runtime) -> SamModel:
    """See registry.Load."""
    if runtime.dtype != "float32":
        raise RefusedError("an exported encoder computes in its own dtype: set `dtype: float32` under `method`")
    encoder = OnnxEncoder(path, runtime.device)
    return SamModel(spec, path / "decoder.safetensors", sha256, runtime.device, encoder=encoder)


class OnnxEncoder:
    """Normalised squares -> embeddings, by onnxruntime on the CPU or a GPU."""

    def __init__(self, folder: Path, device: str) -> None:
        """Raises RefusedError for a folder without a usable encoder, or a device that onnxruntime has no code for."""
        import onnxruntime  # an extra

        provider = "CUDAExecutionProvider" if device.startswith("cuda") else "CPUExecutionProvider"
        if provider not in onnxruntime.get_available_providers():
            raise RefusedError(f"onnxruntime has no {provider} here: install onnxruntime-gpu in its place")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.use_deterministic_compute = True
        options.log_severity_level = 4  # what is wrong is raised, too
        try:
            with folders.alone(folder, ("encoder.onnx",)) as given:
                self._session = onnxruntime.InferenceSession(str(given / "encoder.onnx"), options, providers=[provider])
        except Exception as error:  # onnxruntime has several of its own
            raise RefusedError(f"encoder.onnx of {folder} cannot be read: {brief(error)}") from None
        self._folder = folder
        self._input = self._session.get_inputs()[0]

    def __call__(self, squares: Tensor) -> Tensor:
        """(B, 3, S, S) float32 -> (B, 256, 64, 64) float32, on the same device."""
        fixed = self._input.shape[0]
        parts = squares.split(fixed) if isinstance(fixed, int) else [squares]
        found = [torch.from_numpy(self._run(part)) for part in parts]
        return torch.cat(found).to(squares.device)

    def _run(self, squares: Tensor) -> Any:
        try:
            found = self._session.run(None, {self._input.name: squares.cpu().numpy()})[0]
        except Exception as error:  # onnxruntime has several of its own
            raise RefusedError(f"encoder.onnx of {self._folder} does not run: {brief(error)}") from None
        if found.shape[1:] != EMBEDDING or found.dtype != np.float32:
            raise RefusedError(
                f"encoder.onnx of {self._folder} answers {found.dtype} {found.shape[1:]}, not float32 {EMBEDDING}"
            )
        return found
