"""What several chunks at an actor are worth: SAMRefiner around a model that sleeps for as long as a GPU would compute.

    python -m tests.benchmarks.speed_overlap --data ../shared/data/dev [--encode-ms 120 --decode-ms 1 --masks 7]
        [--pixels-on-device]

Photographs at 1024 pixels, so many masks each, one iteration; prompts, upsampling, scores and run lengths are done, on
this machine's cores, beside the sleep. With --pixels-on-device what a GPU would do of it (`models/on_device.py`) is
answered from memory; starting its kernels is not counted. Prints JSON: for 1 to 4 chunks at once images/s, and those
over what the encoder alone would reach. The GPU's share of the work cannot be measured this way; that it is not kept
waiting can.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipeline.configuration import resolve
from pipeline.masks.binary import Mask
from pipeline.masks.decode import decode_image
from pipeline.masks.frames import PROMPT_SIDE, FloatArray, Frame, resize_to_input
from pipeline.masks.views import Judged, View
from pipeline.models import Candidates, PromptBatch
from pipeline.models.on_device import OnDevice
from pipeline.refiners import REFINERS, RefineImage
from pipeline.refining.busy_time import SingleThreadProxy
from tests.benchmarks.speed_lite import MAX_PIXELS, photos

CHUNK, CHUNKS = 8, 12
CHUNKS_AT_ONCE = (1, 2, 3, 4)


class RememberingDevice(OnDevice):
    """Computes everything once, on the CPU, and then gives the same answers; masks come in bits, as over a bus."""

    def __init__(self) -> None:
        super().__init__(torch.device("cpu"))
        self._known: dict[object, Any] = {}

    def fields_to_mask(
        self, fields: FloatArray, box_xyxy: tuple[int, int, int, int], frame: Frame, mask_side: int
    ) -> FloatArray:
        key = (frame, box_xyxy)
        if key not in self._known:
            self._known[key] = super().fields_to_mask(fields, box_xyxy, frame, mask_side)
        return np.array(self._known[key])

    def masks(self, logits: FloatArray, frame: Frame) -> list[Mask]:
        key = (frame, len(logits), float(logits[:, ::8, ::8].sum()))
        if key not in self._known:
            self._known[key] = [np.packbits(mask) for mask in super().masks(logits, frame)]
        return [_unpacked(bits, frame.size_hw) for bits in self._known[key]]

    def judge(
        self, pixels: npt.NDArray[np.uint8], coarse: Sequence[Mask], views: Sequence[Sequence[View]]
    ) -> list[Judged] | None:
        key = (pixels.ctypes.data, len(coarse))
        if key not in self._known:
            judged = super().judge(pixels, coarse, views) or []
            self._known[key] = [(np.packbits(mask), scores) for mask, scores in judged]
        return [Judged(_unpacked(bits, coarse[0].shape), scores) for bits, scores in self._known[key]]


def _unpacked(bits: npt.NDArray[np.uint8], size_hw: Sequence[int]) -> Mask:
    return np.unpackbits(bits, count=size_hw[0] * size_hw[1]).reshape(size_hw)


class SleepingModel:
    """A MaskModel that answers with the coarse mask, after a while."""

    name = "vit_b"
    weights_sha256 = ""
    input_side = PROMPT_SIDE
    mask_side = 256
    similarity_cut = 0.5

    def __init__(self, encode_s: float, decode_s: float, on_device: OnDevice | None) -> None:
        self._encode_s, self._decode_s, self.on_device = encode_s, decode_s, on_device

    def encode(self, frames: Sequence[npt.NDArray[np.uint8]]) -> None:
        time.sleep(self._encode_s * len(frames))

    def predict(self, _embedding: None, prompts: PromptBatch) -> Candidates:
        time.sleep(self._decode_s * len(prompts))
        assert prompts.coarse is not None
        logits = np.repeat((8 * prompts.coarse - 4)[:, None], 3, axis=1)
        return Candidates(logits, np.tile(np.array([0.5, 0.9, 0.7], np.float32), (len(prompts), 1)))


def chunks(data: Path, masks: int) -> list[list[RefineImage]]:
    found = photos(data, "superpixel")
    images = []
    for photo in found[:: max(1, len(found) // CHUNK)][:CHUNK]:
        pixels = decode_image(photo.path.read_bytes(), MAX_PIXELS)
        frame = Frame((pixels.shape[0], pixels.shape[1]), PROMPT_SIDE)
        images.append(RefineImage(resize_to_input(pixels, PROMPT_SIDE), frame, (photo.coarse * masks)[:masks]))
    return [images] * CHUNKS


def measure(options: argparse.Namespace) -> dict[str, Any]:
    given = chunks(options.data, options.masks)
    overrides = {"method": {"model": "vit_b", "iterations": options.iterations, "encode_batch": 4}}
    method = resolve("published-code", None, overrides).method
    device = RememberingDevice() if options.pixels_on_device else None
    model = SingleThreadProxy(partial(SleepingModel, options.encode_ms / 1000, options.decode_ms / 1000, device))
    REFINERS["samrefiner"].run(model, given[0], method)
    found: dict[str, Any] = {**vars(options), "data": str(options.data), "cores": os.cpu_count()}
    for at_once in CHUNKS_AT_ONCE:
        started, cpu = time.perf_counter(), time.process_time()
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(lambda images: REFINERS["samrefiner"].run(model, images, method), given))
        rate = CHUNK * CHUNKS / (time.perf_counter() - started)
        found[f"{at_once} at once"] = {
            "images_per_s": round(rate, 2),
            "of_encoder_alone": round(rate * options.encode_ms / 1000, 3),
            "cpu_ms_per_image": round(1000 * (time.process_time() - cpu) / (CHUNK * CHUNKS), 1),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--encode-ms", type=float, default=120.0, help="for each image")
    parser.add_argument("--decode-ms", type=float, default=1.0, help="for each mask")
    parser.add_argument("--masks", type=int, default=7)
    parser.add_argument("--iterations", type=int, default=1)
    parser.add_argument("--pixels-on-device", action="store_true", help="answer what a GPU would compute from memory")
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
