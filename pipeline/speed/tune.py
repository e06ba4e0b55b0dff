"""Which split of a machine refines fastest: actors, their threads, their share of a GPU, chunks at once. Measured.

Each way is tried with as many processes as it has actors, which compute at the same time, as the actors of a run do:
what they cost one another (cores, memory's speed, the GPU's queue) is in the figure. Loading and Ray are not.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipeline.decoding.decode import decode_image
from pipeline.errors import JobError
from pipeline.models import load_model
from pipeline.models.protocol import input_for
from pipeline.models.weights import Weights
from pipeline.refiners import RefineImage, refine
from pipeline.refining.busy_time import SingleThreadProxy
from pipeline.speed.bench import with_discs
from schemas.config import Method

START_S = 600.0
"""For all actors of a way to hold their models; the slowest has to compile."""
SHARES = (1, 2, 4, 8)
CHUNKS_AT_ONCE = {"cpu": (1, 2), "cuda": (2, 4)}
WORTH_IT = 1.03
"""So much faster has a way to be than one before it, which needs less memory or fewer processes."""


@dataclass(frozen=True)
class Way:
    """How a machine is divided. gpus: share of one for each actor, 0 on CPUs; chunks: at an actor at once."""

    actors: int
    threads: int
    gpus: float
    chunks: int

    def operation(self) -> dict[str, Any]:
        """The keys of `operation` in a configuration that say it."""
        keys = {"threads_per_actor": self.threads, "chunks_per_actor": self.chunks}
        return {**keys, "gpus_per_actor": self.gpus} if self.gpus else {**keys, "actors_max": self.actors}


@dataclass(frozen=True)
class Measured:
    """Of one way: images a second of all its actors together; failed: why there is no figure, "" where there is."""

    way: Way
    images_per_s: float
    failed: str = ""


@dataclass(frozen=True)
class Work:
    """What every actor does: the same images, `rounds` chunks of them after a first that warms up."""

    weights: Weights
    method: Method
    device: str
    compiled: bool
    photos: Sequence[bytes]
    masks_per_image: int
    rounds: int = 2


def ways(device: str, cores: int, gpus: int) -> list[Way]:
    """Those worth trying, from what needs least to what needs most; on GPUs, several actors share one."""
    if device == "cpu":
        counts = sorted({1, max(1, cores // 4), max(1, cores // 2), cores})
        return [Way(n, max(1, cores // n), 0.0, chunks) for n in counts for chunks in CHUNKS_AT_ONCE["cpu"]]
    threads = [max(1, cores // (gpus * share)) for share in SHARES]
    return [
        Way(gpus * share, min(4, own), 1 / share, chunks)
        for share, own in zip(SHARES, threads, strict=True)
        for chunks in CHUNKS_AT_ONCE["cuda"]
    ]


def tune(work: Work, tried: Sequence[Way], told: Callable[[Measured], None]) -> Measured:
    """The best of the ways, each told as it is measured. Raises JobError when none of them works."""
    found = []
    for way in tried:
        found.append(measure(work, way))
        told(found[-1])
    return best_of(found)


def best_of(found: Sequence[Measured]) -> Measured:
    """The fastest, unless an earlier one is hardly slower. Raises JobError when none worked."""
    best: Measured | None = None
    for one in found:
        if not one.failed and (best is None or one.images_per_s > WORTH_IT * best.images_per_s):
            best = one
    if best is None:
        why = found[-1].failed if found else "none was tried"
        raise JobError(f"no way of dividing this machine worked: {why}")
    return best


def measure(work: Work, way: Way) -> Measured:
    """One way, in processes of its own."""
    context = multiprocessing.get_context("spawn")
    ready, answers = context.Barrier(way.actors), context.SimpleQueue()
    actors = [context.Process(target=_act, args=(work, way, n, ready, answers)) for n in range(way.actors)]
    for actor in actors:
        actor.start()
    try:
        found = list(_gathered(actors, answers))
    finally:
        for actor in actors:
            actor.kill()
            actor.join()
    failed = next((answer for answer in found if isinstance(answer, str)), "")
    return Measured(way, 0.0 if failed else sum(answer for answer in found if not isinstance(answer, str)), failed)


def _gathered(actors: Sequence[Any], answers: Any) -> Iterator[float | str]:
    """One answer of each actor; the first that says why it cannot ends it."""
    for _ in actors:
        while answers.empty():
            gone = next((actor for actor in actors if actor.exitcode), None)
            if gone is not None:
                yield f"an actor ended with exit code {gone.exitcode}: out of memory, most likely"
                return
            time.sleep(0.05)
        answer = answers.get()
        yield answer
        if isinstance(answer, str):
            return


def _act(work: Work, way: Way, number: int, ready: Any, answers: Any) -> None:
    """An actor: its images a second while all are at work, or why it has none."""
    try:
        if way.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = str(int(number * way.gpus))
        model: Any = SingleThreadProxy(partial(_load, work, way.threads))
        images = _images(model, work)
        refine(model, images, work.method)
        ready.wait(START_S)
        answers.put(_rate(model, images, work, way.chunks))
    except Exception as error:
        ready.abort()
        answers.put(f"{type(error).__name__}: {error}")


def _load(work: Work, threads: int) -> Any:
    method = work.method
    return load_model(
        method.model, work.weights, work.device, threads, method.dtype, work.compiled, method.encode_batch
    )


def _images(model: Any, work: Work) -> list[RefineImage]:
    decoded = [decode_image(photo, work.method.max_image_pixels) for photo in work.photos]
    return [with_discs(model, image, input_for(model, image), work.masks_per_image) for image in decoded]


def _rate(model: Any, images: Sequence[RefineImage], work: Work, chunks: int) -> float:
    """Images a second of `chunks` threads that refine the images again and again."""
    started = time.perf_counter()
    with ThreadPoolExecutor(chunks) as pool:
        for done in [pool.submit(refine, model, images, work.method) for _ in range(work.rounds * chunks)]:
            done.result()
    return work.rounds * chunks * len(images) / (time.perf_counter() - started)


def cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
