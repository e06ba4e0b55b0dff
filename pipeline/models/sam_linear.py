"""Linear layers of Segment Anything's image encoder: in the encoder's dtype, or multiplied in 8 bits."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from pipeline.models.fused import cpu_multiplies_bf16

MLP_TOKENS = {"cpu": 1024, "cuda": 1 << 30}
"""Tokens that a wide layer is computed for at a time."""


class Linear(nn.Module):
    """A linear layer in `dtype`, with a GELU behind it where asked.

    In bfloat16 on CPUs one call of oneDNN does both, with weights laid out for it once (operators that TorchInductor
    emits); F.linear lays them out anew each time, and GELU goes through memory once more. In 16 bits on GPUs cuBLAS
    does both, with GELU by tanh, which is off by 0.0005 at most: less than the rounding of what it is given.
    """

    _weight: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: bool = False) -> None:
        super().__init__()
        self._activation = "gelu" if gelu else "none"
        weight, bias = linear.weight.detach().to(dtype), linear.bias.detach().to(dtype)
        packed = _has_onednn(weight)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(weight, MLP_TOKENS["cpu"]) if packed else None
        self.register_buffer("_weight", None if packed else weight)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self._packed is not None:
            return torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, self._activation, [], "none")
        if self._activation == "gelu" and x.is_cuda and x.dtype != torch.float32:
            flat = torch._addmm_activation(self.bias, x.flatten(0, -2), self._weight.t(), use_gelu=True)
            return flat.unflatten(0, x.shape[:-1])
        out = F.linear(x, self._weight, self.bias)
        return F.gelu(out) if self._activation == "gelu" else out


class Float8Linear(Linear):
    """A linear layer whose product is of 8-bit floats (e4m3), each row of inputs and weights with its own scale.

    Inputs are scaled as they come. On GPUs torch's scaled product; elsewhere, for tests, the same numbers in float32.
    """

    _scale: Tensor

    def __init__(self, linear: nn.Linear, dtype: torch.dtype, gelu: bool = False) -> None:
        super().__init__(linear, dtype, gelu)
        weight, scale = in_8_bits(linear.weight.detach())
        self._packed, self._dtype = None, dtype
        self.register_buffer("_weight", weight)
        self.register_buffer("_scale", scale)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        rows, scale = in_8_bits(x.flatten(0, -2))
        if x.is_cuda:
            out = torch._scaled_mm(
                rows, self._weight.t(), scale_a=scale, scale_b=self._scale.t(), bias=self.bias, out_dtype=self._dtype
            )
        else:
            out = (rows.float() * scale) @ (self._weight.float() * self._scale).t() + self.bias.float()
        out = out.to(self._dtype).unflatten(0, x.shape[:-1])
        return F.gelu(out) if self._activation == "gelu" else out


def in_8_bits(values: Tensor) -> tuple[Tensor, Tensor]:
    """(N, C) -> the same in float8_e4m3fn, and the scale of each row, (N, 1) float32."""
    most = torch.finfo(torch.float8_e4m3fn).max
    scale = values.abs().amax(1, keepdim=True).float().clamp_min(1e-12) / most
    return (values.float() / scale).clamp(-most, most).to(torch.float8_e4m3fn), scale


def _has_onednn(weight: Tensor) -> bool:
    """Whether oneDNN's linear layers are there and worth it for this tensor."""
    return (
        weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and cpu_multiplies_bf16()
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )
