"""What a planning pass has to answer for: every file and entry below `--masks`, every image below `--images`.

The sources tell the Coverage what they read and what they leave; here the plan's images are counted, the images that no
mask names are found, and what cannot be meant is refused before anything is committed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.decoding.raster import NOT_DECODED
from pipeline.errors import RefusedError
from pipeline.planning.rows import as_text
from pipeline.sources import SOURCES, box_forms
from pipeline.sources.coverage import IGNORED, IMAGES, MASKS, READ, UNREAD, Coverage, kind_of
from pipeline.sources.path_set import PathSet
from pipeline.sources.types import IMAGE_SUFFIXES, PlannedImage, SourceInput
from pipeline.words import plural

Content = dict[str, Any]


def counted(
    images: Iterable[PlannedImage], given: SourceInput, *, max_unread: int, prune: bool
) -> Iterator[PlannedImage]:
    """The images as they come, counted. Raises RefusedError at their end for what cannot be meant."""
    planned = PathSet()
    for image in noted(images, given.coverage):
        planned.add(file_of(image))
        yield image
    found = planned.look_up(given.images)
    account_for_images(found, given.coverage)
    account(given, max_unread=max_unread, prune=prune)


def file_of(image: PlannedImage) -> str:
    """The file that an image is, or is in."""
    return image.member["container"] if image.member else image.image_uri


def noted(images: Iterable[PlannedImage], coverage: Coverage) -> Iterator[PlannedImage]:
    """The images as they come, each told to the coverage with its masks."""
    for image in images:
        for mask in image.masks:
            coverage.category(mask.category_id, mask.category)
        _remark(image, coverage)
        yield image


def account(given: SourceInput, *, max_unread: int, prune: bool) -> None:
    """Once all images are noted. Raises RefusedError for what cannot be meant."""
    check(given, sum(given.coverage.categories.values()))
    box_forms.compare(given.coverage)
    if prune:
        check_prune(given.coverage, max_unread)


def check(given: SourceInput, masks: int) -> None:
    """Raise RefusedError for a pass without a mask, and for one of which no name is that of an image."""
    coverage = given.coverage
    if not masks:
        raise RefusedError(
            f"no mask at all in {given.masks_uri}: {_what_was_there(coverage)}. "
            f"Formats that are read: {', '.join(SOURCES)}"
        )
    for what, (matched, names) in _matches(coverage).items():
        if not names or matched:
            continue
        example = min((path for path in given.images if kind_of(path) in IMAGE_SUFFIXES), default=None)
        if example is not None:
            other = next(iter(_examples(coverage, MASKS, READ)), "")
            raise RefusedError(
                f"none of {names} {what} is that of an image: --masks has {other}, --images has {example}; "
                "is --images the folder that they belong to?"
            )


def check_prune(coverage: Coverage, max_unread: int) -> None:
    """Raise RefusedError where pruning would drop images because their masks could not be read."""
    if (unread := coverage.count(MASKS, UNREAD)) > max_unread:
        raise RefusedError(
            f"--prune would drop the images of {plural(unread, 'file or entry', 'files or entries')} that cannot "
            f"be read ({_first_of(coverage, UNREAD)}); mend them, or say --ignore or --max-unread"
        )


def content(coverage: Coverage, source: str) -> Content:
    """What is kept of a pass, without the names that were left: as JSON, the same for the same input."""
    tallies = [
        {
            "root": root,
            "state": state,
            "kind": kind,
            "reason": reason,
            "count": tally.count,
            "names": _text(tally.names),
        }
        for (root, state, kind, reason), tally in sorted(coverage.tallies.items())
    ]
    categories = [
        {"category_id": number, "category": as_text(name), "masks": count}
        for (number, name), count in sorted(coverage.categories.items())
    ]
    dataset = {name: value for name, value in coverage.dataset.items() if name != "matches"}
    return {
        "version": 1,
        "source": source,
        "rules": {name: value for name, value in sorted(coverage.pinned.items()) if name != "source"},
        "matches": _matches(coverage),
        "unread": coverage.count(MASKS, UNREAD) + coverage.count(IMAGES, UNREAD),
        "found": tallies,
        "categories": categories,
        "dataset": dataset,
    }


def _remark(image: PlannedImage, coverage: Coverage) -> None:
    """Keep what masks say of themselves, where their source has not: those of files do."""
    for mask in image.masks:
        if mask.crowd:
            coverage.remark(f"{image.image_uri}, mask {mask.source_mask_id}", "crowd regions, kept as they came")
        if mask.detail and '"file"' not in mask.geometry:
            name = f"{image.image_uri}, mask {mask.source_mask_id}"
            coverage.remark(name, mask.detail.partition(":")[0])


def account_for_images(found: Iterable[tuple[str, bool]], coverage: Coverage) -> None:
    """Files of the image root, each once, and whether it is planned: else it is an image that no mask names, or one
    that cannot be decoded.
    """
    planned: dict[str, list[str]] = defaultdict(list)
    for path, is_planned in found:
        suffix = kind_of(path)
        if is_planned:
            planned[suffix].append(path)
        elif suffix in IMAGE_SUFFIXES:
            coverage.unnamed(path)
        elif suffix in NOT_DECODED:
            coverage.leave(path, "an image of a format that is not decoded", root=IMAGES)
    for suffix, paths in planned.items():
        coverage.take_all(paths, suffix, IMAGES)


def _matches(coverage: Coverage) -> dict[str, list[int]]:
    found = coverage.dataset.get("matches", {})
    return {name: list(numbers) for name, numbers in found.items()} if isinstance(found, dict) else {}


def _examples(coverage: Coverage, root: str, state: str) -> list[str]:
    return sorted(name for key, tally in coverage.tallies.items() if key[:2] == (root, state) for name in tally.names)


def _first_of(coverage: Coverage, state: str) -> str:
    found = [(name, key[3]) for key, tally in coverage.tallies.items() if key[1] == state for name in tally.names]
    return "; ".join(f"{name}: {reason}" for name, reason in sorted(found)[:1])


def _what_was_there(coverage: Coverage) -> str:
    tallies = sorted(coverage.tallies.items(), key=lambda pair: -pair[1].count)
    found = [
        f"{tally.count} {kind} ({tally.names[0]}{f': {reason}' if reason else ''})"
        for (root, state, kind, reason), tally in tallies
        if root == MASKS and state in (UNREAD, READ, IGNORED)
    ]
    return f"it holds {', '.join(found[:4])}" if found else "nothing in it is of a format that is read"


def _text(names: Sequence[str]) -> list[str]:
    return [as_text(name) for name in names]
