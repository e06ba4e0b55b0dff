"""What is measured on: coarse masks whose truth is known, image by image.

train   photographs that the model's weights were not fitted to (lite/training/data.py, parts `iou` and `val`), damaged
        by any kind of any family, 16 % true masks: everything that is fitted is fitted on these
seen    the training photographs that they were fitted to, without the networks' masks (networks saw those too)
dev-A   the development set, split A: calibrations
dev-B   split B: what is reported
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from pipeline.masks.binary import Mask, Rle, decode, encode, iou
from pipeline.models.lite.training.damage import KINDS, MAX_IOU, MIN_IOU, Damage
from pipeline.models.lite.training.data import Part, Photo, load_all
from pipeline.models.lite.training.real_damage import REAL_KINDS
from tests.benchmarks.lite_dev import DEV_KINDS, UNSEEN, Image, load_dev
from tests.benchmarks.quality.networks import NETWORKS, Networks

CASES_PER_PHOTO, CASES_PER_MASK = 6, 3
MIN_AREA = 300
TRUE_SHARE, COMPOSED_SHARE = 0.16, 0.2
TRIES = 6
PARTS: dict[str, set[Part]] = {"train": {"iou", "val"}, "seen": {"fit"}}
FAMILIES: dict[str, tuple[str, ...]] = {
    "networks": (*NETWORKS, "mask_head"),
    "shape": (
        *("morphology", "polygon", "hull", "low_resolution", "blurred", "rough", "patches", "cut", "warp", "scaled"),
        *("without_thin_parts", "morph", "poly", "lowres"),
    ),
    "colours": ("superpixels", "majority", "leak", "superpixel"),
    "algorithms": ("grabcut", "two_colours"),
    "moved": ("moved", "shift"),
}
"""Kinds of damage that go together, those of the development set included: `patches` is the name of one of either."""

CHANCES = {"networks": 0.3, "shape": 0.3, "colours": 0.14, "algorithms": 0.13, "moved": 0.13}
DEV_MADE = (*NETWORKS, "moved")
"""Kinds that the development set does not bring: made of its truth."""
MEASURED = (*DEV_KINDS, *UNSEEN, *DEV_MADE)
OTHER = "other"
OTHER_EVERY = 40
"""More of them tell other photographs better, and make the gate refuse good answers to badly damaged masks."""


@dataclass(frozen=True)
class Case:
    """One coarse mask. `kinds`: what was done to the truth, `true` for nothing."""

    mask_id: str
    kinds: tuple[str, ...]
    truth: Rle
    coarse: Rle


@dataclass(frozen=True)
class Picture:
    """One photograph (H, W, 3) uint8 RGB with its cases."""

    name: str
    source: str
    image: Image
    cases: tuple[Case, ...]


def train_pictures(
    folders: list[Path], every: int, parts: set[Part], networks: Networks | None = None
) -> Iterator[Picture]:
    """Every n-th training photograph of these parts. networks: that did not see them; None: without their kinds."""
    for photo in load_all(folders, parts)[::every]:
        rng = np.random.default_rng([len(photo.masks), *photo.name.encode()])
        truths = [mask for mask in map(decode, photo.masks) if MIN_AREA <= mask.sum() < 0.9 * mask.size]
        chosen = np.tile(rng.permutation(len(truths)), CASES_PER_MASK)[:CASES_PER_PHOTO]
        cases = [
            _damaged(photo.image, truths[index], f"{photo.name}/{index}/{number}", rng, networks)
            for number, index in enumerate(chosen)
        ]
        yield Picture(photo.name, photo.source, photo.image, tuple(cases))


def _damaged(image: Image, truth: Mask, name: str, rng: np.random.Generator, networks: Networks | None) -> Case:
    for _ in range(TRIES):
        if rng.random() < TRUE_SHARE:
            break
        family = str(rng.choice(list(CHANCES), p=list(CHANCES.values())))
        known = _damages(networks)
        kinds = [str(rng.choice([kind for kind in FAMILIES[family] if kind in known]))]
        if rng.random() < COMPOSED_SHARE and family != "networks":
            kinds.append(str(rng.choice(list(KINDS))))
        coarse = truth
        for kind in kinds:
            coarse = known[kind](image, coarse, rng) if coarse.any() and not coarse.all() else coarse
        if coarse.any() and MIN_IOU <= iou(coarse, truth) <= MAX_IOU:
            return Case(name, tuple(kinds), encode(truth), encode(coarse))
    return Case(name, ("true",), encode(truth), encode(truth))


def _damages(networks: Networks | None) -> dict[str, Damage]:
    """Every kind of damage by name."""
    learnt = {kind: partial(_answered, networks, kind) for kind in NETWORKS} if networks else {}
    return {**KINDS, **REAL_KINDS, **learnt}


def _answered(networks: Networks, kind: str, image: Image, truth: Mask, rng: np.random.Generator) -> Mask:
    [found] = networks.answers(kind, Photo("", "", image, (encode(truth),)), rng)
    return found


def dev_pictures(
    folder: Path, split: str, kinds: tuple[str, ...], every: int, networks: Networks | None = None
) -> Iterator[Picture]:
    """Every n-th photograph of a split ("A", "B") of the development set, with the kinds asked for."""
    wanted = set(json.loads((folder / "split.json").read_text())[split])
    photos = [photo for photo in load_dev(folder) if photo.name in wanted]
    for photo in photos[::every]:
        cases = []
        for number, truth in zip(photo.ids, photo.truth, strict=True):
            for kind in kinds:
                coarse = _coarse(photo.image, truth, kind, number, networks)
                if kind in DEV_KINDS:
                    coarse = photo.coarse[kind][photo.ids.index(number)]
                if coarse is not None and coarse.any():
                    cases.append(Case(str(number), (kind,), encode(truth), encode(coarse)))
        yield Picture(photo.name, photo.source, photo.image, tuple(cases))


def _coarse(image: Image, truth: Mask, kind: str, number: int, networks: Networks | None) -> Mask | None:
    if kind in UNSEEN:
        return UNSEEN[kind](image, truth, number)
    if kind in DEV_MADE:
        made = _damages(networks)[kind](image, truth, np.random.default_rng([number, *kind.encode()]))
        return made if iou(made, truth) >= MIN_IOU else None
    return truth if kind == "true" else None


def family(kind: str) -> str:
    """The family of a kind of damage; `true` and `other` are their own."""
    return next((name for name, kinds in FAMILIES.items() if kind in kinds), kind)


def of_another_photograph(pictures: list[Picture]) -> list[Picture]:
    """Some of the pictures with another photograph in place of theirs, their kinds led by OTHER: no mask fits there."""
    return [
        replace(picture, cases=tuple(replace(case, kinds=(OTHER, *case.kinds)) for case in picture.cases))
        for picture in seen_instead(pictures, OTHER)[1::OTHER_EVERY]
    ]


def seen_instead(pictures: list[Picture], control: str) -> list[Picture]:
    """The pictures with grey, or another photograph of the list, in place of theirs."""
    changed = []
    for index, picture in enumerate(pictures):
        seen = np.full_like(picture.image, 127)
        if control == OTHER:
            other = pictures[(index + len(pictures) // 2) % len(pictures)].image
            seen = np.asarray(cv2.resize(other, picture.image.shape[1::-1], interpolation=cv2.INTER_AREA), np.uint8)
        changed.append(Picture(picture.name, picture.source, seen, picture.cases))
    return changed
