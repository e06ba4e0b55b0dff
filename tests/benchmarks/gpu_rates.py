"""Rates of each official model: encoder alone by batch, decoder, whole refinement, kernels by time.

The encoder and the whole run under the same settings, so that "of_encoder_alone" divides like by like.
"""

from __future__ import annotations

import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
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
from tests.benchmarks.gpu_models import SPECS, CoarseLike, checkpoint, coarse_like, method, official
from tests.benchmarks.gpu_parity import free
from tests.benchmarks.gpu_whole import Workers, pictures, whole

BATCHES = (8, 1, 16, 4)  # the first is the method's, that the whole is held against
SMALL_BATCHES = (2, 1)
AT_ONCE = (4, 1)
PROCESSES = [(8, 2), (4, 4), (12, 1), (8, 4), (12, 2), (4, 2)]  # on one device, and chunks in each
SMALL_PROCESSES = [(2, 2)]
KERNELS = 40
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
                for row in _of_model(model, path, plain, dtype, options, ends - time.monotonic()):
                    yield {"model": model, "compiled": batch is not None, **row}
                    if time.monotonic() > ends:
                        break
                del plain
                free(options.device)


def _of_model(
    model: str, path: Path, plain: CoarseLike, dtype: torch.dtype, options: Options, seconds: float
) -> Iterator[Row]:
    device, piece, of_method = options.device, seconds / SLICES, method(model)
    loaded = SingleThreadProxy(lambda: plain)
    batches, processes = (SMALL_BATCHES, SMALL_PROCESSES) if options.small else (BATCHES, PROCESSES)
    images = pictures(options.small, loaded.input_side)
    smaller, larger = images
    first = _encoder(model, loaded, device, batches[0], piece)
    alone = first["images_per_s"]
    yield first
    yield from _profiles(plain, images[smaller], of_method, options, smaller)

    def beside(row: Row) -> Row:
        return {**row, "of_encoder_alone": round(row["images_per_s"] / alone, 3)}

    def of(size: str, at_once: int) -> Row:
        return {"size": size, **beside(whole(loaded, images[size], of_method, at_once, device, piece))}

    for at_once in AT_ONCE:
        yield of(smaller, at_once)
    most = max(count for count, _ in processes)
    with Workers(model, path, dtype, device, most, options.small) as workers:
        for size, ways in ((smaller, processes), (larger, processes[:1])):
            for count, at_once in ways:
                yield beside(workers.rate(size, count, at_once, piece))
    yield from _variants(plain, device, batches[0], piece)
    for at_once in AT_ONCE:
        yield of(larger, at_once)
    for batch in batches[1:]:
        yield _encoder(model, loaded, device, batch, piece)
    yield _decoder(loaded, device, 4 if options.small else of_method.decode_batch, piece)
    yield from _profiles(plain, images[larger], of_method, options, larger)


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
        ways = {
            "fused": lambda: fast("fused"),
            "fused, graph": lambda: GraphedEncoder(fast("fused"), batch, 1024),
            "fused, compiled": lambda: CompiledEncoder(fast("fused"), batch),
            "folded, compiled": lambda: CompiledEncoder(fast("folded"), batch),
            "fused, 8 bits, compiled": lambda: CompiledEncoder(fast("fused", float8=True), batch),
            "flex, compiled": lambda: CompiledEncoder(fast("flex"), batch),
            **ways,
        }
    for name, make in ways.items():
        row: Row = {"part": "encoder variant", "variant": name, "batch": batch}
        try:
            with torch.inference_mode():
                encode = make()
                each = _repeat(lambda run=encode: run(images), device, seconds / 2) / batch  # type: ignore[misc]
                told = profiled(lambda run=encode: run(images), device)  # type: ignore[misc]
            yield row | {"images_per_s": round(1 / each, 3), "ms_per_image": round(1000 * each, 2)} | told
            del encode
        except Exception as error:  # what it says is what this is for
            yield row | {"error": " ".join(str(error).split())[:300]}
        torch._dynamo.reset()  # what is compiled of one way would count as another's again
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


def _profiles(
    plain: CoarseLike, images: Sequence[RefineImage], of_method: Method, options: Options, size: str
) -> Iterator[Row]:
    """Of one chunk, and of the encoder alone."""
    on_gpu = options.device == "cuda"
    squares = [np.full((1024, 1024, 3), 9 * place, np.uint8) for place in range(len(images))]
    works: dict[str, Callable[[], object]] = {
        "chunk": lambda: REFINERS["samrefiner"].run(plain, images, of_method),
        "encoder": lambda: plain.encode(squares),
    }
    for name, work in works.items():
        row = {"part": "profile", "of": name, "size": size, "images": len(images)}
        yield row | {"waits": _waits(work) if on_gpu else None} | profiled(work, options.device)


def profiled(work: Callable[[], object], device: str) -> Row:
    """Once, in this thread, the only one that the profiler sees whole: the KERNELS that take most time.

    busy_of_wall: how long the device computed, over how long it took.
    """
    work()
    settle(device)
    started = time.perf_counter()
    with torch.profiler.profile() as profile:
        work()
        settle(device)
    wall_us = 1e6 * (time.perf_counter() - started)
    on_gpu = device == "cuda"
    kind = torch.autograd.DeviceType.CUDA if on_gpu else torch.autograd.DeviceType.CPU
    field = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    spent = [(getattr(entry, field), entry) for entry in profile.key_averages() if entry.device_type == kind]
    total = sum(us for us, _ in spent)
    most = sorted(spent, key=lambda pair: -pair[0])[:KERNELS]
    kernels = [{"name": e.key[:80], "calls": e.count, "ms": round(us / 1000, 3)} for us, e in most]
    return {"busy_ms": round(total / 1000, 2), "busy_of_wall": round(total / wall_us, 3), "kernels": kernels}


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
