"""Images as annotation tools write them: a name, a size, and shapes with the label of each.

A source yields an Annotated for each image (or several: they are brought together by the plan); here it becomes a
planned image. Names are taken by the rule that makes them paths (`names.py`). Labels that have no number of their own
are numbered from 1, and keep that number in later passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.sources import names
from pipeline.sources.coverage import MAX_CATEGORIES, Coverage
from pipeline.sources.fields import as_int, as_size, brief_value
from pipeline.sources.names import NameRule, NameSample
from pipeline.sources.types import PlannedImage, PlannedMask, SourceInput
from pipeline.storage import StoredFile
from pipeline.storage.disk_table import DiskTable, scratch_folder
from pipeline.storage.paths import safe_relative

BLOCK = 256
NUMBERED = "category ids"


class Shape(NamedTuple):
    """One object; its geometry is as that of a PlannedMask. number: the category's id, None where a label is all."""

    source_id: str
    label: str
    geometry: str
    detail: str = ""
    crowd: bool = False
    extra: str = ""
    number: int | None = None


@dataclass(frozen=True)
class Annotated:
    """One image. names: the paths that may be meant, likeliest first; stated: the name as the file has it.

    digest_extra, extra, problem: as of a PlannedImage.
    """

    stated: str
    source_id: str
    height: Any
    width: Any
    shapes: Sequence[Shape]
    names: Iterable[str] = ()
    extra: str = ""
    digest_extra: str = ""
    where: str = "the file"


def plan(given: SourceInput, found: Iterable[Annotated], order: Iterable[str] = ()) -> Iterator[PlannedImage]:
    """The planned images. order: of labels, as the format numbers them from 1; read when `found` is at its end."""
    with scratch_folder("annotated") as folder:
        table, sample, labels = DiskTable(folder), NameSample(given.images), dict[str, None]()
        count = 0
        for one in found:
            name = _name(one, given.images)
            sample.add(name)
            labels.update((shape.label, None) for shape in one.shapes if shape.number is None and shape.label)
            rest = one.extra, one.digest_extra, one.where
            table.add(
                count // BLOCK, [name, one.stated, one.source_id, one.height, one.width, rest, [*map(list, one.shapes)]]
            )
            count += 1
        numbers = _number(labels, order, given.coverage)
        rule = names.rule_for(sample, given.images, given.coverage, "--masks")
        matched = 0
        for block in range(-(-count // BLOCK)):
            for entry in table.read(block, block):
                image = _planned(entry, rule, numbers, given.images)
                matched += image.image_uri in given.images
                yield image
    if len(given.images):
        names.say_matches(matched, count, "names of images", given.coverage)


def _name(one: Annotated, images: Mapping[str, StoredFile]) -> str:
    return next((name for name in one.names if name in images), one.stated) if len(images) else one.stated


def _planned(
    entry: list[Any], rule: NameRule, numbers: Mapping[str, int], images: Mapping[str, StoredFile]
) -> PlannedImage:
    name, stated, source_id, height, width, (extra, digest_extra, where), shapes = entry
    path = rule.resolve(name, images) if name and name not in images else name
    is_safe = safe_relative(path)
    return PlannedImage(
        image_uri=path or f"unnamed-image-{source_id}",
        source_image_id=source_id,
        declared_hw=as_size(height, width),
        masks=[_mask(Shape(*shape), numbers) for shape in shapes],
        problem=None if is_safe else "image_outside_root",
        digest_extra=digest_extra,
        detail=_detail(path, stated, where, images) if is_safe else _no_path(path, where),
        extra=extra,
    )


def _detail(path: str, stated: str, where: str, images: Mapping[str, StoredFile]) -> str:
    if path not in images:
        return names.hint(path, images)
    last = stated.replace("\\", "/").rpartition("/")[2]
    return "" if not last or path.endswith(last) or "%" in last or "?" in last else f"{where} names {stated}"


def _no_path(path: str, where: str) -> str:
    return f"{brief_value(path)} is no path in --images" if path else f"{where} names no image"


def _mask(shape: Shape, numbers: Mapping[str, int]) -> PlannedMask:
    number = shape.number
    if number is None:
        number = numbers.get(shape.label, -1) if shape.label else 1
    return PlannedMask(
        shape.source_id, number, shape.label, shape.geometry, shape.detail, bool(shape.crowd), shape.extra
    )


def _number(labels: Iterable[str], order: Iterable[str], coverage: Coverage) -> dict[str, int]:
    """Label -> category id: as before; then in the format's order; then in that of names."""
    pinned = coverage.pinned.get(NUMBERED)
    known = {name: number for name, value in (pinned or {}).items() if (number := as_int(value)) is not None}
    first = list(dict.fromkeys(name for name in order if name))
    fresh = [name for name in [*first, *sorted(set(labels) - set(first))] if name not in known]
    start = max(known.values(), default=0) + 1
    found = {**known, **{name: start + place for place, name in enumerate(fresh)}}
    found = dict(list(found.items())[:MAX_CATEGORIES])
    if found:
        coverage.pinned[NUMBERED] = found
    for name, number in found.items():
        coverage.describe("categories", {"id": number, "name": name})
    return found
