"""What Ray costs: the whole pipeline around a model that only sleeps, and `relabel run` on photographs.

    python -m tests.benchmarks.speed_ray machinery --images 1000 --actors 2 [--sleep-ms 10]
    python -m tests.benchmarks.speed_ray photos --data ../shared/data/dev --images 300 --repeats 4

prints JSON, start-up apart.

machinery: pictures of 64 x 64 with a mask each are fetched, decoded, refined by a model that sleeps, scored, written.
Efficiency is the time that the models slept over the actors' time: `steady` while all of them had work, from when
the last began its first image until the first ended its last; `whole` from the first image's beginning until the last
one's end. CPU milliseconds are of the driver and all of Ray's processes, so the work on the pictures themselves is in
them (`alone_ms`: the same without Ray, in one process); everything before the first chunk came back is left out there,
its images too.
photos: images/s of `relabel run` while its actors are up: images over what they computed and waited, side by side.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil

from pipeline.cluster.connection import connected
from pipeline.cluster.resources import reserve
from pipeline.job import REFINE
from pipeline.masks.frames import ORIGINAL_SIZE, FloatArray
from pipeline.models.weights import Weights
from pipeline.planning.increment import ChunkLimits, plan, read_plan
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs, Job, Task
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from schemas.config import Method, Operation
from tests.benchmarks.speed_lite import photos
from tests.chaos.runs import make_corpus

CHUNK_IMAGES = 64
CHUNKS_OF_PHOTOS = 8


class SleepingModel:
    """A PixelModel that answers with the coarse mask after a while; with a folder, notes there when it slept."""

    name = "torchscript"
    weights_sha256 = ""
    input_side = ORIGINAL_SIZE

    def __init__(self, sleep_s: float, notes: Path | None) -> None:
        self._sleep_s = sleep_s
        self._notes = None if notes is None else (notes / f"{os.getpid()}-{time.time_ns()}").open("a", buffering=1)

    def probability(self, _image_rgb: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> FloatArray:
        started = time.time()
        time.sleep(self._sleep_s)
        if self._notes is not None:
            self._notes.write(f"{started} {time.time()}\n")
        return mask.astype(np.float32)


class Loader:
    """As Job.loader."""

    def __init__(self, sleep_s: float, notes: Path | None = None) -> None:
        self._sleep_s, self._notes = sleep_s, notes

    def __call__(self, _name: str, _weights: Weights, _device: str, _threads: int) -> SleepingModel:
        return SleepingModel(self._sleep_s, self._notes)


def execution(_device: str, _threads: int) -> str:
    return "asleep"


class Meter:
    """CPU seconds of this process and all of its descendants, those that ended since included."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, float], float] = {}
        self._over = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def read(self) -> float:
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._seen[process.pid, process.create_time()] = times.user + times.system
            except psutil.Error:
                continue
        return sum(self._seen.values())

    def by_name(self) -> dict[str, float]:
        """CPU seconds of the processes that run now, summed by the first word of their titles."""
        found: dict[str, float] = {}
        own = psutil.Process()
        for process in [own, *own.children(recursive=True)]:
            try:
                times, title = process.cpu_times(), " ".join(process.cmdline()[:1])[-40:]
            except psutil.Error:
                continue
            found[title] = found.get(title, 0.0) + times.user + times.system
        return found

    def stop(self) -> None:
        self._over.set()

    def _watch(self) -> None:
        while not self._over.wait(1.0):
            self.read()


def planned(folder: Path, images: int) -> tuple[list[Task], Job]:
    corpus = make_corpus(folder, images, CHUNK_IMAGES, side=64, different=8)
    output, source = Store(str(folder / "out")), Store(corpus.images)
    listed = {file.path: file for file in source.list()}
    plan(output, scan("coco", SourceInput(corpus.masks, Access(), listed)), listed, ChunkLimits(CHUNK_IMAGES, 1 << 32))
    method = Method(model="torchscript", refiner="torchscript")
    job = Job(
        output=output,
        run=Store(f"{output.uri}/runs/0"),
        inputs=Inputs(source, None),
        method=method,
        weights=Weights("", "", Access()),
        input_side=ORIGINAL_SIZE,
        threads=1,
        fetch_threads=8,
        device="cpu",
        attempt_log=None,
        loader=Loader(0.0),
        execution_of=execution,
    )
    return [Task(chunk, chunk.images) for chunk in read_plan(output).chunks], job


def alone(tasks: list[Task], job: Job) -> float:
    """CPU milliseconds an image of the stages' own work, in this process."""
    job = replace(job, run=Store(f"{job.output.uri}/runs/alone"))
    model, started = job.load_model(), time.process_time()
    for task in tasks:
        loaded = chunk_work.load(task.rows(job.output), job.inputs, job.method, job.input_side, job.fetch_threads)
        chunk_work.write(chunk_work.refine(loaded, model, job.method), task, job.run, job.execution)
    return 1000 * (time.process_time() - started) / sum(task.images for task in tasks)


