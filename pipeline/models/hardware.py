"""What this machine can do beside multiplying."""

from __future__ import annotations

import os
import shutil
from functools import cache
from importlib.util import find_spec

KERNEL_BYTES = 160 << 10
"""Of shared memory that a kernel may take: A100, H100 and later have it; A10, L4 and GPUs of desktops have 100 KiB."""


def has_c_compiler() -> bool:
    """Triton compiles what starts a kernel with one, when it is first used."""
    return any(shutil.which(name) for name in (os.environ.get("CC") or "cc", "gcc", "clang"))


@cache
def runs_triton() -> bool:
    """Whether our kernels, written in Triton, run on this process's GPU."""
    import torch  # takes seconds; commands that need no model do without

    if not torch.cuda.is_available() or torch.version.hip is not None:
        return False
    room = getattr(torch.cuda.get_device_properties(), "shared_memory_per_block_optin", 0)
    return room >= KERNEL_BYTES and find_spec("triton") is not None and has_c_compiler()
