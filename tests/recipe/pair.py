"""A COCO-like and an LVIS-like annotation of the same photographs, made from accurate masks by a seeded hand.

The first is COCO's way of being wrong: rough outlines, instances left out, instances twice (some as another class), two
instances as one, boxes that are not the mask's. The second is LVIS's: every instance of some classes in some images,
other classes not looked for, some said to be not exhaustive. What was planted stands in the annotations' own field
`planted` and `truth_id`, which nothing but the figures reads.

Only photographs of the `val` part, which lite's weights and its calibration were not fitted to, from the densely
labelled sources of the shared training data.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.masks import binary
from pipeline.masks.binary import Mask
from pipeline.models.lite.training import damage
from pipeline.models.lite.training.data import Part, part_of

SOURCES = ("COCO128", "CCP", "camvid", "sysu", "football", "cats", "food", "panda", "peanut", "nycu")
PER_SOURCE = 9
LEAST_PX = 400
SEED = 25
DROPPED, TWICE, OTHER_CLASS, JOINED, BOX = 0.15, 0.10, 0.4, 0.06, 0.04
"""Shares: of instances that are left out, and twice; of these of another class; of instances joined with another one of
their class; of boxes moved.
"""
EXHAUSTIVE, NOT_EXHAUSTIVE = 0.75, 0.08
"""Of the classes in an image: annotated by the second with every instance; or said not to be, and with one."""

Row = dict[str, Any]


@dataclass
class Instance:
    """One accurate mask. truth_id: over both folders."""

    truth_id: int
    name: str
    mask: Mask


@dataclass
class Photo:
    """A photograph with its instances; image (H, W, 3) uint8 RGB."""

    path: Path
    source: str
    instances: list[Instance]

    def pixels(self) -> damage.Image:
        return np.asarray(cv2.imread(str(self.path))[..., ::-1])


@dataclass
class Coco:
    """A file in the making. first_id: of annotations; spelling: of class names."""

    first_class: int
    underscores: bool
    classes: dict[str, int] = field(default_factory=dict)
    images: list[Row] = field(default_factory=list)
    annotations: list[Row] = field(default_factory=list)

    def class_id(self, name: str) -> int:
        return self.classes.setdefault(name, self.first_class + len(self.classes))

    def add(self, image: int, name: str, mask: Mask, truth_id: int | None, planted: str = "") -> Row:
        rle = binary.encode(mask)
        entry = {
            "id": len(self.annotations) + 1,
            "image_id": image,
            "category_id": self.class_id(name),
            "segmentation": rle,
            "area": binary.area(rle),
            "bbox": binary.bbox_xywh(rle),
            "iscrowd": 0,
            "truth_id": truth_id,
            "planted": planted,
        }
        self.annotations.append(entry)
        return entry

    def write(self, path: Path) -> None:
        names = {number: name.replace(" ", "_") if self.underscores else name for name, number in self.classes.items()}
        categories = [{"id": number, "name": name} for number, name in names.items()]
        path.write_text(json.dumps({"images": self.images, "annotations": self.annotations, "categories": categories}))


def make(data: Sequence[Path], to: Path, per_source: int = PER_SOURCE, skip: int = 0, part: Part = "val") -> None:
    """to: gets images/, coco.json, lvis.json, and truth.json with every accurate mask."""
    rng = np.random.default_rng(SEED)
    (to / "images").mkdir(parents=True, exist_ok=True)
    coco, lvis, truth = Coco(1, False), Coco(1001, True), Coco(1, False)
    for number, photo in enumerate(photos(data, per_source, skip, part), start=1):
        name = f"{photo.source}_{photo.path.name}"
        (to / "images" / name).write_bytes(photo.path.read_bytes())
        height, width = photo.instances[0].mask.shape
        size = {"id": number, "height": height, "width": width}
        coco.images.append({**size, "file_name": name})
        truth.images.append({**size, "file_name": name, "source": photo.source})
        for one in photo.instances:
            truth.add(number, one.name, one.mask, one.truth_id)
        plant(coco, number, photo, rng)
        not_exhaustive = annotate_exhaustively(lvis, number, photo, rng)
        url = f"http://images.cocodataset.org/val2017/{name}"
        lvis.images.append(
            {**size, "coco_url": url, "neg_category_ids": [], "not_exhaustive_category_ids": not_exhaustive}
        )
    for file, name in ((coco, "coco.json"), (lvis, "lvis.json"), (truth, "truth.json")):
        file.write(to / name)


def photos(data: Sequence[Path], per_source: int, skip: int = 0, part: Part = "val") -> Iterator[Photo]:
    """Of each source so many after the first `skip`, in the order of their names."""
    for folder in data:
        content = json.loads((folder / "gt.json").read_text())
        names = {one["id"]: str(one["name"]) for one in content["categories"]}
        masks = defaultdict(list)
        for one in content["annotations"]:
            masks[one["image_id"]].append(one)
        taken: dict[str, int] = defaultdict(int)
        for image in sorted(content["images"], key=lambda image: str(image["file_name"])):
            source = image.get("source", "")
            own = [one for one in masks[image["id"]] if one["area"] >= LEAST_PX]
            if part_of(image["file_name"]) != part or source not in SOURCES or len(own) < 2:
                continue
            taken[source] += 1
            if skip < taken[source] <= skip + per_source:
                shift = 0 if folder.name == "train" else 1_000_000
                instances = [
                    Instance(shift + one["id"], names[one["category_id"]], binary.decode(one["segmentation"]))
                    for one in own
                ]
                yield Photo(folder / "images" / image["file_name"], source, instances)


def plant(coco: Coco, image: int, photo: Photo, rng: np.random.Generator) -> None:
    """The first annotation of one photograph."""
    pixels = photo.pixels()
    left = list(photo.instances)
    while left:
        one = left.pop(0)
        partner = next((other for other in left if other.name == one.name), None)
        if partner is not None and rng.random() < JOINED:
            left.remove(partner)
            both = rough(pixels, one.mask | partner.mask, rng)
            coco.add(image, one.name, both, None, "several")["joined"] = [one.truth_id, partner.truth_id]
        elif rng.random() >= DROPPED:
            entry = coco.add(image, one.name, rough(pixels, one.mask, rng), one.truth_id)
            if rng.random() < BOX:
                entry["planted"] = "box"
                entry["bbox"] = moved(entry["bbox"], one.mask.shape)
            elif rng.random() < TWICE:
                names = sorted({other.name for other in photo.instances} - {one.name})
                name = str(rng.choice(names)) if names and rng.random() < OTHER_CLASS else one.name
                coco.add(image, name, rough(pixels, one.mask, rng), one.truth_id, "duplicate")


def annotate_exhaustively(lvis: Coco, image: int, photo: Photo, rng: np.random.Generator) -> list[int]:
    """The second annotation of one photograph. Returns the classes that it says are not exhaustive."""
    by_name = defaultdict(list)
    for one in photo.instances:
        by_name[one.name].append(one)
    not_exhaustive = []
    for name, own in by_name.items():
        chance = rng.random()
        if chance < NOT_EXHAUSTIVE:
            not_exhaustive.append(lvis.class_id(name))
        elif chance > NOT_EXHAUSTIVE + EXHAUSTIVE:
            continue
        for one in own[: 1 if chance < NOT_EXHAUSTIVE else None]:
            lvis.add(image, name, rough(photo.pixels(), one.mask, rng), one.truth_id)
    return not_exhaustive


def rough(pixels: damage.Image, mask: Mask, rng: np.random.Generator) -> Mask:
    """A mask as tired annotators draw it."""
    return damage.damage(pixels, mask, rng)


def moved(box: list[float], size_hw: tuple[int, ...]) -> list[float]:
    """A box of another object of the same size: half its width away, within the image."""
    x, y, width, height = box
    away = width / 2 if x + 1.5 * width < size_hw[1] else -width / 2
    return [x + away, y, width, height]
