"""Networks that refine a mask directly: (image, mask) -> probability. No prompts, no embedding.

torchscript   any exported model, saved by torch.jit.save, or (named .pt2) by torch.export.save with dynamic height
              and width. It is called with image (1, 3, H, W) float32 RGB in [0, 1] and mask (1, 1, H, W) float32
              {0, 1}, and returns the probability of foreground in [0, 1], of H x W values. Its own normalisation,
              padding and cropping belong inside. An exported model is a program: take it only from whom you would
              take code.
cascadepsp    CascadePSP (Cheng et al., CVPR 2020), the network of the package segmentation-refinement (MIT licence)
              with its released weights, which its authors publish under the same licence; they were trained on
              MSRA-10K, DUT-OMRON, ECSSD and FSS-1000, whose images have terms of their own.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.errors import JobError, RefusedError
from pipeline.masks.binary import Mask
from pipeline.masks.frames import ORIGINAL_SIZE, FloatArray
from pipeline.models.registry import ModelSpec, Runtime

CASCADE_SIDE_PX = 900  # the package's default L: the global step's size, and the side of the local step's crops
CASCADE_MEAN = np.array([0.485, 0.456, 0.406], np.float32)
CASCADE_STD = np.array([0.229, 0.224, 0.225], np.float32)


class TorchScriptModel:
    """An exported (image, mask) -> probability model."""

    name = "torchscript"
    input_side = ORIGINAL_SIZE

    def __init__(self, path: Path, weights_sha256: str, device: str) -> None:
        self.weights_sha256 = weights_sha256
        self._device = device
        try:
            self._module = _load_exported(path, device)
        except Exception as error:  # torch raises whatever a wrong file leads it to
            raise RefusedError(
                f"{path} is not a model saved by torch.jit.save, or named .pt2 by torch.export.save: "
                f"{_first_line(error)}"
            ) from None

    def probability(self, image_rgb: npt.NDArray[np.uint8], mask: Mask) -> FloatArray:
        """(H, W, 3) uint8 RGB, (H, W) uint8 {0, 1} -> (H, W) float32 in [0, 1]."""
        image = torch.from_numpy(np.array(image_rgb.transpose(2, 0, 1)[None], np.float32) / 255)
        coarse = torch.from_numpy(np.array(mask[None, None], np.float32))
        with torch.inference_mode():
            output = self._module(image.to(self._device), coarse.to(self._device))
        return _checked(output, mask.shape)


class CascadePspModel:
    """CascadePSP, global and local step, as the package's `Refiner.refine` runs them."""

    name = "cascadepsp"
    input_side = ORIGINAL_SIZE

    def __init__(self, path: Path, weights_sha256: str, device: str) -> None:
        # not the package's own Refiner: it downloads, and unpickles without weights_only
        from segmentation_refinement.models.psp.pspnet import RefinementModule  # an extra

        self.weights_sha256 = weights_sha256
        self._device = device
        self._network: Any = RefinementModule()
        try:
            saved = torch.load(path, map_location=device, weights_only=True)
            self._network.load_state_dict({name.removeprefix("module."): value for name, value in saved.items()})
        except (RuntimeError, AttributeError, pickle.UnpicklingError) as error:
            raise RefusedError(f"{path} does not hold CascadePSP's weights: {_first_line(error)}") from None
        self._network.eval().to(device)

    def probability(self, image_rgb: npt.NDArray[np.uint8], mask: Mask) -> FloatArray:
        """(H, W, 3) uint8 RGB, (H, W) uint8 {0, 1} -> (H, W) float32 in [0, 1]."""
        from segmentation_refinement.eval_helper import process_high_res_im  # an extra

        pixels = (image_rgb / np.float32(255) - CASCADE_MEAN) / CASCADE_STD
        image = torch.from_numpy(np.array(pixels.transpose(2, 0, 1)[None], np.float32)).to(self._device)
        coarse = torch.from_numpy(np.array(mask[None, None], np.float32) * 2 - 1).to(self._device)
        with torch.inference_mode(), contextlib.redirect_stdout(io.StringIO()):
            output = process_high_res_im(self._network, image, coarse, CASCADE_SIDE_PX)
        return _checked(output, mask.shape)


def load_torchscript(_spec: ModelSpec, path: Path, sha256: str, runtime: Runtime) -> TorchScriptModel:
    """See registry.Load."""
    return TorchScriptModel(path, sha256, runtime.device)


def load_cascadepsp(_spec: ModelSpec, path: Path, sha256: str, runtime: Runtime) -> CascadePspModel:
    """See registry.Load."""
    return CascadePspModel(path, sha256, runtime.device)


def _load_exported(path: Path, device: str) -> Any:
    if path.suffix == ".pt2":
        return torch.export.load(path).module().to(device)
    return torch.jit.load(str(path), map_location=device).eval()


def _checked(output: Any, size_hw: tuple[int, ...]) -> FloatArray:
    """A model's answer as (H, W) float32. A wrong one is the model's fault, and so of every image: JobError."""
    if not isinstance(output, torch.Tensor) or output.numel() != size_hw[0] * size_hw[1]:
        found = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise JobError(f"the exported model returned {found} for a mask of {size_hw}; expected (1, 1, H, W)")
    probability = output.detach().float().cpu().numpy().reshape(size_hw)
    if not np.isfinite(probability).all() or probability.min() < 0 or probability.max() > 1:
        raise JobError("the exported model returned values outside [0, 1]: expected probabilities, not logits")
    return np.asarray(probability, np.float32)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:200]
