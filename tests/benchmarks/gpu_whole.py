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
    loaded: Any,
    images: Sequence[RefineImage],
    of_method: Method,
    at_once: int,
    seconds: float,
    at_least: int = CHUNKS_AT_LEAST,
) -> tuple[int, float]:
    """Chunks of `images`, `at_once` side by side, for `seconds` and until there are so many, but not for twice as long:
    how many, and in how many seconds."""
    started, lock, done = time.perf_counter(), threading.Lock(), 0

    def take() -> bool:
        nonlocal done
        with lock:
            elapsed = time.perf_counter() - started
            if elapsed > 2 * seconds or (done >= at_least and elapsed > seconds):
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


class Workers:
    """Processes, each with a model of its own on the one device; they wait, and so many at a time as are asked work."""

    def __init__(self, model: str, path: Path, dtype: torch.dtype, device: str, count: int, small: bool) -> None:
        words = [model, str(path), device, str(dtype).removeprefix("torch."), "small" if small else ""]
        command = [sys.executable, "-m", "tests.benchmarks.gpu_whole", *words]
        self._running = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]

    def __enter__(self) -> Workers:
        for worker in self._running:
            if _line(worker) != "ready":
                raise RuntimeError("a process ended before it was ready")
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._running:
            worker.kill()
            worker.wait()

    def rate(self, size: str, processes: int, at_once: int, seconds: float) -> Row:
        """Of some of them over the same seconds, `at_once` chunks side by side in each."""
        asked = self._running[:processes]
        for worker in asked:
            assert worker.stdin is not None
            worker.stdin.write(f"{size}\t{at_once}\t{seconds}\n")
            worker.stdin.flush()
        told = [tuple(map(float, _line(worker).split())) for worker in asked]
        rate, cpu_s, images = (sum(of) for of in zip(*told, strict=True))
        return {
            "part": "whole",
            "size": size,
            "processes": processes,
            "chunks_at_once": at_once,
            "cpus": os.cpu_count(),
            "images_per_s": round(rate, 3),
            "masks_per_s": round(rate * MASKS_PER_IMAGE, 2),
            "cpu_ms_per_image": round(1000 * cpu_s / max(1.0, images), 1),
        }


def _line(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def main() -> None:
    model, path, device, dtype, small = sys.argv[1:]
    loaded = SingleThreadProxy(lambda: coarse_like(model, Path(path), device, getattr(torch, dtype), None))
    images, of_method = pictures(bool(small), loaded.input_side), method(model)
    for chunk in images.values():
        REFINERS["samrefiner"].run(loaded, chunk, of_method)
    print("ready", flush=True)
    for line in sys.stdin:
        size, at_once, seconds = line.rstrip("\n").split("\t")
        cpu = time.process_time()
        done, elapsed = refined(loaded, images[size], of_method, int(at_once), float(seconds), at_least=1)
        count = done * len(images[size])
        print(count / elapsed, time.process_time() - cpu, count, flush=True)


if __name__ == "__main__":
    main()
