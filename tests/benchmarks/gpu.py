"""Everything that only a GPU can show, in one command; not yet run on one.

    python -m tests.benchmarks.gpu [--models vit_b vit_h] [--json gpu.json]

The encoder alone (package float32; this project's in bfloat16, plain and compiled, batches 1 to 16) against the
measured ceiling, then whole refinement at 7 masks an image with 1 and 5 iterations, plain and compiled, one chunk and
four at once as an actor has them, and its rate over the encoder's own. Random weights: what is computed does not depend
on them, but masks from them say nothing. segment-anything-fast publishes 23.2 (ViT-H) and 92 (ViT-B) images/s for an
A100.

`--device cpu --images 1` goes through the same lines without one; its figures are of a CPU.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from pipeline.configuration import resolve
from pipeline.masks import binary
from pipeline.masks.frames import Frame
from pipeline.models import load_model
from pipeline.models.ceiling import peak_memory_mb, settle
from pipeline.models.weights import resolve as resolve_weights
from pipeline.refiners import REFINERS, RefineImage
from pipeline.refining.busy_time import InOneThread
from pipeline.storage import Access
from tests.benchmarks import speed_encoder

MASKS_PER_IMAGE, CHUNK = 7, 16
BATCHES = (1, 4, 8, 16)


def encoders(model: str, device: str, images: int) -> list[dict[str, Any]]:
    rows = []
    ways = [["package", "--batch", "1"]]
    ways += [["project", "--batch", str(batch)] for batch in BATCHES if batch <= images]
    if device != "cpu":
        ways += [["project", "--batch", str(batch), "--compile"] for batch in BATCHES if batch <= images]
    for way in ways:
        words = [*way, "--model", model, "--device", device, "--images", str(images), "--warm-up", "3", "--check"]
        rows.append({"model": model, "options": " ".join(way), **speed_encoder.measure(speed_encoder.parse(words))})
        free_memory(device)
    return rows


def refinement(model: str, device: str, images: int, encoder_images_per_s: float) -> list[dict[str, Any]]:
    """Images/s of encode, prompts, decode, masks and scores together."""
    scenes = [scene(np.random.default_rng(seed)) for seed in range(images)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{model}.safetensors"
        state = sam_model_registry[model]().state_dict()
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, checkpoint)
        for compiled in (False, True) if device != "cpu" else (False,):
            weights = resolve_weights(model, str(checkpoint), Access())
            threads = os.cpu_count() or 1
            loaded = InOneThread(partial(load_model, model, weights, device, threads, "bfloat16", compiled))
            for iterations, at_once in itertools.product((1, 5), (1, 4)):
                options = {"model": model, "iterations": iterations, "compiled": compiled, "chunks_at_once": at_once}
                measured = refine(loaded, scenes, model, iterations, at_once, device)
                share = measured["images_per_s"] / encoder_images_per_s
                rows.append({**options, **measured, "of_encoder_alone": round(share, 3)})
                print(json.dumps(rows[-1]), flush=True)
            del loaded
            free_memory(device)
    return rows


def refine(
    loaded: InOneThread, scenes: list[RefineImage], model: str, iterations: int, at_once: int, device: str
) -> dict[str, float]:
    """Rates of one way through the scenes, `at_once` chunks of them side by side; one chunk before to warm up."""
    method = resolve("published-code", None, {"method": {"model": model, "iterations": iterations}}).method
    chunks = [scenes[first : first + CHUNK] for first in range(0, len(scenes), CHUNK)]
    REFINERS["samrefiner"].run(loaded, chunks[0], method)
    settle(device)
    started, cpu = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(at_once) as pool:
        list(pool.map(lambda images: REFINERS["samrefiner"].run(loaded, images, method), chunks))
    settle(device)
    elapsed = time.perf_counter() - started
    return {
        "images_per_s": round(len(scenes) / elapsed, 2),
        "masks_per_s": round(len(scenes) * MASKS_PER_IMAGE / elapsed, 2),
        "cpu_ms_per_image": round(1000 * (time.process_time() - cpu) / len(scenes), 1),
        "peak_gib": round(peak_memory_mb(device) / 1024, 2),
    }


def free_memory(device: str) -> None:
    """Back to the device, so that each way starts alike."""
    gc.collect()
    if device != "cpu":
        torch.cuda.empty_cache()


def scene(rng: np.random.Generator) -> RefineImage:
    """Noise of 1024 x 768 with discs as masks."""
    frame = Frame((768, 1024), 1024)
    rows, columns = np.mgrid[:768, :1024]
    discs = [
        (rows - rng.integers(100, 668)) ** 2 + (columns - rng.integers(100, 924)) ** 2 < rng.integers(20, 100) ** 2
        for _ in range(MASKS_PER_IMAGE)
    ]
    pixels = rng.integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    return RefineImage(pixels, frame, [binary.encode(disc) for disc in discs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_b", "vit_h"])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=64, help="of each measurement")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.device != "cpu" and not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing was measured")
    name = "CPU" if options.device == "cpu" else torch.cuda.get_device_name()
    result: dict[str, Any] = {"device": name, "encoder": [], "refinement": []}
    for model in options.models:
        with torch.inference_mode():
            of_model = encoders(model, options.device, options.images)
        fastest = max(row["images_per_s"] for row in of_model)
        result["encoder"] += of_model
        result["refinement"] += refinement(model, options.device, options.images, fastest)
        print(json.dumps(result, indent=1), flush=True)
        if options.json:
            options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
