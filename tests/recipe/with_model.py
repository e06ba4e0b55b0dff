"""What a model finds of planted faults: python -m tests.recipe.with_model FOLDER [--skip 9]

Photographs with accurate masks (part `val`, as `make recipe` takes them): some masks are left out, others get another
class. Dropped objects are counted in images that are annotated all over; elsewhere nobody knows what a proposal is of.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import typer

from pipeline.comparison.measure import rle_iou
from pipeline.findings.by_model import model_for
from pipeline.findings.classes import FEWEST
from pipeline.findings.find import Asked, find
from pipeline.masks import binary
from pipeline.storage import Access
from tests.recipe import pair
from tests.recipe.__main__ import DATA
from tests.recipe.figures import MATCH, average_precision
from tests.results import mask_row, write_result

SWAPPED = 0.08  # of the masks, where their class has FEWEST or more
DENSE = 0.9  # of an image's pixels, under accurate masks
FIRST = (10, 20, 50)

Row = dict[str, Any]


def plant(chosen: list[pair.Photo], folder: Path, seed: int) -> tuple[list[Row], dict[str, list[Any]], set[str]]:
    """-> rows of a result, masks that were left out of densely annotated images by image, ids of masks swapped."""
    rng = np.random.default_rng(seed)
    counts = Counter(one.name for photo in chosen for one in photo.instances)
    common = sorted(name for name, count in counts.items() if count >= FEWEST)
    rows: list[Row] = []
    dropped: dict[str, list[Any]] = {}
    swapped: set[str] = set()
    for photo in chosen:
        image = f"{photo.source}_{photo.path.name}"
        shutil.copyfile(photo.path, folder / "images" / image)
        left = []
        for one in photo.instances:
            if rng.random() < pair.DROPPED:
                left.append(binary.encode(one.mask))
                continue
            name = one.name
            if name in common and rng.random() < SWAPPED:
                name = str(rng.choice([other for other in common if other != name]))
            mask = pair.rough(photo.pixels(), one.mask, rng)
            rows.append(mask_row(image, one.truth_id, mask, mask, category=name))
            swapped |= {rows[-1]["mask_id"]} if name != one.name else set()
        if np.mean(np.any([one.mask for one in photo.instances], axis=0)) >= DENSE:
            dropped[image] = left
    return rows, dropped, swapped


def of_dropped(found: list[Row], dropped: dict[str, list[Any]]) -> list[bool]:
    """Whether each proposal is of an object that was left out, and the first of it."""
    taken: dict[str, set[int]] = defaultdict(set)
    right = []
    for row in found:
        ious = [rle_iou(row["rle"], rle) for rle in dropped[row["image_id"]]]
        best = int(np.argmax(ious)) if ious else -1
        is_right = best >= 0 and ious[best] >= MATCH and best not in taken[row["image_id"]]
        taken[row["image_id"]] |= {best} if is_right else set()
        right.append(is_right)
    return right


def figures(right: list[bool], faults: int) -> Row:
    """Of findings, the most certain first."""
    first = {f"right of first {count}": float(np.mean(right[:count])) for count in FIRST if right}
    return {"planted": faults, "found": len(right), "average precision": average_precision(right, faults), **first}


def main(folder: Path, per_source: int = pair.PER_SOURCE, skip: int = 0, seed: int = 0, model: str = "lite") -> None:
    """Plant, look, tell."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    chosen = list(pair.photos([DATA / "train", DATA / "train2"], per_source, skip))
    rows, dropped, swapped = plant(chosen, folder, seed)
    write_result(folder / "result", [rows], str(folder / "images"))
    start = time.process_time()
    loaded = model_for(model, None, Access(), "auto", 1)
    looked = find(str(folder / "result"), Asked(("uncovered", "class"), model=loaded), Access()).table.to_pylist()
    told = {"images": len(chosen), "masks": len(rows), "cpu_s": time.process_time() - start}
    uncovered = [row for row in looked if row["kind"] == "uncovered" and row["image_id"] in dropped]
    counts = Counter(row["category"] for row in rows)
    faults = {row["mask_id"] for row in rows if row["mask_id"] in swapped and counts[row["category"]] >= FEWEST}
    misfit = [row["mask_id"] in swapped for row in looked if row["kind"] == "class"]
    told["uncovered"] = figures(of_dropped(uncovered, dropped), sum(map(len, dropped.values())))
    told["uncovered"]["images"] = len(dropped)
    told["class"] = figures(misfit, len(faults))
    typer.echo(json.dumps(told, indent=1))


if __name__ == "__main__":
    typer.run(main)
