"""What the machinery itself costs, and whether the driver grows: many images, a model that does next to nothing.

    python -m tests.chaos.scale --images 20000
    python -m tests.chaos.scale --images 2000 --side 2048 --object-store-mb 256 --worker-memory-mb 1024

The images are hard links to a few files. Measured: peak private memory (USS) of the driver, its slope over the images
done while refining, and CPU time of all processes for each image.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil

from tests.chaos.runs import cluster, make_corpus, start

MIB = 1 << 20


@dataclass(frozen=True)
class Figures:
    images: int
    code: int
    error: str
    wall_s: float
    cpu_ms_per_image: float
    peak_uss_mb: float
    slope_kb_per_image: float


class _Watch:
    """Samples the driver's private memory, and the CPU time of it and its descendants."""

    def __init__(self, pid: int, attempts: Path, chunk_images: int) -> None:
        self.samples: list[tuple[int, int]] = []  # images done, USS in bytes
        self.cpu_s: dict[int, float] = {}
        self._root = psutil.Process(pid)
        self._attempts, self._chunk_images = attempts, chunk_images

    def sample(self) -> None:
        try:
            done = self._attempts.read_text().count(" finished ") if self._attempts.exists() else 0
            self.samples.append((done * self._chunk_images, self._root.memory_full_info().uss))
            for process in [self._root, *self._root.children(recursive=True)]:
                times = process.cpu_times()
                self.cpu_s[process.pid] = times.user + times.system
        except psutil.Error:
            pass

    def slope_bytes(self) -> float:
        """Of a line through the samples between a quarter and all of the images."""
        most = max(done for done, _ in self.samples)
        chosen = np.array([sample for sample in self.samples if most / 4 <= sample[0] and sample[0] > 0], float)
        if len(chosen) < 3 or chosen[:, 0].min() == chosen[:, 0].max():
            return float("nan")
        return float(np.polyfit(chosen[:, 0], chosen[:, 1], 1)[0])


def measure(
    folder: Path,
    images: int,
    side: int = 64,
    chunk_images: int = 64,
    object_store_mb: int | None = None,
    worker_memory_mb: int | None = None,
) -> Figures:
    """One run from nothing. CPU time is of the driver and the local cluster that it starts (none with a given one)."""
    corpus = make_corpus(folder / f"corpus-{time.time_ns()}", images, chunk_images, side, different=8)
    attempts = folder / "attempts.log"
    operation = {"chunk_images": chunk_images, "chunk_decoded_mb": 4096, "attempt_log": str(attempts)}
    if worker_memory_mb:
        operation["worker_memory_mb"] = worker_memory_mb
    Path(corpus.config).write_text(json.dumps({"operation": operation}))
    with ExitStack() as stack:
        options = ["--actors", "1"]
        if object_store_mb:
            head = stack.enter_context(cluster(0, object_store_memory=object_store_mb * MIB))
            options += ["--address", head.address]
        begun = time.monotonic()
        run = start(corpus.command(str(folder / f"out-{time.time_ns()}"), *options))
        watch = _Watch(run.pid, attempts, chunk_images)
        error: list[bytes] = []
        reader = threading.Thread(target=lambda: error.append(run.stderr.read() if run.stderr else b""))
        reader.start()
        while run.poll() is None:
            watch.sample()
            time.sleep(1.0)
        reader.join()
    return Figures(
        images,
        run.returncode,
        b"".join(error).decode()[-2000:],
        round(time.monotonic() - begun, 1),
        round(1000 * sum(watch.cpu_s.values()) / images, 2),
        round(max(uss for _, uss in watch.samples) / MIB, 1),
        round(watch.slope_bytes() / 1024, 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--chunk-images", type=int, default=64)
    parser.add_argument("--object-store-mb", type=int)
    parser.add_argument("--worker-memory-mb", type=int)
    parser.add_argument("--folder", type=Path, default=Path("/tmp/relabel-scale"))
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(asdict(measure(folder, **given)), indent=1))


if __name__ == "__main__":
    main()
