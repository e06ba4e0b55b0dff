"""Rates of each official model: encoder alone by batch, decoder, whole refinement, kernels by time.

The encoder and the whole run under the same settings, so that "of_encoder_alone" divides like by like.
"""

from __future__ import annotations

import itertools
import os
import statistics
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch

from pipeline.models import PromptBatch
from pipeline.models.ceiling import peak_memory_mb, settle
from pipeline.models.encoder_batches import CompiledEncoder, GraphedEncoder
from pipeline.models.sam_attention import Attention
from pipeline.models.sam_encoder import FastEncoder
from pipeline.refiners import REFINERS, RefineImage
from pipeline.refining.busy_time import SingleThreadProxy
from schemas.config import Method
from tests.benchmarks.gpu import Clock, Options, Row
from tests.benchmarks.gpu_models import (
    SIZES,
    SMALL_SIZES,
    SPECS,
    CoarseLike,
    checkpoint,
    coarse_like,
    method,
    official,
    scenes,
)
from tests.benchmarks.gpu_parity import free

BATCHES = (8, 1, 16, 4)  # the first is the method's, that the whole is held against
SMALL_BATCHES = (2, 1)
CHUNK_IMAGES = (8, 2)  # of the smaller and of the larger photographs
AT_ONCE = (4, 8, 1)
CHUNKS_AT_LEAST = 16
KERNELS = 15
SLICES = 20  # of a model's time, for one way through the images


def rates(options: Options, clock: Clock) -> Iterator[Row]:
    """ViT-B takes two fifths of the time, ViT-H the rest; each in bfloat16, as the method has it."""
    models = official(options.small)
    for place, model in enumerate(models):
        ends = time.monotonic() + clock.left() * (0.4 if place < len(models) - 1 else 1.0)
        with checkpoint(model, options.device) as path:
            dtype = torch.float32 if options.small else torch.bfloat16
            for batch in (None, 8) if options.compiled and options.device == "cuda" else (None,):
                plain = coarse_like(model, path, options.device, dtype, batch)
                loaded = SingleThreadProxy(lambda of=plain: of)
                for row in _of_model(model, plain, loaded, options, ends - time.monotonic()):
                    yield {"model": model, "compiled": batch is not None, **row}
                    if time.monotonic() > ends:
                        break
                del plain, loaded
                free(options.device)


def _of_model(
    model: str, plain: CoarseLike, loaded: SingleThreadProxy, options: Options, seconds: float
) -> Iterator[Row]:
    piece, alone = seconds / SLICES, {}
    for batch in SMALL_BATCHES if options.small else BATCHES:
        row = _encoder(model, loaded, options.device, batch, piece)
        alone[batch] = row["images_per_s"]
        yield row
    yield from _variants(plain, options.device, SMALL_BATCHES[0] if options.small else BATCHES[0], piece)
    of_method = method(model)
    sizes = SMALL_SIZES if options.small else SIZES
    names = list(sizes)
    counts = (1, 1) if options.small else CHUNK_IMAGES
    small, large = (scenes(sizes[name], count, loaded.input_side) for name, count in zip(names, counts, strict=True))
    yield _decoder(loaded, options.device, 4 if options.small else of_method.decode_batch, piece)
    encoder = next(iter(alone.values()))
    yield {"size": names[0], **_whole(loaded, small, of_method, 4, options.device, 2 * piece, encoder)}
    yield {"size": names[0], **_profiled(plain, small, of_method, options.device)}
    yield {"size": names[1], **_whole(loaded, large, of_method, 4, options.device, 3 * piece, encoder)}
    yield {"size": names[1], **_profiled(plain, large, of_method, options.device)}
    for at_once, (size, images) in itertools.product(AT_ONCE[1:], zip(names, (small, large), strict=True)):
        yield {"size": size, **_whole(loaded, images, of_method, at_once, options.device, 2 * piece, encoder)}


def _encoder(model: str, loaded: SingleThreadProxy, device: str, batch: int, seconds: float) -> Row:
    frames = [np.full((1024, 1024, 3), shade % 256, np.uint8) for shade in range(batch)]
    each = _repeat(lambda: loaded.encode(frames), device, seconds) / batch
    row = {"part": "encoder", "batch": batch, "images_per_s": round(1 / each, 3), "ms_per_image": round(1000 * each, 2)}
    if (tflop := SPECS[model].encoder_tflop) is not None:
        row["tflops"] = round(tflop / each, 2)
    return row | {"peak_gib": round(peak_memory_mb(device) / 1024, 2)}


