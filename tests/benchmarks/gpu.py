"""Everything that only a GPU can show, in one command; not yet run on one.

    python -m tests.benchmarks.gpu [--models vit_b vit_h] [--json gpu.json]

The encoder alone (package float32; this project's in bfloat16, plain and compiled, batches 1 to 16) against the
measured ceiling, then whole refinement at 7 masks an image with 1 and 5 iterations. Random weights: what is computed
does not depend on them, but masks from them say nothing. segment-anything-fast publishes 23.2 (ViT-H) and 92 (ViT-B)
images/s for an A100.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from segment_anything import sam_model_registry

from pipeline import masks
from pipeline.geometry import Frame
from pipeline.models.sam import SamModel
from pipeline.refiners import REFINERS, RefineImage
from schemas.config import resolve
from tests.benchmarks import speed_encoder

MASKS_PER_IMAGE, IMAGES = 7, 32


def encoders(model: str) -> list[dict[str, Any]]:
    rows = []
    ways = [["package", "--batch", "1"]]
    ways += [["project", "--batch", str(batch)] for batch in (1, 4, 8, 16)]
    ways += [["project", "--batch", str(batch), "--compile", "max-autotune"] for batch in (1, 8)]
    for way in ways:
        words = [*way, "--model", model, "--device", "cuda", "--images", str(IMAGES), "--warm-up", "3", "--check"]
        rows.append({"model": model, "options": " ".join(way), **speed_encoder.measure(speed_encoder.parse(words))})
        torch.cuda.empty_cache()
    return rows


def refinement(model: str, folder: Path) -> list[dict[str, Any]]:
    """Images/s of encode, prompts, decode, masks and scores together, one process."""
    checkpoint = folder / f"{model}.safetensors"
    state = sam_model_registry[model]().state_dict()
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, checkpoint)
    loaded = SamModel(model, checkpoint, "", "cuda", torch.bfloat16)
    rng = np.random.default_rng(0)
    images = [scene(rng) for _ in range(IMAGES)]
    rows = []
    for iterations in (1, 5):
        method = resolve(
            "published-code", None, {"method": {"model": model, "iterations": iterations, "encode_batch": 8}}
        ).method
        REFINERS["samrefiner"](loaded, images[:8], method)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        REFINERS["samrefiner"](loaded, images, method)
        torch.cuda.synchronize()
        elapsed = time.perf_counter() - started
        rows.append(
            {
                "model": model,
                "iterations": iterations,
                "images_per_s": round(IMAGES / elapsed, 2),
                "masks_per_s": round(IMAGES * MASKS_PER_IMAGE / elapsed, 2),
                "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
            }
        )
    return rows


def scene(rng: np.random.Generator) -> RefineImage:
    """Noise of 1024 x 768 with discs as masks."""
    frame = Frame((768, 1024), 1024)
    rows, columns = np.mgrid[:768, :1024]
    discs = [
        (rows - rng.integers(100, 668)) ** 2 + (columns - rng.integers(100, 924)) ** 2 < rng.integers(20, 100) ** 2
        for _ in range(MASKS_PER_IMAGE)
    ]
    pixels = rng.integers(0, 256, (768, 1024, 3), dtype=np.uint8)
    return RefineImage(pixels, frame, [masks.encode(disc) for disc in discs])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=["vit_b", "vit_h"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("no CUDA device here: nothing was measured")
    result: dict[str, Any] = {"device": torch.cuda.get_device_name(), "encoder": [], "refinement": []}
    with torch.inference_mode(), tempfile.TemporaryDirectory() as folder:
        for model in options.models:
            result["encoder"] += encoders(model)
            result["refinement"] += refinement(model, Path(folder))
            print(json.dumps(result, indent=1))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
