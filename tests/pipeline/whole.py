"""A whole run without Ray or a cluster: plan, load, refine, write and seal, in this process, as the stages do it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pipeline.dataset import Result, open_result
from pipeline.models.weights import Weights
from pipeline.output.seal import SealRequest, seal
from pipeline.planning.increment import ChunkLimits, plan, read_plan
from pipeline.refiners import load_side
from pipeline.refining import chunk as chunk_work
from pipeline.refining.chunk import Inputs, Job, Task
from pipeline.sources import SourceInput, scan
from pipeline.storage import Access, Store
from pipeline.storage.documents import run_store
from schemas.config import Gate, Method
from tests.conftest import DEMO
from tests.fakes import FakeModel

FINGERPRINT = "feedc0ffee00"


def coco(path: Path, images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> Path:
    """Write a COCO file; missing ids are numbers in order, a missing category is 1."""
    for number, image in enumerate(images):
        image.setdefault("id", number)
    for number, annotation in enumerate(annotations):
        annotation.setdefault("id", number)
        annotation.setdefault("category_id", 1)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    path.write_text(json.dumps(content))
    return path


def plan_demo(output: Store, chunk_images: int) -> Store:
    """Plan the demo's five photographs and ten masks; returns the photographs' store."""
    images = Store(str(DEMO / "images"))
    listed = {file.path: file for file in images.list()}
    source = scan("coco", SourceInput(str(DEMO / "coarse.json"), Access(), listed))
    plan(output, source, listed, ChunkLimits(chunk_images, 1 << 30))
    return images


def run_here(images: Path, masks: Path, output: Path, model: Any, method: Method, chunk_images: int = 16) -> Result:
    """The sealed result. Raises what the stages would treat as a failure of the chunk: nothing should."""
    store, source = Store(str(output)), Store(str(images))
    run = run_store(store, FINGERPRINT)
    listed = {file.path: file for file in source.list()}
    plan(store, scan("coco", SourceInput(str(masks), Access(), listed)), listed, ChunkLimits(chunk_images, 1 << 28))
    for chunk in read_plan(store).chunks:
        task = Task(chunk, chunk.images)
        side = load_side(method, model.input_side)
        loaded = chunk_work.load(task.rows(store), Inputs(source, None), method, side, 2)
        chunk_work.write(chunk_work.refine(loaded, model, method), task, run, "test; 1 threads")
    request = SealRequest(
        output=store,
        fingerprint=FINGERPRINT,
        gate=Gate(),
        calibration=None,
        shard_bytes=1 << 24,
        images_root=str(images),
    )
    seal(request)
    return open_result(str(output))


def demo_job(folder: Path, loader: Callable[..., Any], execution_of: Callable[[str, int], str]) -> Job:
    """The demo planned below `folder`, an image to a chunk, and the job that refines it with what `loader` loads."""
    output = Store(str(folder / "out"))
    images = plan_demo(output, chunk_images=1)
    return Job(
        output=output,
        run=Store(f"{output.uri}/runs/0"),
        inputs=Inputs(images, None),
        method=Method(iterations=1),
        weights=Weights("", "", Access()),
        input_side=FakeModel.input_side,
        threads=1,
        fetch_threads=2,
        device="cpu",
        attempt_log=None,
        loader=loader,
        execution_of=execution_of,
    )
