"""Runs a refiner over cases and keeps, for every mask, its scores and how good coarse and refined are.

Rows are kept in a cache folder, one JSON line a mask, by weights, method and cases, so that everything that is fitted
on top of them takes seconds, and an interrupted run goes on with the next image.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from pipeline import refiners
from pipeline.masks import binary
from pipeline.masks.binary import boundary_iou, decode, iou
from pipeline.masks.frames import Frame
from pipeline.models import load_model
from pipeline.models.weights import resolve
from pipeline.refiners import RefineImage, load_pixels
from pipeline.storage import Access
from schemas.calibration import method_key
from schemas.config import Method
from tests.benchmarks.quality.cases import Picture

Row = dict[str, Any]


def with_weights(method: Method, weights: str | None) -> Method:
    """The method with the hash of the weights that it will use."""
    found = resolve(method.model, weights if method.model == "lite" else None, Access())
    return method.model_copy(update={"weights_sha256": found.sha256})


def collect(
    pictures: Iterable[Picture], method: Method, weights: str | None, cache: Path, name: str, workers: int
) -> list[Row]:
    """Rows of all cases, from the cache where they are there."""
    method = with_weights(method, weights)
    path = cache / f"{name}.{method.refiner}.{method_key(method)}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, list[Row]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        entry = json.loads(line)
        known[entry["image"]] = entry["rows"]
    pictures = [picture for picture in pictures if picture.cases]
    missing = [picture for picture in pictures if picture.name not in known]
    if missing:
        print(f"{path.name}: {len(missing)} of {len(pictures)} images to do", flush=True)
    with path.open("a") as lines:
        for picture, rows in zip(missing, _run(missing, partial(measure, method, weights), workers), strict=True):
            known[picture.name] = rows
            lines.write(json.dumps({"image": picture.name, "rows": rows}) + "\n")
            lines.flush()
    return [row for picture in pictures for row in known[picture.name]]


def _run(pictures: Sequence[Picture], function: Callable[[Picture], list[Row]], workers: int) -> Iterable[list[Row]]:
    if workers < 2 or len(pictures) < 4:
        yield from map(function, pictures)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield from pool.map(function, pictures, chunksize=2)


def measure(method: Method, weights: str | None, picture: Picture) -> list[Row]:
    """Rows of one picture: all of its cases refined together."""
    model = load(method.model, weights)
    frame = Frame((picture.image.shape[0], picture.image.shape[1]), model.input_side)
    pixels = load_pixels(method, picture.image, model.input_side)
    given = RefineImage(pixels, frame, [case.coarse for case in picture.cases])
    [refined] = refiners.refine(model, [given], method)
    rows = []
    for case, result in zip(picture.cases, refined, strict=True):
        truth, coarse, mask = decode(case.truth), decode(case.coarse), decode(result.rle)
        rows.append(
            {
                "image": picture.name,
                "source": picture.source,
                "mask_id": case.mask_id,
                "kinds": [str(kind) for kind in case.kinds],
                "area": binary.area(case.truth),
                "true_coarse": iou(coarse, truth),
                "true_refined": iou(mask, truth),
                "boundary_coarse": boundary_iou(coarse, truth),
                "boundary_refined": boundary_iou(mask, truth),
                "scores": {key: None if math.isnan(value) else float(value) for key, value in result.scores.items()},
            }
        )
    return rows


@lru_cache(maxsize=1)
def load(name: str, weights: str | None) -> Any:
    return load_model(name, resolve(name, weights if name == "lite" else None, Access()), "cpu", 1)
