"""A `cuda` that is none: tensors have that device, a shape, and no values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode


@contextmanager
def no_device() -> Iterator[None]:
    """Within it tensors are torch's fake ones, and modules can be moved to `cuda`."""
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "_apply", _apply)
        yield


def _apply(module: torch.nn.Module, function: Callable[[Tensor], Tensor], recurse: bool = True) -> torch.nn.Module:
    """As torch's own, which exchanges tensors for others in place: those without values cannot be."""
    for part in module.modules():
        for tensors in (part._parameters, part._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = function(tensor.detach())
                    tensors[name] = torch.nn.Parameter(moved, False) if tensors is part._parameters else moved
    return module
