"""Whole refinement on one device: chunks side by side in this process, and in several processes, as actors are.

    python -m tests.benchmarks.gpu_whole MODEL CHECKPOINT DEVICE DTYPE SIZE CHUNKS_AT_ONCE SECONDS

is one of the several: it says "ready", waits for a line, and then tells how many images it refined a second.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from pipeline.models.ceiling import peak_memory_mb, settle
from pipeline.refiners import REFINERS, RefineImage
from pipeline.refining.busy_time import SingleThreadProxy
from schemas.config import Method
from tests.benchmarks.gpu import Row
from tests.benchmarks.gpu_models import MASKS_PER_IMAGE, SIZES, SMALL_SIZES, coarse_like, method, scenes

CHUNKS_AT_LEAST = 16
CHUNK_IMAGES = (8, 2)  # of the smaller and of the larger photographs


def pictures(small: bool, input_side: int) -> dict[str, list[RefineImage]]:
    """A chunk of each size."""
    sizes, counts = (SMALL_SIZES, (1, 1)) if small else (SIZES, CHUNK_IMAGES)
    return {name: scenes(sizes[name], count, input_side) for name, count in zip(sizes, counts, strict=True)}


def refined(
    loaded: Any, images: Sequence[RefineImage], of_method: Method, at_once: int, seconds: float
) -> tuple[int, float]:
    """Chunks of `images`, `at_once` side by side, for `seconds` and until there are CHUNKS_AT_LEAST, but not for twice
    as long: how many, and in how many seconds."""
    started, lock, done = time.perf_counter(), threading.Lock(), 0

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
    return done, time.perf_counter() - started


def whole(
    loaded: Any, images: Sequence[RefineImage], of_method: Method, at_once: int, device: str, seconds: float
) -> Row:
    """In this process."""
    REFINERS["samrefiner"].run(loaded, images, of_method)
    settle(device)
    cpu = time.process_time()
    done, elapsed = refined(loaded, images, of_method, at_once, seconds)
    rate = done * len(images) / elapsed
    return {
        "part": "whole",
        "processes": 1,
        "chunks_at_once": at_once,
        "chunks": done,
        "steady": done >= CHUNKS_AT_LEAST,
        "images_per_s": round(rate, 3),
        "masks_per_s": round(rate * MASKS_PER_IMAGE, 2),
        "cpu_ms_per_image": round(1000 * (time.process_time() - cpu) / max(1, done * len(images)), 1),
        "cpus": os.cpu_count(),
        "peak_gib": round(peak_memory_mb(device) / 1024, 2),
    }


def side_by_side(
    model: str, path: Path, dtype: torch.dtype, device: str, size: str, processes: int, at_once: int, seconds: float
) -> Row:
    """In several processes, each with the model of its own: all of them measured over the same seconds."""
    words = [model, str(path), device, str(dtype).removeprefix("torch."), size, str(at_once), str(seconds)]
    command = [sys.executable, "-m", "tests.benchmarks.gpu_whole", *words]
    workers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    try:
        for worker in workers:
            if _line(worker) != "ready":
                raise RuntimeError("a process ended before it was ready")
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write("go\n")
            worker.stdin.flush()
        told = [float(_line(worker)) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    rate = sum(told)
    row = {"part": "whole", "processes": processes, "chunks_at_once": at_once, "cpus": os.cpu_count()}
    return row | {"images_per_s": round(rate, 3), "masks_per_s": round(rate * MASKS_PER_IMAGE, 2)}


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def main() -> None:
    model, path, device, dtype, size, at_once, seconds = sys.argv[1:]
    loaded = SingleThreadProxy(lambda: coarse_like(model, Path(path), device, getattr(torch, dtype), None))
    images = pictures(size in SMALL_SIZES and size not in SIZES, loaded.input_side)[size]
    of_method = method(model)
    REFINERS["samrefiner"].run(loaded, images, of_method)
    print("ready", flush=True)
    sys.stdin.readline()
    done, elapsed = refined(loaded, images, of_method, int(at_once), float(seconds))
    print(done * len(images) / elapsed, flush=True)
    sys.stdin.readline()  # until it is ended: a process that goes frees memory, which the others would wait for


if __name__ == "__main__":
    main()