def efficiency(sleeps: list[FloatArray], since: float, until: float) -> float:
    """Share of [since, until] that each of the actors slept; sleeps: (N, 2) beginnings and ends of each, seconds."""
    slept = sum(np.clip(np.minimum(of[:, 1], until) - np.maximum(of[:, 0], since), 0, None).sum() for of in sleeps)
    return float(slept / (len(sleeps) * (until - since)))


def efficiencies(notes: Path) -> dict[str, float | None]:
    """None where the actors never all had work: too few images."""
    sleeps = [np.loadtxt(file, ndmin=2) for file in sorted(notes.iterdir()) if file.stat().st_size]
    begun, ended = [of[0, 0] for of in sleeps], [of[-1, 1] for of in sleeps]
    steady = efficiency(sleeps, max(begun), min(ended)) if max(begun) < min(ended) else None
    return {
        "actors_seen": len(sleeps),
        "efficiency_steady": steady and round(steady, 3),
        "efficiency_whole": round(efficiency(sleeps, min(begun), max(ended)), 3),
    }


def machinery(images: int, actors: int, sleep_s: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        notes = Path(folder) / "notes"
        notes.mkdir()
        tasks, job = planned(Path(folder), images)
        alone(tasks[:1], job)
        alone_ms = alone(tasks[:8], job)
        meter, marks = Meter(), list[tuple[float, int]]()

        with connected("local") as cluster:
            resources = reserve(Operation(actors_min=actors, actors_max=actors), cluster.resources)
            job = replace(job, loader=Loader(sleep_s, notes))
            for chunk in cluster.each(REFINE, job, resources, False, items=[tasks]):
                first_or_last = not marks or sum(mark[1] for mark in marks) + chunk.images == images
                cpu_s = meter.read() if first_or_last else 0.0
                marks.append((cpu_s, chunk.images))
            named = meter.by_name()
        meter.stop()
        busy = efficiencies(notes)
        done = sum(mark[1] for mark in marks[1:])
        cpu_s = marks[-1][0] - marks[0][0]
    return {
        "images": images,
        "actors": actors,
        "cores": os.cpu_count(),
        **busy,
        "cpu_ms_per_image": round(1000 * cpu_s / done, 2),
        "alone_ms_per_image": round(alone_ms, 2),
        "cpu_s_by_process": {title: round(seconds, 1) for title, seconds in sorted(named.items())},
    }


def repeated(data: Path, folder: Path, images: int, repeats: int) -> tuple[Path, Path, int]:
    """Photographs of `data` under several names each, with their coarse masks; how many there are."""
    found = photos(data, "superpixel")
    chosen = found[:: max(1, len(found) // images)][:images]
    (folder / "images").mkdir(parents=True)
    entries, annotations = [], []
    for number, photo in enumerate(photo for photo in chosen for _ in range(repeats)):
        name = f"{number:06d}{photo.path.suffix}"
        (folder / "images" / name).symlink_to(photo.path.resolve())
        height, width = photo.coarse[0]["size"]
        entries.append({"id": number, "file_name": name, "height": height, "width": width})
        for coarse in photo.coarse:
            annotations.append(
                {"id": len(annotations), "image_id": number, "category_id": 1, "segmentation": coarse, "iscrowd": 0}
            )
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "coarse.json").write_text(json.dumps(content))
    return folder / "images", folder / "coarse.json", len(entries)


def run_photos(data: Path, images: int, repeats: int, iterations: int, actors: int) -> dict[str, Any]:
    """`relabel run`; rates from the event that ends its refine phase."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        photos_at, masks, count = repeated(data, folder, images, repeats)
        config = folder / "relabel.yaml"
        config.write_text(json.dumps({"operation": {"log_format": "json", "chunk_images": CHUNKS_OF_PHOTOS}}))
        command = [sys.executable, "-m", "jobs.cli", "run", "--images", str(photos_at), "--masks", str(masks)]
        command += ["--output", str(folder / "out"), "--config", str(config), "--preset", "published-code"]
        command += ["--iterations", str(iterations), "--actors", str(actors)]
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        whole_s = time.perf_counter() - started
    [spent] = [event for event in map(json.loads, done.stderr.splitlines()) if event["event"] == "refined"]
    rate = count * actors / (spent["refine_s"] + spent["wait_s"])
    return {**spent, "images": count, "actors": actors, "whole_s": round(whole_s, 1), "images_per_s_up": round(rate, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["machinery", "photos"])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--sleep-ms", type=float, default=10.0)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=5)
    options = parser.parse_args()
    if options.what == "machinery":
        result = machinery(options.images, options.actors, options.sleep_ms / 1000)
    else:
        result = run_photos(options.data, options.images, options.repeats, options.iterations, options.actors)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
