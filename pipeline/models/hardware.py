"""What this machine can do beside multiplying."""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.util import find_spec

TRITON_SINCE = (8, 0)
"""Compute capability of the first GPUs that Triton's kernels are made for here (Ampere)."""


def has_c_compiler() -> bool:
    """Triton compiles what starts a kernel with one, when it is first used."""
    return any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang"))


@cache
def runs_triton() -> bool:
    """Whether kernels written in Triton run on this process's GPU."""
    import torch  # takes seconds; commands that need no model do without

    if not torch.cuda.is_available() or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability() >= TRITON_SINCE and find_spec("triton") is not None and has_c_compiler()
