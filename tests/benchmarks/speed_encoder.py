"""Segment Anything's image encoder, as the package computes it and as this project does.

    python -m tests.benchmarks.speed_encoder package|project --images 2 [--device cuda --dtype bfloat16 --batch 8]
        [--model vit_h] [--compile]

prints JSON: seconds for each image (median of the batches), TFLOP/s beside the device's measured ceiling for matrix
products of that dtype, and, for the project, the relative error against the package's float32 (CPU: one image).
Weights are random, relative positions and biases not zero; sizes are the official ones.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import ImageEncoderViT
from torch import Tensor

from pipeline.models.ceiling import matmul_tflops, settle
from pipeline.models.encoder_batches import CompiledEncoder
from pipeline.models.fused import keep_freed_memory
from pipeline.models.registry import find
from pipeline.models.sam_encoder import FastEncoder, preferred_dtype


def random_encoder(model: str) -> ImageEncoderViT:
    torch.manual_seed(0)
    encoder = sam_model_registry[model]().image_encoder.eval().requires_grad_(False)
    for name, tensor in encoder.named_parameters():
        if "rel_pos" in name or name == "pos_embed":
            torch.nn.init.normal_(tensor, std=0.05)
    return encoder


def seconds(work: Callable[[], object], device: str) -> float:
    settle(device)
    started = time.perf_counter()
    work()
    settle(device)
    return time.perf_counter() - started


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads or torch.get_num_threads())
    dtype = getattr(torch, options.dtype) if options.dtype else preferred_dtype(options.device)
    encoder = random_encoder(options.model).to(options.device)
    batches = [
        torch.randn(options.batch, 3, 1024, 1024, device=options.device) for _ in range(options.images // options.batch)
    ]
    found: dict[str, Any] = {}
    run: Callable[[Tensor], Tensor] = encoder
    if options.way == "project":
        keep_freed_memory()
        fast = FastEncoder(encoder, dtype)
        if options.check:
            expected, answer = encoder(batches[0][:1]), fast(batches[0][:1])
            found["relative_error"] = float((answer - expected).norm() / expected.norm())
        run = CompiledEncoder(fast, options.batch) if options.compile else fast
    else:
        dtype = torch.float32
    for _ in range(options.warm_up):
        run(batches[0])
    cpu_s = time.process_time()
    each = statistics.median(seconds(lambda batch=batch: run(batch), options.device) for batch in batches)
    cpu_s = (time.process_time() - cpu_s) / len(batches) / options.batch
    each /= options.batch
    tflop = find(options.model).encoder_tflop or float("nan")
    ceiling = matmul_tflops(options.device, str(dtype).removeprefix("torch."))
    return {
        "way": options.way,
        "dtype": str(dtype).removeprefix("torch."),
        "seconds_per_image": round(each, 4),
        "cpu_seconds_per_image": round(cpu_s, 4),
        "images_per_s": round(1 / each, 3),
        "tflops": round(tflop / each, 3),
        "ceiling_tflops": round(ceiling, 3),
        "share_of_ceiling": round(tflop / each / ceiling, 3),
        **found,
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=["package", "project"])
    parser.add_argument("--model", choices=["vit_b", "vit_l", "vit_h"], default="vit_b")
    parser.add_argument("--images", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--warm-up", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="torch.compile of each block")
    parser.add_argument("--check", action="store_true", help="also the error against the package's encoder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    with torch.inference_mode():
        print(json.dumps(measure(parse())))
