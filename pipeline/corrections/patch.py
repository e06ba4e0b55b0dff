"""Patches -> an overlay of the result, stored beside it. Nothing is changed before the next seal.

Patches of one mask are applied in the order of the file; what cannot be applied is named, and the others are.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from pipeline.corrections import patch_file
from pipeline.corrections.bring import COLUMNS, free_name
from pipeline.corrections.patch_file import NO, YES, Patch
from pipeline.dataset import findings, open_result, overlays
from pipeline.dataset.overlays import ADDED, MARKED, REMOVED, REPLACED, in_images
from pipeline.dataset.result import Result
from pipeline.errors import MaskError, RefusedError
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.sources import mask_id
from pipeline.storage import Access
from pipeline.storage.lease import Hold

SMALLEST_PIECE = 0.05
"""Of a mask that is split into its connected pieces: smaller ones stay with the largest."""

Row = dict[str, Any]
Category = tuple[int, str]


@dataclass
class Patched:
    """What was kept. counts: changes by action; rejected, unjudged: patches that are not applied; refused: those that
    cannot be, in words; name, path: of the overlay, "" where there is nothing to change.
    """

    name: str = ""
    path: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    rejected: int = 0
    unjudged: int = 0
    judged: int = 0
    refused: list[str] = field(default_factory=list)


def patch(output: str, uri: str, name: str | None, access: Access, hold: Hold) -> Patched:
    """Keep the patches of a file as an overlay, and its verdicts on findings. Raises RefusedError where it is none."""
    result = open_result(output, access)
    patches = patch_file.read(uri, access)
    name = name or free_name(uri, {place.name for place in overlays.listed(result.store)})
    wanted = [one for one in patches if one.wanted]
    done = Patched(
        rejected=sum(one.verdict == NO for one in patches),
        unjudged=sum(bool(one.finding_id) and not one.verdict for one in patches),
    )
    changes = _changes(result, wanted, name, done)
    said = {one.finding_id: _verdict(one) for one in patches if one.finding_id and one.verdict}
    if not changes and not said:
        raise RefusedError(f"--from {uri}: nothing in it is to be applied: {_why_not(done)}; nothing was stored")
    if said:
        findings.keep_verdicts(result.store, {str(key): verdict for key, verdict in said.items()})
        done.judged = len(said)
    if changes:
        done.name, done.path = name, overlays.keep(result.store, name, changes, hold).path
        done.counts = dict(sorted(Counter(str(change["action"]) for change in changes).items()))
    return done


def _verdict(one: Patch) -> str:
    return findings.RIGHT if one.verdict == YES else findings.WRONG


def _why_not(done: Patched) -> str:
    counts = {"rejected": done.rejected, "without a verdict": done.unjudged, "that cannot be": len(done.refused)}
    said = ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "it is empty"
    return said + "".join(f"; {line}" for line in done.refused[:1])


def _changes(result: Result, patches: Sequence[Patch], name: str, done: Patched) -> list[Row]:
    """Rows of OVERLAY."""
    by_image: dict[str, list[Patch]] = defaultdict(list)
    for one in patches:
        by_image[one.image_id].append(one)
    images = result.images(in_images(by_image), ["image_id", "status", "height", "width"]).to_pylist()
    masks: dict[str, list[Row]] = defaultdict(list)
    for row in result.masks(in_images(by_image), COLUMNS).to_pylist():
        masks[row["image_id"]].append(row)
    known = _categories(result) if any(one.category for one in patches) else {}
    there = {row["image_id"]: row for row in images}
    changes = []
    for image_id, some in sorted(by_image.items()):
        if image_id not in there or there[image_id]["status"] != "ok":
            why = "failed in the result" if image_id in there else "is not in the result"
            done.refused += [f"{one.where}: the image {why}" for one in some]
            continue
        image = _Image(there[image_id], masks[image_id], known, name)
        for one in some:
            try:
                image.apply(one)
            except (MaskError, RefusedError) as error:
                done.refused.append(f"{one.where}: {getattr(error, 'detail', '') or error}")
        changes += image.changes()
    return changes


def _categories(result: Result) -> dict[str, Category]:
    """Name -> the category; of several with one name the first. Grows with names that are new."""
    columns = ["category_id", "category"]
    distinct = result.masks(columns=columns).group_by(columns).aggregate([]).to_pylist()
    pairs = sorted(((row["category_id"], row["category"] or "") for row in distinct), reverse=True)
    return {name: (number, name) for number, name in pairs}


class _Image:
    """The masks of one image while patches are applied. known: categories by name."""

    def __init__(self, image: Row, rows: Sequence[Row], known: dict[str, Category], name: str) -> None:
        self._image, self._known, self._name = image, known, name
        self._rows = {row["mask_id"]: row for row in rows}
        self._changed: dict[str, Row] = {}

    def changes(self) -> list[Row]:
        return list(self._changed.values())

    def apply(self, one: Patch) -> None:
        """Raises RefusedError or MaskError where it cannot be."""
        if one.action == "add":
            self._add(self._mask(one.rle), self._category(one), one.crowd is True, f"patch-{one.number}", None)
            return
        row = self._rows.get(one.mask_id or "")
        if row is None or self._changed.get(row["mask_id"], {}).get("action") == REMOVED:
            raise RefusedError("the image has no such mask (any more)")
        now = self._changed.get(row["mask_id"]) or self._change(row, MARKED)
        if one.action == "remove":
            self._put({**now, "action": REMOVED, "rle": None})
        elif one.action == "crowd":
            self._put({**now, "crowd": one.crowd is not False})
        elif one.action == "class":
            number, category = self._category(one)
            self._put({**now, "category_id": number, "category": category})
        else:
            self._split(row, now, [self._mask(rle) for rle in one.rles] if one.rles else None)

    def _split(self, row: Row, now: Row, pieces: list[Rle] | None) -> None:
        """The mask becomes the largest piece; the others are new."""
        if row["mask_rle"] is None:
            raise RefusedError("the mask failed: there is nothing to split")
        largest, *others = pieces or connected_pieces(now["rle"] or row["mask_rle"])
        if not others:
            raise RefusedError("the mask is in one piece; say its pieces in `rles`")
        self._put({**now, "action": REPLACED, "rle": largest})
        category = now["category_id"], now["category"] or ""
        for number, piece in enumerate(others, start=1):
            self._add(piece, category, bool(now["crowd"]), f"{row['source_mask_id']}.{number}", row["mask_id"])

    def _add(self, rle: Rle, category: Category, crowd: bool, source: str, of: str | None) -> None:
        own_id = mask_id(self._image["image_id"], f"added {category[1]} {rle['counts']}", 0)
        if own_id in self._rows or own_id in self._changed:
            raise RefusedError("the image has this mask already")
        extra = None if of is None else f'{{"split_from":"{of}"}}'
        names = {"image_id": self._image["image_id"], "mask_id": own_id, "source_mask_id": f"{self._name}/{source}"}
        kind = {"category_id": category[0], "category": category[1], "crowd": crowd}
        self._put({"action": ADDED, **names, **kind, "rle": rle, "extra": extra})

    def _put(self, change: Row) -> None:
        self._changed[change["mask_id"]] = change

    def _change(self, row: Row, action: str) -> Row:
        names = ("image_id", "mask_id", "source_mask_id", "category_id", "category", "crowd")
        return {"action": action, **{name: row[name] for name in names}, "rle": None, "extra": None}

    def _mask(self, rle: Mapping[str, Any] | None) -> Rle:
        if rle is None:
            raise RefusedError("it has no `rle`")
        found = patch_file.mask_of(rle)
        size = self._image["height"], self._image["width"]
        if tuple(found["size"]) != size:
            raise RefusedError(
                f"its mask is of {found['size'][1]}x{found['size'][0]}, the image of {size[1]}x{size[0]}"
            )
        return found

    def _category(self, one: Patch) -> Category:
        """The category of that name; a new name gets the number that it states, or one above all others."""
        if not one.category:
            raise RefusedError("it has no `category`")
        own = self._known.get(one.category)
        if own is None or one.category_id not in (None, own[0]):
            highest = max((number for number, _ in self._known.values()), default=0)
            own = (one.category_id if one.category_id is not None else highest + 1, one.category)
            self._known[one.category] = own
        return own


def connected_pieces(rle: Rle) -> list[Rle]:
    """The 8-connected pieces of a mask, the largest first; specks (below SMALLEST_PIECE) stay with it."""
    mask = binary.decode(rle)
    _, labels, statistics, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = statistics[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    large = [int(label) + 1 for label in order if areas[label] >= SMALLEST_PIECE * areas.sum()]
    specks = (mask > 0) & ~np.isin(labels, large)
    return [binary.encode((labels == label) | specks if label == large[0] else labels == label) for label in large]
