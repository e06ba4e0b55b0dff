"""`segments_info` beside an image of segment ids, as panoptic datasets have it: the category of each segment. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.sources.cell_fields import parsed
from pipeline.sources.fields import as_flag, as_int, as_list
from pipeline.sources.types import PlannedMask

FIELD = "segments_info"
NOT_DRAWN = f"segments of {FIELD} that the image does not have"


def with_segments(
    masks: Sequence[PlannedMask], cell: Any, names: Mapping[int, str], tell: Callable[[str], None]
) -> list[PlannedMask]:
    """The masks of an image of ids, each with the category of its segment; as they are where no segments are known."""
    found = parsed(cell)
    entries = [one for one in as_list(cell if found is None else found) if isinstance(one, Mapping)]
    segments = {as_int(one.get("id")): one for one in entries if as_int(one.get("category_id")) is not None}
    if not segments or not masks:
        return list(masks)
    numbers = [_number_of(mask) for mask in masks]
    if len(masks) == len(segments) == 1 and numbers == [None]:
        numbers = list(segments)
    if not {*segments} <= {*numbers}:
        tell(NOT_DRAWN)
    return [_of(mask, number, segments.get(number), names) for mask, number in zip(masks, numbers, strict=True)]


def _number_of(mask: PlannedMask) -> int | None:
    """The id that a mask has in its image."""
    number = as_int(mask.source_mask_id.rpartition("#")[2]) if "#" in mask.source_mask_id else None
    return number if number == mask.category_id else None


def _of(
    mask: PlannedMask, number: int | None, segment: Mapping[str, Any] | None, names: Mapping[int, str]
) -> PlannedMask:
    if segment is None:
        return replace(mask, detail=f"segments: {FIELD} has no segment {'of this id' if number is None else number}")
    category = as_int(segment["category_id"])
    category = -1 if category is None else category
    return replace(mask, category_id=category, category=names.get(category, ""), crowd=as_flag(segment.get("iscrowd")))
