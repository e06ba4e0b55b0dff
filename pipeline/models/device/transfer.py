"""Between numpy and tensors of a device, without waiting for it: through pinned memory where there is a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.models.protocol import PromptBatch


class PromptTensors(NamedTuple):
    """N prompts; None where that prompt is not given. Meaning and ranges as in `models.PromptBatch`."""

    image_index: Tensor  # (N,) int64
    points_xy: Tensor | None  # (N, P, 2)
    point_labels: Tensor | None  # (N, P)
    boxes_xyxy: Tensor | None  # (N, 4)
    mask_logits: Tensor | None  # (N, S/2, S/2)
    coarse: Tensor | None  # (N, S/2, S/2)


def sent(values: npt.ArrayLike, device: torch.device) -> Tensor:
    """An array as a tensor of the device. What is done next on the device waits for it; the caller does not."""
    tensor = torch.from_numpy(np.ascontiguousarray(values))
    if device.type == "cpu":
        return tensor
    tensor = tensor.pin_memory() if torch.cuda.is_available() else tensor
    return tensor.to(device, non_blocking=True)


def squares_of(frames: Sequence[npt.NDArray[np.uint8]], side: int, device: torch.device) -> Tensor:
    """Pictures (h, w, 3) uint8 at the top left of black squares, sent: (N, side, side, 3). Written once, where copies
    to a GPU start from."""
    shape, goes = (len(frames), side, side, 3), device.type != "cpu" and torch.cuda.is_available()
    pinned = torch.zeros(shape, dtype=torch.uint8, pin_memory=True) if goes else None
    squares = np.zeros(shape, np.uint8) if pinned is None else pinned.numpy()
    for square, frame in zip(squares, frames, strict=True):
        square[: frame.shape[0], : frame.shape[1]] = frame
    return sent(squares, device) if pinned is None else pinned.to(device, non_blocking=True)


def prompt_tensors(prompts: PromptBatch, device: torch.device) -> PromptTensors:
    """Prompts, sent."""

    def of(values: npt.NDArray[Any] | None) -> Tensor | None:
        return None if values is None else sent(values, device)

    return PromptTensors(
        sent(prompts.image_index, device),
        of(prompts.points_xy),
        of(prompts.point_labels),
        of(prompts.boxes_xyxy),
        of(prompts.mask_logits),
        of(prompts.coarse),
    )


def split(prompts: PromptTensors, most: int) -> list[PromptTensors]:
    """The same prompts, so many at a time at most."""
    starts = range(0, len(prompts.image_index), most)
    parts = [[None if of is None else of[start : start + most] for of in prompts] for start in starts]
    return [PromptTensors(*part) for part in parts]  # type: ignore[arg-type]  # what is given whole is given in part


class Fetched:
    """Tensors on their way to the host. Made without waiting; who wants the values waits, in whatever thread."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Copies are queued behind all that the device was given so far."""
        on_gpu = torch.cuda.is_available() and any(tensor.is_cuda for tensor in tensors.values())
        self._host = {
            name: torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=on_gpu).copy_(
                tensor, non_blocking=True
            )
            for name, tensor in tensors.items()
        }
        self._done = torch.cuda.Event(blocking=True) if on_gpu else None  # who waits leaves its core to others
        if self._done is not None:
            self._done.record()

    def values(self) -> dict[str, npt.NDArray[Any]]:
        """The tensors' values, by name."""
        if self._done is not None:
            self._done.synchronize()
        return {name: tensor.numpy() for name, tensor in self._host.items()}
