"""What is compared: `OUTPUT`, its result; `OUTPUT@3`, its generation 3; `OUTPUT@coarse`, the masks that came in."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.dataset.by_image import groups, read_group
from pipeline.dataset.result import Result, open_generation, open_result
from pipeline.errors import RefusedError
from pipeline.storage import Access

COARSE = "coarse"
_NAMED = re.compile(r"(?P<output>.+)@(?P<which>\d+|coarse)")
_COLUMNS = ["mask_id", "source_mask_id", "category_id", "category", "crowd", "decision", "reason"]

Row = dict[str, Any]


@dataclass(frozen=True)
class Side:
    """One of the two. column: of the masks that are looked at."""

    name: str
    result: Result
    column: str

    def images(self) -> Iterator[tuple[Row, list[Row]]]:
        """(image, its masks) in the order of the shards; each mask has its RLE, or None, as `rle`."""
        for group in groups(self.result):
            for _, image, masks in read_group(self.result, group, [*_COLUMNS, self.column]):
                yield (
                    {name: image[name] for name in ("image_id", "image_uri", "height", "width")},
                    [{**{name: mask[name] for name in _COLUMNS}, "rle": mask[self.column]} for mask in masks],
                )

    def is_of(self, other: Side) -> bool:
        """Whether both are of the same rows."""
        same_store = self.result.store.uri.rstrip("/") == other.result.store.uri.rstrip("/")
        return same_store and self.result.manifest == other.result.manifest


def is_plain(named: str) -> bool:
    """Whether it names an output alone."""
    return _NAMED.fullmatch(named) is None


def output_of(named: str) -> str:
    """The output that is named, whichever of its generations is meant."""
    found = _NAMED.fullmatch(named)
    return found["output"] if found else named


def find_side(named: str, access: Access) -> Side:
    """`OUTPUT`, `OUTPUT@GENERATION` or `OUTPUT@coarse`. Raises RefusedError where there is none."""
    found = _NAMED.fullmatch(named)
    if found is None:
        return Side(named, open_result(named, access), "mask_rle")
    if found["which"] == COARSE:
        return Side(named, open_result(found["output"], access), "coarse_rle")
    result = open_generation(found["output"], int(found["which"]), access)
    lost = [path for path in result.files()[:1] if not result.store.exists(path)]
    if lost:
        raise RefusedError(
            f"{named}: its shards were removed when it was replaced. Generations stay for as long as "
            "`relabel run --config` has them in operation.keep_generations"
        )
    return Side(named, result, "mask_rle")
