"""What people sent back of a result's masks, as it is kept beside the result and laid over it at the next seal.

    OUTPUT/overlays/<number>-<name>.parquet     one for each `relabel review --from`; immutable; later ones on top
    OUTPUT/overlays/<number>-<name>.undone      it counts no more

A change states what a mask is from now on (schema OVERLAY): replaced (another mask, category, or a crowd), added,
removed, marked (another category, or a crowd, of whatever the mask is), or kept, which changes nothing and is a truth
to calibrate on. What is sealed is planned + added - removed.
A change holds for an image of its own size only, and for a mask that is there.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import JobError, RefusedError
from pipeline.storage import Store, parquet_bytes
from pipeline.storage.lease import Hold
from schemas import layout
from schemas.layout import OverlayName
from schemas.records import OVERLAY, conform

REPLACED, ADDED, REMOVED, KEPT, MARKED = "replaced", "added", "removed", "kept", "marked"
CORRECTED = "corrected"
"""The decision of a mask that a person replaced or added."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Overlay:
    """One overlay. sha256: of its file; changes: rows of OVERLAY, by image and mask, each with its overlay's name."""

    place: OverlayName
    sha256: str
    changes: tuple[Row, ...]

    @property
    def name(self) -> str:
        return self.place.name

    def counts(self) -> dict[str, int]:
        """Changes by action."""
        found = pa.array([row["action"] for row in self.changes], pa.string()).value_counts()
        return dict(sorted((one["values"].as_py(), one["counts"].as_py()) for one in found))


def standing(output: Store) -> list[Overlay]:
    """The overlays that count, the first one first."""
    return [read(output, place) for place, undone in listed(output).items() if not undone]


def listed(output: Store) -> dict[OverlayName, bool]:
    """All overlays in their order, and whether they were undone."""
    paths = [file.path for file in output.list(layout.OVERLAYS)]
    places = sorted({place for path in paths if (place := layout.overlay_name(path))})
    return {place: place.undone in paths for place in places}


def read(output: Store, place: OverlayName) -> Overlay:
    """One overlay. Raises JobError when it is damaged."""
    rows = conform(output.read_parquet(place.path), OVERLAY).to_pylist()
    changes = tuple({**row, "overlay": place.name} for row in rows)
    return Overlay(place, hashlib.sha256(output.read(place.path)).hexdigest(), changes)


def keep(output: Store, name: str, changes: Sequence[Row], hold: Hold) -> OverlayName:
    """Store changes under a name of their own. Raises RefusedError where there is such an overlay."""
    rows = sorted(changes, key=lambda row: (row["image_id"], row["mask_id"]))
    with hold() as fence:
        there = listed(output)
        if any(place.name == name for place in there):
            raise RefusedError(f"{output.uri} has an overlay {name!r}: give another --name, or --undo {name} it")
        place = OverlayName(max((place.number for place in there), default=-1) + 1, name)
        if layout.overlay_name(place.path) is None:
            raise RefusedError(f"--name {name!r}: letters, digits, dots, dashes and underscores alone")
        fence()
        if not output.create(place.path, parquet_bytes(pa.Table.from_pylist(rows, OVERLAY))):
            raise JobError(f"{output.uri}/{place.path} was written by another one at the same time. Run it again")
    return place


def undo(output: Store, name: str, hold: Hold) -> OverlayName:
    """Let an overlay count no more. Raises RefusedError where there is none of that name."""
    with hold() as fence:
        there = listed(output)
        place = next((place for place in there if place.name == name), None)
        if place is None:
            known = ", ".join(one.name for one in there) or "none"
            raise RefusedError(f"{output.uri} has no overlay {name!r}; there are: {known}")
        fence()
        output.put(place.undone, b"")
    return place


def by_image(overlays: Iterable[Overlay]) -> dict[str, list[Row]]:
    """What changes masks, by image, in the order in which it is laid over them."""
    found: dict[str, list[Row]] = defaultdict(list)
    for overlay in overlays:
        for change in overlay.changes:
            if change["action"] != KEPT:
                found[change["image_id"]].append(change)
    return dict(found)


def fits(change: Row, image: Mapping[str, Any]) -> bool:
    """Whether a change holds for an image row: one that did not fail, of the size that the mask has."""
    size = change["rle"]["size"] if change["rle"] else None
    return image["status"] == "ok" and size in (None, [image["height"], image["width"]])


def ids_after(mask_ids: Iterable[str], changes: Iterable[Row]) -> list[str]:
    """The ids of an image's masks once changes that fit it are made."""
    found = dict.fromkeys(mask_ids)
    for change in changes:
        if change["action"] == ADDED:
            found[change["mask_id"]] = None
        elif change["action"] == REMOVED:
            found.pop(change["mask_id"], None)
    return list(found)


def truths(overlays: Iterable[Overlay]) -> dict[str, Row]:
    """Mask id -> the last change that says what the mask is: replaced or kept, and no crowd."""
    found: dict[str, Row] = {}
    for overlay in overlays:
        for change in overlay.changes:
            found.pop(change["mask_id"], None)
            if change["action"] in (REPLACED, KEPT) and not change["crowd"]:
                found[change["mask_id"]] = change
    return found


def in_images(image_ids: Iterable[str]) -> pc.Expression:
    """A filter for the rows of some images."""
    return pc.field("image_id").isin(pa.array(sorted(image_ids), pa.string()))
