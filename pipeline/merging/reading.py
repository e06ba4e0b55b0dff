"""Both annotations on disk by the key of their images, so that they can be read side by side in any order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from pipeline import sources
from pipeline.errors import RefusedError
from pipeline.planning.coverage import Content, content, counted
from pipeline.planning.spill import hash_range
from pipeline.sources import PlannedImage, SourceInput
from pipeline.sources.coverage import Coverage
from pipeline.sources.fields import as_int, as_label
from pipeline.storage import Access, StoredFile
from pipeline.storage.disk_table import DiskTable
from schemas.attempts import RANGES

KEYS = ("path", "name", "stem")
"""What an image is known by in both: its path below the image root; its name alone; its name without the suffix."""

HELD_MASKS = 1 << 15

Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """One of the two. source: of `--source`, as `sources.parse` takes it; name: of what comes from it."""

    uri: str
    source: str
    name: str


@dataclass
class Spilled:
    """One of the two on disk. masks: by hash range; classes: that it has; scan: what of it was read and what not."""

    given: Given
    table: DiskTable
    masks: list[int] = field(default_factory=lambda: [0] * RANGES)
    images: int = 0
    classes: set[tuple[int, str]] = field(default_factory=set)
    scan: Content = field(default_factory=dict)


class Pair(NamedTuple):
    """One image in both: {"image": ..., "masks": [...]}, None where one of the two does not have it."""

    key: str
    first: Row | None
    second: Row | None


def spill(
    given: Given, images_uri: str, listed: Mapping[str, StoredFile], key: str, folder: Path, access: Access
) -> Spilled:
    """Read one annotation. Raises RefusedError for one without a mask, and for images inside containers."""
    folder.mkdir()
    found, coverage = Spilled(given, DiskTable(folder)), Coverage()
    asked = SourceInput(given.uri, access, listed, coverage=coverage, images_uri=images_uri)
    for image in counted(sources.scan(given.source, asked), asked, max_unread=0, prune=False):
        if image.member is not None:
            raise RefusedError(f"{given.uri}: {image.image_uri} is inside a file, and a COCO file cannot name it")
        entry = _entry(image)
        name = key_of(image.image_uri, key)
        number = hash_range(name)
        found.table.add(number, [name, entry])
        found.masks[number] += len(image.masks)
        found.images += 1
        found.classes.update((mask.category_id, mask.category) for mask in image.masks)
    for own in coverage.dataset.get("categories", ()):
        if isinstance(own, dict) and (class_id := as_int(own.get("id"))) is not None:
            found.classes.add((class_id, as_label(own.get("name"))))
    found.scan = content(coverage, given.source)
    return found


def key_of(path: str, key: str) -> str:
    """What an image is known by. key: one of KEYS."""
    return {"path": path, "name": PurePosixPath(path).name, "stem": PurePosixPath(path).stem}[key]


def pairs(first: Spilled, second: Spilled) -> Iterator[Pair]:
    """Every image of either, once, in an order that depends on the keys alone.

    Raises RefusedError where one of the two has two images of one key.
    """
    weights = [1 + a + b for a, b in zip(first.masks, second.masks, strict=True)]
    low = held = 0
    for number, weight in enumerate([*weights, HELD_MASKS]):
        if held and (held + weight > HELD_MASKS or number == RANGES):
            sides = [_by_key(one, low, number - 1) for one in (first, second)]
            for key in sorted(sides[0].keys() | sides[1].keys(), key=lambda key: (hash_range(key), key)):
                yield Pair(key, sides[0].get(key), sides[1].get(key))
            low, held = number, 0
        held += weight


def _by_key(spilled: Spilled, low: int, high: int) -> dict[str, Row]:
    found: dict[str, Row] = {}
    for key, entry in spilled.table.read(low, high):
        other = found.setdefault(key, entry)
        if other is not entry and other["image"]["uri"] != entry["image"]["uri"]:
            raise RefusedError(
                f"{spilled.given.uri}: {other['image']['uri']} and {entry['image']['uri']} are both {key!r}; "
                "know images by more: --key path"
            )
        if other is not entry:  # a source may tell of one image twice
            other["masks"] += entry["masks"]
    return found


def _entry(image: PlannedImage) -> Row:
    own = {
        "uri": image.image_uri,
        "source_image_id": image.source_image_id,
        "hw": list(image.declared_hw) if image.declared_hw else None,
        "extra": image.extra,
    }
    masks = [
        {
            "source_id": mask.source_mask_id,
            "class": [mask.category_id, mask.category],
            "geometry": mask.geometry,
            "crowd": mask.crowd,
            "extra": mask.extra,
        }
        for mask in image.masks
    ]
    return {"image": own, "masks": masks}
