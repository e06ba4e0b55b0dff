"""What a training run leaves: a checkpoint to go on from and weights in the package's format."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

WEIGHTS_NAME, RAW_NAME = "lite.safetensors", "raw.safetensors"  # averaged over steps, and as they are


def save_checkpoint(folder: Path, state: Any) -> None:
    """Write folder/checkpoint.pt atomically. `state` is a `loop.State`."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "network": state.network.state_dict(),
        "averaged": state.averaged.state_dict(),
        "optimizer": state.optimizer.state_dict(),
        "step": state.step,
        "worked_s": state.seconds(),
    }
    partial = folder / "checkpoint.pt.tmp"
    torch.save(content, partial)
    partial.replace(folder / "checkpoint.pt")
    export(state.averaged, folder)
    export(state.network, folder, RAW_NAME)


def load_checkpoint(folder: Path, state: Any) -> None:
    """Fill `state` from folder/checkpoint.pt where there is one."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        return
    content = torch.load(path, map_location="cpu", weights_only=True)
    state.network.load_state_dict(content["network"])
    state.averaged.load_state_dict(content["averaged"])
    state.optimizer.load_state_dict(content["optimizer"])
    state.step, state.worked_s, state.clock = content["step"], content["worked_s"], time.monotonic()


def export(network: nn.Module, folder: Path, name: str = WEIGHTS_NAME) -> Path:
    """Write folder/name: fp16, the format of the package. Atomic."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().half().cpu().contiguous() for name, tensor in network.state_dict().items()}
    partial = folder / f"{name}.tmp"
    save_file(tensors, partial)
    return partial.replace(folder / name)
