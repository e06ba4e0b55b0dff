"""Training of `lite` with what time is left, from the pack that gpu_pack made; weights out every minute."""

from __future__ import annotations

import queue
import shutil
import threading
import zlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import cv2
import torch

from pipeline.models.lite.training.checkpoint import RAW_NAME, WEIGHTS_NAME
from pipeline.models.lite.training.config import Event, TrainConfig, of_device
from pipeline.models.lite.training.data import has_truth
from pipeline.models.lite.training.loop import train as train_lite
from tests.benchmarks.gpu import Clock, Options, Row

LEFT_FOR_THE_END_S = 5
SMALL_PHOTOS, SMALL_CROPS = 40, 4
STARTING_WEIGHTS = "lite.safetensors"
SEEDS = 1 << 20
CROPS = 96  # at side 256, so 48 of side 512 with four prompts each


def train(options: Options, clock: Clock) -> Iterator[Row]:
    """Rows of the curve, as they come from the training's own thread."""
    for pack in options.packs:
        if not has_truth(pack):
            yield {"not_run": f"{pack} is no pack: make it with python -m tests.benchmarks.gpu_pack"}
            return
    minutes = (clock.left() - LEFT_FOR_THE_END_S) / 60
    if minutes <= 0:
        yield {"not_run": "no time was left"}
        return
    config, events = _config(options, minutes), queue.Queue[Event | Exception | None]()
    yield {
        "packs": [str(pack) for pack in options.packs],
        "minutes": round(minutes, 2),
        "feed": config.feed,
        "crops": config.images,
    }

    deterministic = torch.are_deterministic_algorithms_enabled()  # the steps before ask for it; 1.6 times as long here

    def work() -> None:
        try:
            torch.use_deterministic_algorithms(False)
            train_lite(config, events.put)
            events.put(None)
        except Exception as error:  # raised again where the rows are read
            events.put(error)
        finally:
            torch.use_deterministic_algorithms(deterministic)

    threading.Thread(target=work, daemon=True).start()
    while (event := events.get()) is not None:
        if isinstance(event, Exception):
            raise event
        _hand_out(config.output, options.output)
        validation = event.validation
        yield asdict(event) | {"validation": None if validation is None else validation._asdict()}
    _hand_out(config.output, options.output)


def _config(options: Options, minutes: float) -> TrainConfig:
    """Everything on the device, on a CPU too. What a CPU would do meanwhile is left for later: validation, and the
    correction of the predicted IoU. All crops have the side in use: after smaller ones alone, whole photographs come
    out worse than before."""
    cv2.setNumThreads(1)
    init = options.packs[0] / STARTING_WEIGHTS
    settings = {"report_every": 20, "validations": 0, **of_device("cuda"), "images": CROPS}
    if options.device == "cpu":
        settings |= {"bf16": False, "report_every": 5}
    if options.small:
        settings |= {"images": SMALL_CROPS, "photo_limit": SMALL_PHOTOS}
    return TrainConfig(
        options.packs,
        Path("build/gpu-train"),
        minutes=minutes,
        device=options.device,
        init=init,
        seed=zlib.crc32(init.read_bytes()) % SEEDS,
        large_side_from=0.0,
        checkpoint_s=60,
        fits_iou=False,
        **settings,
    )


def _hand_out(folder: Path, output: Path) -> None:
    """Averaged and raw weights, where they changed: files small enough to come back each."""
    for name in (WEIGHTS_NAME, RAW_NAME):
        source, target = folder / name, output / name
        newer = source.exists() and (not target.exists() or source.stat().st_mtime > target.stat().st_mtime)
        if newer:
            shutil.copyfile(source, target)