def _variants(plain: CoarseLike, device: str, batch: int, seconds: float) -> Iterator[Row]:
    """The encoder in the ways that are not the default, beside the one that is; one that fails says why."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    images = torch.zeros(batch, 3, 1024, 1024, device=device)

    def fast(attention: Attention | None, float8: bool = False) -> FastEncoder:
        return FastEncoder(plain._sam.image_encoder, dtype, attention, float8)

    ways: dict[str, Callable[[], Callable[[torch.Tensor], torch.Tensor]]] = {
        "folded": lambda: fast("folded"),
        "bias": lambda: fast("bias"),
    }
    if device == "cuda":
        ways |= {
            "folded, graph": lambda: GraphedEncoder(fast("folded"), batch, 1024),
            "folded, compiled": lambda: CompiledEncoder(fast("folded"), batch),
            "flex, compiled": lambda: CompiledEncoder(fast("flex"), batch),
            "folded, 8 bits, compiled": lambda: CompiledEncoder(fast("folded", float8=True), batch),
        }
    for name, make in ways.items():
        row: Row = {"part": "encoder variant", "variant": name, "batch": batch}
        try:
            with torch.inference_mode():
                encode = make()
                each = _repeat(lambda run=encode: run(images), device, seconds / 2) / batch  # type: ignore[misc]
            yield row | {"images_per_s": round(1 / each, 3), "ms_per_image": round(1000 * each, 2)}
            del encode
        except Exception as error:  # what it says is what this is for
            yield row | {"error": " ".join(str(error).split())[:300]}
        free(device)


def _decoder(loaded: SingleThreadProxy, device: str, count: int, seconds: float) -> Row:
    embedding = loaded.encode([np.zeros((1024, 1024, 3), np.uint8)])
    side, rng = loaded.mask_side, np.random.default_rng(0)
    prompts = PromptBatch(
        np.zeros(count, np.int64),
        rng.uniform(0, 1024, (count, 2, 2)).astype(np.float32),
        np.tile(np.array([1, 0], np.int64), (count, 1)),
        np.tile(np.array([100, 100, 800, 700], np.float32), (count, 1)),
        rng.normal(0, 8, (count, side, side)).astype(np.float32),
        np.zeros((count, side, side), np.float32),
    )
    each = _repeat(lambda: loaded.predict(embedding, prompts), device, seconds) / count
    return {"part": "decoder", "prompts": count, "prompts_per_s": round(1 / each, 1)}


def _repeat(work: Callable[[], object], device: str, seconds: float) -> float:
    """Median seconds of one call, after one to warm up: at least two calls, else as many as the time allows."""
    work()
    settle(device)
    ends, spent = time.perf_counter() + seconds, list[float]()
    while len(spent) < 2 or (time.perf_counter() < ends and len(spent) < 50):
        started = time.perf_counter()
        work()
        settle(device)
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)


def _whole(
    loaded: SingleThreadProxy,
    images: Sequence[RefineImage],
    of_method: Method,
    at_once: int,
    device: str,
    seconds: float,
    encoder_images_per_s: float,
) -> Row:
    """Chunks of `images`, `at_once` side by side: CHUNKS_AT_LEAST of them if the time allows, and until it is over."""
    REFINERS["samrefiner"].run(loaded, images, of_method)
    settle(device)
    started, cpu, lock, done = time.perf_counter(), time.process_time(), threading.Lock(), 0

    def take() -> bool:
        nonlocal done
        with lock:
            elapsed = time.perf_counter() - started
            if elapsed > 2 * seconds or (done >= CHUNKS_AT_LEAST and elapsed > seconds):
                return False
            done += 1
            return True

    def work() -> None:
        while take():
            REFINERS["samrefiner"].run(loaded, images, of_method)

    with ThreadPoolExecutor(at_once) as pool:
        for finished in [pool.submit(work) for _ in range(at_once)]:
            finished.result()
    settle(device)
    elapsed, count = time.perf_counter() - started, done * len(images)
    return {
        "part": "whole",
        "chunks_at_once": at_once,
        "chunks": done,
        "steady": done >= CHUNKS_AT_LEAST,
        "images_per_s": round(count / elapsed, 3),
        "masks_per_s": round(sum(len(i.coarse) for i in images) * done / elapsed, 2),
        "of_encoder_alone": round(count / elapsed / encoder_images_per_s, 3),
        "cpu_ms_per_image": round(1000 * (time.process_time() - cpu) / max(1, count), 1),
        "cpus": os.cpu_count(),
        "peak_gib": round(peak_memory_mb(device) / 1024, 2),
    }


def _profiled(model: CoarseLike, images: Sequence[RefineImage], of_method: Method, device: str) -> Row:
    """One chunk in this thread, the only one that the profiler sees whole.

    The KERNELS that take most time, and how often the CPU waited for the device.
    """
    waits = _waits(lambda: REFINERS["samrefiner"].run(model, images, of_method)) if device == "cuda" else None
    started = time.perf_counter()
    with torch.profiler.profile() as profile:
        REFINERS["samrefiner"].run(model, images, of_method)
        settle(device)
    wall = time.perf_counter() - started
    field = "self_device_time_total" if device == "cuda" else "self_cpu_time_total"
    found = sorted(profile.key_averages(), key=lambda entry: -getattr(entry, field))
    total = sum(getattr(entry, field) for entry in found) or 1.0
    kernels = [
        {"name": e.key[:80], "calls": e.count, "share": round(getattr(e, field) / total, 4)} for e in found[:KERNELS]
    ]
    busy = round(total / 1e6 / wall, 3)
    return {"part": "profile", "images": len(images), "waits": waits, "busy_of_wall": busy, "kernels": kernels}


def _waits(work: Callable[[], Any]) -> int:
    """Calls that made the CPU wait for the device."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            work()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in caught)
