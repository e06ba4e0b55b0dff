"""Corrections of a file -> an overlay of the result, stored beside it. Nothing is changed before the next seal."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow.compute as pc

from pipeline.corrections import compare, returned
from pipeline.corrections.compare import Labels
from pipeline.corrections.returned import ImageBack, Returned
from pipeline.dataset import open_result, overlays
from pipeline.dataset.overlays import CORRECTED, REMOVED, in_images
from pipeline.dataset.result import Result
from pipeline.dataset.verdicts import rejected
from pipeline.errors import RefusedError
from pipeline.exports.survey import number_classes
from pipeline.exports.text import xml_text
from pipeline.exports.types import Piece
from pipeline.storage import Access
from pipeline.storage.lease import Hold

COLUMNS = ["mask_id", "image_id", "source_mask_id", "category_id", "category", "crowd", "mask_rle"]
OUR_ID = re.compile(r"[0-9a-f]{32}")
MOST_REMOVED = 0.5
"""Of the masks of the images in a file, so many may be gone before it is asked whether that is meant."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Brought:
    """What was kept. counts: masks by what was done with them; unread, twice: as of Returned; new: categories."""

    name: str
    path: str
    counts: dict[str, int]
    images: int
    unread: list[str]
    twice: int
    new: list[str]


@dataclass(frozen=True)
class Given:
    """What a person brings. name: of the overlay, by default the file's; sent: the export that it was made of.

    seen: every image of the file was looked at, so that a mask which is as it was is right. allow_removals: also of
    more than half of the masks.
    """

    uri: str
    name: str | None = None
    sent: str | None = None
    seen: bool = False
    allow_removals: bool = False


@dataclass(frozen=True)
class State:
    """An overlay of an output. state: sealed, waits, undone, or sealed and undone since; counts: changes by action;
    without_effect: replaced or added masks that the current result does not have so.
    """

    name: str
    state: str
    counts: dict[str, int]
    without_effect: int


def bring(output: str, given: Given, access: Access, hold: Hold) -> Brought:
    """Compare a file with the current result, and keep what differs. Raises RefusedError where that cannot be meant."""
    result = open_result(output, access)
    back = returned.read(given.uri, result, access)
    sent = returned.read(given.sent, result, access) if given.sent else None
    taken = {place.name for place in overlays.listed(result.store)}
    name = given.name or free_name(given.uri, taken)
    labels, before = _labels(result), _rows(result, back, rejected(output, access))
    _leave_lost(back, {row["mask_id"] for rows in before.values() for row in rows}, sent)
    known = set(labels.own)
    changes = [change for image in _changes(back, before, sent, labels, name, given.seen) for change in image]
    counts = Counter(change["action"] for change in changes)
    _check(given, counts, sum(map(len, before.values())), sent is not None)
    place = overlays.keep(result.store, name, changes, hold)
    new = sorted(set(labels.own) - known)
    return Brought(name, place.path, dict(sorted(counts.items())), len(back.images), back.unread, back.twice, new)


def states(output: str, access: Access) -> list[State]:
    """The overlays of an output, and what became of each."""
    result = open_result(output, access)
    sealed = {entry.path for entry in result.manifest.overlays}
    rows = result.masks(pc.field("decision") == CORRECTED, ["mask_id", "detail"]).to_pylist() if sealed else []
    details = {row["mask_id"]: row["detail"] for row in rows}
    found = []
    for place, undone in overlays.listed(result.store).items():
        overlay = overlays.read(result.store, place)
        stated = [row for row in overlay.changes if row["action"] in (overlays.REPLACED, overlays.ADDED)]
        lost = sum(f"overlay {place.name}" not in (details.get(row["mask_id"]) or "") for row in stated)
        is_sealed = place.path in sealed
        state = {(True, False): "sealed", (True, True): "sealed, and undone since", (False, True): "undone"}
        said = state.get((is_sealed, undone), "waits for a seal")
        found.append(State(place.name, said, overlay.counts(), lost if is_sealed else 0))
    return found


def _changes(
    back: Returned, before: dict[str, list[Row]], sent: Returned | None, labels: Labels, name: str, seen: bool
) -> Iterator[list[Row]]:
    for image_id, image in sorted(back.images.items()):
        those = None if sent is None else sent.images.get(image_id, ImageBack(image_id))
        yield compare.changes(image, before.get(image_id, []), those, labels, name, seen=seen)


def _leave_lost(back: Returned, known: Collection[str], sent: Returned | None) -> None:
    """Take away masks with an id of ours that the images of the file do not have (any more), and say so.

    One that is as it was sent says nothing: somebody else has removed it since.
    """
    for image_id, image in back.images.items():
        lost = [came for came in image.masks if OUR_ID.fullmatch(came.source_id) and came.source_id not in known]
        was = sent.images[image_id].masks if sent and image_id in sent.images else []
        image.masks = [came for came in image.masks if came not in lost]
        back.unread += [
            f"image {image_id}, mask {came.source_id}: the result has no such mask (any more)"
            for came in lost
            if came not in was
        ]


def _check(given: Given, counts: Counter[str], masks: int, sent: bool) -> None:
    if not counts:
        raise RefusedError(f"--from {given.uri}: nothing in it differs from the result; nothing was stored")
    if counts[REMOVED] > MOST_REMOVED * masks and not given.allow_removals:
        hint = "" if sent else "; if only some were exported, name that export with --sent"
        raise RefusedError(
            f"--from {given.uri} would remove {counts[REMOVED]} of the {masks} masks of its images{hint}; "
            "if that is meant, say --allow-removals"
        )


def _rows(result: Result, back: Returned, left_out: frozenset[str]) -> dict[str, list[Row]]:
    """The masks of the images that came back. left_out: those that exports leave out, beside failed ones."""
    where = in_images(back.images) & (pc.field("decision") != "failed")
    found: dict[str, list[Row]] = defaultdict(list)
    for row in result.masks(where, COLUMNS).to_pylist():
        found[row["image_id"]].append({**row, "hidden": row["mask_id"] in left_out})
    return found


def _labels(result: Result) -> Labels:
    """The labels as the exports for review write them."""
    columns = ["category_id", "category"]
    distinct = result.masks(columns=columns).group_by(columns).aggregate([]).to_pylist()
    pairs = {(row["category_id"], row["category"] or "") for row in distinct}
    names, numbers = number_classes(pairs)
    of_category = {pair: xml_text(names[numbers[pair]], Piece()) for pair in pairs}
    return Labels(of_category, {label: pair for pair, label in sorted(of_category.items(), reverse=True)})


def free_name(uri: str, taken: set[str]) -> str:
    """A name for the overlay: the file's, with a number where there is one of that name."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", PurePosixPath(uri).stem).strip("-._") or "overlay"
    names = [stem, *(f"{stem}-{number}" for number in range(2, len(taken) + 3))]
    return next(name for name in names if name not in taken)
