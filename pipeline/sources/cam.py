"""A folder of soft class activation maps beside a folder of images: `cams/NAME.npy` or `.npz` for `images/NAME.jpg`.

What a file holds, and how its scores become a class map: `pipeline/decoding/cams.py`. Options of this source:
    layout=chw|hwc         axis order of the scores (chw)
    alpha=A                background score (1 - highest class score) ** A  (the default, with A = 1)
    threshold=T            background score T everywhere
for instance `--source cam:layout=hwc,threshold=0.3`. They are part of each mask's geometry, so the coarse masks that a
plan stands for do not change under it. One mask for each class that wins somewhere; images without a file are not
planned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np

from pipeline.decoding import cams
from pipeline.decoding.cams import CamRule
from pipeline.errors import MaskError, RefusedError
from pipeline.sources import files
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a file of scores, then the files that belong to no image. Raises RefusedError."""
    read = partial(_masks, rule=parse(given.options))
    return files.scan(given, {".npy", ".npz"}, read, images_without_files=False)


def parse(options: Mapping[str, str]) -> CamRule:
    """The rule that a source's options state. Raises RefusedError for what it does not know."""
    unknown = options.keys() - {"layout", "alpha", "threshold"}
    layout = options.get("layout", "chw")
    if unknown or layout not in ("chw", "hwc") or {"alpha", "threshold"} <= options.keys():
        raise RefusedError(
            f"source cam takes layout=chw or hwc, and one of alpha=A and threshold=T; given: "
            f"{','.join(f'{name}={value}' for name, value in options.items())}"
        )
    alpha = None if "threshold" in options else _number(options, "alpha", 1.0, 1000.0)
    threshold = _number(options, "threshold", 0.5, 1.0) if "threshold" in options else None
    return CamRule("hwc" if layout == "hwc" else "chw", alpha, threshold)


def _number(options: Mapping[str, str], name: str, default: float, highest: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = -1.0
    if not 0 < value <= highest:
        raise RefusedError(f"source cam: {name} is a number above 0, at most {highest:g}, not {options[name]!r}")
    return value


def _masks(path: str, data: bytes, rule: CamRule) -> list[PlannedMask]:
    name = stem(path)
    try:
        found = cams.read(data, rule.layout)
        winners = np.unique(cams.class_map(found.scores, rule))
    except MaskError as error:
        # fails again, and is counted, when it is loaded
        return [PlannedMask(name, -1, "", _geometry(path, rule, 0), f"unreadable: {error.detail}")]
    return [
        PlannedMask(
            f"{name}#{found.categories[channel]}", found.categories[channel], "", _geometry(path, rule, channel)
        )
        for channel in (winners[winners > 0] - 1).tolist()
    ]


def _geometry(path: str, rule: CamRule, channel: int) -> str:
    return json.dumps({"file": path, "channel": channel, "cam": rule._asdict()})
