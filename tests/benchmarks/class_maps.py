"""Semantic class maps: mIoU of coarse and refined maps, with split-then-merge and without.

    python -m tests.benchmarks.class_maps --data ../shared/data

Class maps are painted from the accurate instances and panoptic segments of photographs that lite was not fitted to: the
dev set (COCO, Penn-Fudan), and those of train's COCO128 that its split keeps apart. Coarse maps are painted from the
same regions, each damaged by itself (lite/training/damage.py, seed by image). Larger regions are painted first. Always
refine, no gate; classes of an image do not overlap. mIoU: IoU summed over the set for each class, then averaged over
the classes and the background; 95 % intervals of the difference from resampling images.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch

from pipeline import refiners
from pipeline.masks import binary
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models.lite.model import LiteModel
from pipeline.models.lite.training.damage import damage
from pipeline.models.lite.training.data import part_of
from pipeline.refiners import RefineImage
from schemas.config import Method

ClassMap = npt.NDArray[np.int32]
Counts = npt.NDArray[np.int64]
DAMAGED_PX = 64  # regions smaller than this stay as they are
REPLICATES = 1000
METHODS = {
    "whole classes": Method(exclusive=True),
    "split-then-merge": Method(exclusive=True, split_regions=True),
}


class Scene(NamedTuple):
    """One photograph (H, W, 3) uint8 RGB and its class maps."""

    source: str
    image: npt.NDArray[np.uint8]
    truth: ClassMap
    coarse: ClassMap


def load(data: Path, every: int) -> list[Scene]:
    """Every n-th photograph of the dev set, and every n-th unseen one of COCO128."""
    dev = [entry for entry in _entries(data / "dev") if entry[2]]
    panoptic = [
        entry
        for entry in _entries(data / "train")
        if entry[2] and entry[1]["source"] == "COCO128" and part_of(entry[1]["file_name"]) != "fit"
    ]
    return [_scene(*entry) for entry in (*dev[::every], *panoptic)]


def _entries(folder: Path) -> list[tuple[Path, dict[str, object], list[dict[str, object]]]]:
    content = json.loads((folder / "gt.json").read_text())
    by_image: dict[int, list[dict[str, object]]] = {}
    for annotation in content["annotations"]:
        by_image.setdefault(annotation["image_id"], []).append(annotation)
    return [(folder, image, by_image.get(image["id"], [])) for image in content["images"]]


def _scene(folder: Path, image: dict[str, object], annotations: list[dict[str, object]]) -> Scene:
    name = str(image["file_name"])
    pixels = cv2.cvtColor(cv2.imread(str(folder / "images" / name)), cv2.COLOR_BGR2RGB)
    rng = np.random.default_rng(int(hashlib.sha256(name.encode()).hexdigest()[:8], 16))
    truth, coarse = (np.zeros(pixels.shape[:2], np.int32) for _ in range(2))
    for annotation in sorted(annotations, key=lambda one: (-float(str(one["area"])), one["id"])):
        mask = binary.decode(annotation["segmentation"])  # type: ignore[arg-type]
        rough = damage(pixels, mask, rng) if mask.sum() >= DAMAGED_PX and not mask.all() else mask
        truth[mask > 0] = coarse[rough > 0] = int(str(annotation["category_id"]))
    return Scene(str(image["source"]), pixels, truth, coarse)


def refined(model: LiteModel, scene: Scene, method: Method) -> ClassMap:
    """The coarse map, refined."""
    size_hw = scene.coarse.shape[0], scene.coarse.shape[1]
    classes = [int(value) for value in np.unique(scene.coarse) if value]
    coarse = [binary.encode(scene.coarse == value) for value in classes]
    image = RefineImage(resize_to_input(scene.image, model.input_side), Frame(size_hw, model.input_side), coarse)
    labels = np.zeros(size_hw, np.int32)
    for value, result in zip(classes, refiners.refine(model, [image], method)[0], strict=True):
        labels[binary.decode(result.rle) > 0] = value
    return labels


def counts(found: ClassMap, truth: ClassMap, classes: int) -> Counts:
    """(2, classes) pixels in the intersection and in the union, for each class."""
    both = np.bincount(truth[found == truth], minlength=classes)
    either = np.bincount(truth.ravel(), minlength=classes) + np.bincount(found.ravel(), minlength=classes) - both
    return np.stack([both, either])


def miou(summed: npt.NDArray[np.float64]) -> float:
    """(2, classes) summed counts -> mean over the classes that occur."""
    both, either = summed
    return float(np.mean(both[either > 0] / either[either > 0]))


def row(name: str, found: Counts, coarse: Counts) -> str:
    """(images, 2, classes) of one condition and of the coarse maps -> a line of the table."""
    rng = np.random.default_rng(0)
    times = np.stack(
        [np.bincount(rng.integers(len(found), size=len(found)), minlength=len(found)) for _ in range(REPLICATES)]
    )
    gains = [miou(np.tensordot(t, found, 1)) - miou(np.tensordot(t, coarse, 1)) for t in times.astype(np.float64)]
    low, high = np.percentile(gains, [2.5, 97.5])
    value, gain = miou(found.sum(0)), miou(found.sum(0)) - miou(coarse.sum(0))
    return f"| {name} | {value:.3f} | {gain:+.3f} [{low:+.3f}, {high:+.3f}] |"


def table(results: dict[str, Counts], sources: list[str]) -> str:
    """For each source, and all together, a line a condition."""
    lines = ["| maps | mIoU | against coarse [95 %] |", "| --- | --- | --- |"]
    for source in (*dict.fromkeys(sources), "all"):
        rows = np.array([source in (one, "all") for one in sources])
        classes = int((results["coarse"][rows].sum((0, 1)) > 0).sum())
        lines.append(f"| **{source}**: {int(rows.sum())} images, {classes} classes with background | | |")
        lines += [row(name, found[rows], results["coarse"][rows]) for name, found in results.items()]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--weights", type=Path, default=None, help="default: the packaged weights")
    parser.add_argument("--every", type=int, default=2, help="use every n-th photograph of the dev set")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    if not arguments.data.is_dir():
        parser.exit(0, f"skipped: there is no data at {arguments.data}\n")
    torch.set_num_threads(arguments.threads)
    model, scenes = LiteModel(arguments.weights), load(arguments.data, arguments.every)
    classes = 1 + max(int(max(scene.truth.max(), scene.coarse.max())) for scene in scenes)
    found: dict[str, list[Counts]] = {name: [] for name in ("coarse", *METHODS)}
    for index, scene in enumerate(scenes):
        found["coarse"].append(counts(scene.coarse, scene.truth, classes))
        for name, method in METHODS.items():
            found[name].append(counts(refined(model, scene, method), scene.truth, classes))
        if index % 20 == 0:
            print(f"{index + 1} of {len(scenes)} photographs", flush=True)
    print(f"weights {model.weights_sha256}\n")
    print(table({name: np.stack(of) for name, of in found.items()}, [scene.source for scene in scenes]))


if __name__ == "__main__":
    main()
