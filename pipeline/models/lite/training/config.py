"""What a training run is given, and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from pipeline.models.lite.training.validation import Validation

PAUSE_NAME = "pause"
Feed = Literal["workers", "device"]


@dataclass(frozen=True)
class TrainConfig:
    """One run. Exactly one of `steps` and `minutes` is given.

    feed: "workers" makes examples on CPU processes; "device" keeps images and masks on the device and makes batches
    there (device_feed.py).
    """

    data: Sequence[Path]  # folders with gt.json and images/
    output: Path
    steps: int | None = None
    minutes: float | None = None
    device: str = "cpu"
    feed: Feed = "workers"
    images: int = 4  # crops in a step at side 256
    masks: int = 4  # prompts for each crop
    head_rate: float = 1e-3
    backbone_rate: float = 1e-4
    weight_decay: float = 0.02
    average: float = 0.998
    seed: int = 0
    processes: int = 1  # that share the crops of a step
    threads: int = 1  # of each process
    workers: int = 1  # of each process, that make examples
    bf16: bool = field(default_factory=torch.cpu._is_avx512_bf16_supported)  # emulated elsewhere: twice as slow as fp32
    init: Path | None = None  # weights to start from (`export`'s format); ImageNet's backbone when None
    imagenet: bool = True
    large_side_from: float = 0.875  # of the schedule: crops of side 512 after it, of 256 before
    checkpoint_s: float = 60
    validations: int = 8  # over the run, one of them at the end; work for a CPU
    fits_iou: bool = True  # at the end, the correction of the predicted IoU; on a CPU, for minutes
    report_every: int = 1  # steps; a report waits for the device
    photo_limit: int | None = None  # of each folder
    cache: Path | None = None  # folder for decoded images, shared by processes and runs

    @property
    def pause_file(self) -> Path:
        """While it exists, training sleeps."""
        return self.output / PAUSE_NAME


def of_device(device: str) -> dict[str, Any]:
    """What TrainConfig should be given for a device, where it is not a CPU: everything is made and kept there.

    256 prompts a step: fewer leave a GPU waiting for the CPU that starts its kernels.
    """
    if device == "cpu":
        return {}
    return {"feed": "device", "images": 64, "masks": 4, "bf16": True}


@dataclass(frozen=True)
class Event:
    """What a caller may show: every `report_every` steps, and `validation` where one was made."""

    step: int
    progress: float
    side: int
    mask_loss: float
    iou_loss: float
    best_iou: float
    seconds: float
    prompts_per_s: float = 0.0  # since the last event
    data_share: float = 0.0  # of the time since the last event: waiting for examples
    validation: Validation | None = None
