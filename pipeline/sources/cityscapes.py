"""Cityscapes' own names: which of the files beside an image is what, and what its ids are called.

https://www.cityscapes-dataset.com, as downloaded: `X_leftImg8bit.png`; for each, `X_gtFine_instanceIds.png`,
`X_gtFine_labelIds.png`, perhaps `X_gtFine_labelTrainIds.png`, `X_gtFine_color.png` and `X_gtFine_polygons.json`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

KINDS = ("instanceIds", "labelIds", "labelTrainIds")
_FILE = re.compile(r".+_gt(?:Fine|Coarse)_(\w+?)\.(?:png|json)")
_LABELS = """unlabeled,ego vehicle,rectification border,out of roi,static,dynamic,ground,road,sidewalk,parking,
rail track,building,wall,fence,guard rail,bridge,tunnel,pole,polegroup,traffic light,traffic sign,vegetation,terrain,
sky,person,rider,car,truck,bus,caravan,trailer,train,motorcycle,bicycle"""
NAMES = {number: name.strip() for number, name in enumerate(_LABELS.split(","))}
"""Label id -> name."""
_TRAINED = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
TRAIN_NAMES = {number: NAMES[label] for number, label in enumerate(_TRAINED)}
"""Train id -> name."""


def kind_of(path: str) -> str | None:
    """What a file of Cityscapes is: one of KINDS, `color`, `polygons`, ...; None for any other file."""
    found = _FILE.fullmatch(path.rpartition("/")[2])
    return found[1] if found else None


def best_kind(paths: Iterable[str], wanted: Iterable[str]) -> str | None:
    """The first of the wanted kinds that some of the paths are of."""
    kinds = {kind_of(path) for path in paths}
    return next((kind for kind in wanted if kind in kinds), None)
