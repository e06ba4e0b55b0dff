"""What several chunks at an actor are worth: SAMRefiner around a model that sleeps for as long as a GPU would compute.

    python -m tests.benchmarks.speed_overlap --data ../shared/data/dev [--encode-ms 120 --decode-ms 1 --masks 7]

Photographs at 1024 pixels, so many masks each, one iteration; prompts, views, scores and run lengths are done, on this
machine's cores, beside the sleep, as next to a model that does not `look` by itself. Prints JSON: for 1 to 4 chunks at
once images/s, and those over what the encoder alone would reach.
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

from pipeline.configuration import resolve
from pipeline.decoding.decode import decode_image
from pipeline.masks.frames import PROMPT_SIDE, Frame, resize_to_input
from pipeline.models import Candidates, PromptBatch
from pipeline.refiners import REFINERS, RefineImage
from pipeline.refining.busy_time import SingleThreadProxy
from tests.benchmarks.speed_lite import MAX_PIXELS, photos

CHUNK, CHUNKS = 8, 12
CHUNKS_AT_ONCE = (1, 2, 3, 4)


class SleepingModel:
    """A MaskModel that answers with the coarse mask, after a while."""

    name = "vit_b"
    weights_sha256 = ""
    input_side = PROMPT_SIDE
    mask_side = 256
    similarity_cut = 0.5

    reads_coarse = False
    looks = False

    def __init__(self, encode_s: float, decode_s: float) -> None:
        self._encode_s, self._decode_s = encode_s, decode_s

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
    model = SingleThreadProxy(partial(SleepingModel, options.encode_ms / 1000, options.decode_ms / 1000))
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
    print(json.dumps(measure(parser.parse_args())))


if __name__ == "__main__":
    main()
