"""What the machinery itself costs, and whether the driver grows: many images, a model that does next to nothing.

    python -m tests.chaos.scale --images 20000
    python -m tests.chaos.scale --images 400 --side 2048 --chunk-images 4 --object-store-mb 256 --worker-memory-mb 1536
    python -m tests.chaos.scale --images 300 --masks-per-image 100 --chunk-images 4 --object-store-mb 256
    python -m tests.chaos.scale --images 100000 --nodes 3 [--drivers 3]

The images lie in WebDataset tars; with --side they are JPEG files of their own (hard links to a few), for what is about
pixels; with --masks-per-image each has so many ragged masks, for what is about masks. Measured: private memory (USS, so
without shared memory) of the driver, its slope over the images done while refining; that of the largest worker; and CPU
time of all processes for each image, starting and ending included. With --nodes the same once more on a Ray of so many
nodes with one CPU each, an actor on each: whether the shards are the same byte for byte, and the peak memory (USS) of
the command's two processes, of Ray's workers and of Ray's own processes, by what they are called. With --drivers by so
many commands at once, each with its part.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from pipeline.storage import Access
from tests.chaos.runs import Corpus, cluster, hashes, make_corpus, make_detailed, make_tars, start

MIB = 1 << 20
EVERY_S = 1.0


@dataclass(frozen=True)
class Figures:
    images: int
    code: int
    error: str
    wall_s: float
    cpu_ms_per_image: float
    driver_cpu_ms_per_image: float
    driver_peak_mb: float
    driver_peak_mb_until_first_part: float
    driver_slope_kb_per_image: float
    worker_peak_mb: float
    nodes: int = 0  # of a second run; its drivers and wall time, and whether its shards are those of the first
    nodes_drivers: int = 0
    nodes_wall_s: float = 0.0
    nodes_same_bytes: bool | None = None
    nodes_peaks_mb: dict[str, float] = field(default_factory=dict)


class _Watch:
    """Samples private memory and CPU time of the driver and its descendants (of Ray's processes too, if it began them).

    The driver is two processes: the command's own, and the one in which it has Ray.

    Of what a process does between its last sample and its end, nothing is seen: at most EVERY_S of it.
    """

    def __init__(self, pid: int, attempts: Path, chunk_images: int, root: psutil.Process | None) -> None:
        self.driver: list[tuple[int, int]] = []  # images done, USS in bytes
        self.worker_peak = 0
        self.cpu_s: dict[tuple[int, float], float] = {}
        self._drivers: set[int] = set()
        self._driver, self._root = psutil.Process(pid), root or psutil.Process(pid)
        self._attempts, self._chunk_images = attempts, chunk_images

    def sample(self) -> None:
        done = self._attempts.read_text().count(" finished ") if self._attempts.exists() else 0
        with suppress(psutil.Error):
            driver = [self._driver, *filter(_is_rays_driver, self._driver.children())]
            self.driver.append((done * self._chunk_images, sum(one.memory_full_info().uss for one in driver)))
            self._drivers.update(one.pid for one in driver)
        with suppress(psutil.Error):
            for process in [self._driver, *self._root.children(recursive=True)]:
                self._note(process)

    def _note(self, process: psutil.Process) -> None:
        with suppress(psutil.Error):
            times = process.cpu_times()
            self.cpu_s[process.pid, process.create_time()] = times.user + times.system
            if "ray::" in process.name():
                self.worker_peak = max(self.worker_peak, process.memory_full_info().uss)

    def driver_cpu_s(self) -> float:
        return sum(seconds for (pid, _), seconds in self.cpu_s.items() if pid in self._drivers)

    def slope_bytes(self) -> float:
        """Of a line through the samples between a quarter and all of the images, while refining."""
        most = max(done for done, _ in self.driver)
        chosen = np.array([sample for sample in self.driver if most / 4 <= sample[0] < most], float)
        if len(chosen) < 3 or chosen[:, 0].min() == chosen[:, 0].max():
            return float("nan")
        return float(np.polyfit(chosen[:, 0], chosen[:, 1], 1)[0])


def _is_rays_driver(process: psutil.Process) -> bool:
    return "pipeline.cluster.driver" in " ".join(process.cmdline())


def measure(
    folder: Path,
    images: int,
    side: int | None = None,
    chunk_images: int = 64,
    object_store_mb: int | None = None,
    worker_memory_mb: int | None = None,
    masks_per_image: int | None = None,
    nodes: int = 0,
    drivers: int = 1,
) -> Figures:
    """One run from nothing. side: JPEG files of so many pixels a side; None: small images in tars. nodes, drivers: see
    above.
    """
    place = folder / f"corpus-{time.time_ns()}"
    if masks_per_image:
        corpus = make_detailed(place, images, chunk_images, side or 512, masks_per_image)
    elif side:
        corpus = make_corpus(place, images, chunk_images, side, different=8)
    else:
        corpus = make_tars(place, images, chunk_images)
    attempts = place / "attempts.log"
    operation = {"chunk_images": chunk_images, "chunk_decoded_mb": 4096, "attempt_log": str(attempts)}
    if worker_memory_mb:
        operation["worker_memory_mb"] = worker_memory_mb
    Path(corpus.config).write_text(json.dumps({"operation": operation}))
    with ExitStack() as stack:
        options, root = ["--actors", "1"], None
        if object_store_mb:
            head = stack.enter_context(cluster(0, object_store_memory=object_store_mb * MIB))
            options, root = [*options, "--address", head.address], psutil.Process()
        begun = time.monotonic()
        output = str(folder / f"out-{time.time_ns()}")
        run = start(corpus.command(output, *options))
        watch = _Watch(run.pid, attempts, chunk_images, root)
        [error] = _told([run], watch.sample)
    figures = Figures(
        images,
        run.returncode,
        error,
        round(time.monotonic() - begun, 1),
        round(1000 * sum(watch.cpu_s.values()) / images, 2),
        round(1000 * watch.driver_cpu_s() / images, 2),
        round(max(uss for _, uss in watch.driver) / MIB, 1),
        round(max(uss for done, uss in watch.driver if done == 0) / MIB, 1),
        round(watch.slope_bytes() / 1024, 3),
        round(watch.worker_peak / MIB, 1),
    )
    return replace(figures, **on_nodes(corpus, output, nodes, drivers)) if nodes and not run.returncode else figures


def on_nodes(corpus: Corpus, output: str, nodes: int, drivers: int) -> dict[str, Any]:
    """The corpus once more, on a Ray of several nodes: the figures of it, beside what is in `output`."""
    other, begun = f"{output}-nodes", time.monotonic()
    peaks: dict[str, float] = {}
    shares = [["--part", f"{number}/{drivers}"] for number in range(1, drivers + 1)] if drivers > 1 else [[]]
    with cluster(nodes) as head:
        given = "--actors", str(max(1, nodes // drivers)), "--address", head.address
        runs = [start(corpus.command(other, *given, *share)) for share in shares]
        errors = _told(runs, partial(_note_peaks, peaks))
    wall_s = round(time.monotonic() - begun, 1)
    if any(run.returncode for run in runs):
        raise RuntimeError("\n".join(errors))
    same = hashes(other, Access()) == hashes(output, Access())
    told = {"nodes_wall_s": wall_s, "nodes_same_bytes": same, "nodes_peaks_mb": peaks}
    return {"nodes": nodes, "nodes_drivers": drivers, **told}


def _told(runs: Sequence[subprocess.Popen[bytes]], look: Callable[[], None]) -> list[str]:
    """The end of what each run says on stderr, which is read while they run; until they end they are looked at."""
    with ThreadPoolExecutor(len(runs)) as pool:
        said = [pool.submit(run.stderr.read) for run in runs if run.stderr]
        while any(run.poll() is None for run in runs):
            look()
            time.sleep(EVERY_S)
        return [one.result().decode()[-2000:] for one in said]


def _note_peaks(peaks: dict[str, float]) -> None:
    """Of this process's descendants, by what they do."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, IndexError):
            words = process.cmdline()
            name = "the command" if "tests.killers" in words else Path(words[0].split("(")[0]).name
            name = "its driver of Ray" if _is_rays_driver(process) else name
            peaks[name] = max(peaks.get(name, 0.0), round(process.memory_full_info().uss / MIB, 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--side", type=int)
    parser.add_argument("--chunk-images", type=int, default=64)
    parser.add_argument("--object-store-mb", type=int)
    parser.add_argument("--worker-memory-mb", type=int)
    parser.add_argument("--masks-per-image", type=int)
    parser.add_argument("--nodes", type=int, default=0, help="of a second run, whose bytes are compared")
    parser.add_argument("--drivers", type=int, default=1, help="of that run")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/relabel-scale"))
    given = vars(parser.parse_args())
    folder = given.pop("folder")
    folder.mkdir(parents=True, exist_ok=True)
    print(json.dumps(asdict(measure(folder, **given)), indent=1))


if __name__ == "__main__":
    main()
