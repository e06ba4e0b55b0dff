"""Convolutions for inference: bias, sum and activation in one pass over memory.

On CPUs oneDNN does all of it in one call (the operators that TorchInductor emits, so no compiler is needed); elsewhere,
and where torch was built without it, the same function is plain torch. Results agree with `torch.conv2d` and what
follows it up to the order of sums.
"""

from __future__ import annotations

import ctypes
from typing import Literal

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Activation = Literal["none", "relu", "relu6"]
CHANNELS_LAST = torch.channels_last
_ONEDNN: dict[Activation, tuple[str, list[float]]] = {
    "none": ("none", []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}
MOST_SHAPES = 8  # of a convolution's inputs that its weights are kept for
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8  # malloc.h


class FusedConv:
    """activation(conv(x) + other). x is (N, C, H, W), channels last in memory, and so is what comes back."""

    def __init__(
        self,
        conv: nn.Conv2d,
        activation: Activation = "none",
        pad_before: int | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """dtype: of inputs, weights and results; sums are float32.

        pad_before: rows and columns of zeros above and left, where they are fewer than below and right (TensorFlow's
        SAME at stride 2). The kernel is then made one larger by a leading row and column of zeros, which computes the
        same and needs no padded copy of the input.
        """
        weight = conv.weight.detach().to(dtype)
        bias = None if conv.bias is None else conv.bias.detach().to(dtype)
        padding = list(conv.padding) if not isinstance(conv.padding, str) else [0, 0]
        if pad_before is not None:
            weight, padding = F.pad(weight, (1, 0, 1, 0)), [pad_before + 1] * 2
        self._weight, self._bias = weight.contiguous(memory_format=CHANNELS_LAST), bias
        self._geometry = (padding, list(conv.stride), [1, 1], conv.groups)
        self._activation: Activation = activation
        self._onednn = _has_onednn(weight)
        self._packed: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor, other: Tensor | None = None) -> Tensor:
        """`other`, of the result's shape, is added before the activation."""
        if self._onednn:
            return self._in_one_call(x, other)
        padding, stride, dilation, groups = self._geometry
        out = F.conv2d(x, self._weight, self._bias, stride, padding, dilation, groups)
        return _activate(out if other is None else out.add_(other), self._activation)

    def _in_one_call(self, x: Tensor, other: Tensor | None) -> Tensor:
        name, scalars = _ONEDNN[self._activation]
        weight = self._packed_for(x.shape)
        if other is None:
            return torch.ops.mkldnn._convolution_pointwise(x, weight, self._bias, *self._geometry, name, scalars, "")
        unary = "relu" if name == "relu" else None  # the only one that goes with a sum
        other = other.contiguous(memory_format=CHANNELS_LAST)
        out = torch.ops.mkldnn._convolution_pointwise.binary(
            x, other, weight, self._bias, *self._geometry, "add", 1.0, unary, [], ""
        )
        return out if unary else _activate(out, self._activation)

    def _packed_for(self, shape: torch.Size) -> Tensor:
        """The weights as oneDNN would lay them out at every call for inputs of a shape: the results are the same bits.

        Shapes are few: images have one, prompts are as many in all passes but the last.
        """
        if shape not in self._packed:
            if len(self._packed) >= MOST_SHAPES:
                self._packed.clear()
            padding, stride, dilation, groups = self._geometry
            self._packed[shape] = torch.ops.mkldnn._reorder_convolution_weight(
                self._weight, padding, stride, dilation, groups, list(shape)
            )
        return self._packed[shape]


def _activate(x: Tensor, activation: Activation) -> Tensor:
    if activation == "none":
        return x
    return x.relu_() if activation == "relu" else x.clamp_(0, 6)


def _has_onednn(weight: Tensor) -> bool:
    return (
        weight.device.type == "cpu"
        and (weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and cpu_multiplies_bf16()))
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_convolution_weight")
    )


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for it; without them bfloat16 is slower than float32."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors up to 32 MB each, instead of asking the kernel for it again.

    Fresh pages are the largest single cost of a small network's large activations: they fault in and are zeroed at
    every layer. glibc only; elsewhere nothing happens.
    """
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(M_ARENA_MAX, 1)  # the arenas of other threads are too small for such tensors
        libc.mallopt(M_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
        libc.mallopt(M_TOP_PAD, 64 << 20)
    except (OSError, AttributeError):
        return
