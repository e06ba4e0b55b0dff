"""A file that came back from an annotation tool -> its masks, image by image, in the frames of the result's images.

The files are read by the sources of these formats, which know our own exports' ids (`pipeline/sources/`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline import sources
from pipeline.dataset.by_image import groups, read_batches
from pipeline.dataset.overlays import in_images
from pipeline.dataset.result import Result
from pipeline.decoding.coarse import coarse_rle
from pipeline.errors import MaskError, RefusedError
from pipeline.masks import binary
from pipeline.masks.binary import Rle
from pipeline.sources import PlannedImage, PlannedMask, SourceInput
from pipeline.sources.coverage import MASKS, UNREAD, Coverage
from pipeline.storage import Access, StoredFile
from pipeline.storage.listing import listing
from pipeline.storage.preflight import check_readable

FORMATS = ("cvat", "label-studio")
IMAGE_COLUMNS = ["image_id", "status", "height", "width"]

Size = tuple[int, int]


@dataclass(frozen=True)
class Came:
    """A mask that came back. source_id: our mask id where it was sent, else the file's own."""

    source_id: str
    label: str
    rle: Rle
    crowd: bool
    extra: str


@dataclass
class ImageBack:
    """An image of the result that is in the file. broken: ids of masks that cannot be read, which stay as they are."""

    image_id: str
    masks: list[Came] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


@dataclass
class Returned:
    """A file that came back. unread: what of it was not taken, in words; twice: images of which the last counts."""

    format: str
    images: dict[str, ImageBack] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)
    twice: int = 0


def read(uri: str, result: Result, access: Access) -> Returned:
    """Read the file. Raises RefusedError for another format, and where no name in it is that of an image."""
    if uri.lower().endswith(".zip"):
        raise RefusedError(f"--from {uri}: unpack the archive, and name the annotations.xml or the JSON in it")
    check_readable(uri, access, "corrections")
    source = sources.detect(uri, access)
    name = sources.parse(source)[0]
    if name not in FORMATS:
        raise RefusedError(f"--from {uri} is {name}; corrections come back as {' or '.join(FORMATS)}")
    found, coverage = Returned(name), Coverage()
    with listing(_paths(result)) as listed:
        given = SourceInput(uri, access, listed, coverage=coverage, images_uri=result.manifest.images_root)
        planned = list(sources.scan(source, given))
    rows = result.images(in_images(image.image_uri for image in planned), IMAGE_COLUMNS).to_pylist()
    known = {row["image_id"]: row for row in rows}
    for image in planned:
        _take(image, known.get(image.image_uri), found)
    found.unread += [
        f"{tally.count} {kind}: {reason} (e.g. {tally.names[0]})"
        for (root, state, kind, reason), tally in sorted(coverage.tallies.items())
        if (root, state) == (MASKS, UNREAD)
    ]
    if not found.images:
        raise RefusedError(f"--from {uri}: no image in it is one of the result's: {'; '.join(found.unread[:1])}")
    return found


def _paths(result: Result) -> Iterator[StoredFile]:
    for group in groups(result):
        for batch in read_batches(result, group.images, ["image_id"]):
            yield from (StoredFile(path, 0, None) for path in batch["image_id"].to_pylist())


def _take(planned: PlannedImage, row: Mapping[str, Any] | None, found: Returned) -> None:
    """row: the image's in the result, whose id is its path."""
    if row is None or row["status"] != "ok":
        why = "is not in the result" if row is None else "failed in the result"
        found.unread.append(f"image {planned.image_uri} {why}")
        return
    size_hw = int(row["height"]), int(row["width"])
    if planned.declared_hw not in (None, size_hw):
        height, width = planned.declared_hw or (0, 0)
        said = f"is {width}x{height} in the file and {size_hw[1]}x{size_hw[0]} in the result"
        found.unread.append(f"image {planned.image_uri} {said}")
        return
    found.twice += row["image_id"] in found.images
    found.images[row["image_id"]] = _image(planned, str(row["image_id"]), size_hw, found)


def _image(planned: PlannedImage, image_id: str, size_hw: Size, found: Returned) -> ImageBack:
    back = ImageBack(image_id)
    for mask in planned.masks:
        try:
            rle = _rle(mask, size_hw)
        except MaskError as error:
            back.broken.append(mask.source_mask_id)
            found.unread.append(f"image {planned.image_uri}, mask {mask.source_mask_id}: {mask.detail or error}")
        else:
            back.masks.append(Came(mask.source_mask_id, mask.category, rle, mask.crowd, mask.extra))
    return back


def _rle(mask: PlannedMask, size_hw: Size) -> Rle:
    rle = coarse_rle(mask.geometry, size_hw, size_hw, {})
    return binary.encode(binary.decode(rle))  # one encoding of the same pixels, whoever wrote it


def carried(extra: str) -> dict[str, Any]:
    """The other fields of a mask that came back, without what our own export had put there."""
    found: dict[str, Any] = json.loads(extra) if extra else {}
    ours = ("mask_id", "decision", "quality", "is_crowd", "crowd")
    attributes = {key: value for key, value in found.pop("attributes", {}).items() if key not in ours and value}
    rest = {key: value for key, value in found.items() if key not in ("score", "meta")}
    return {**rest, **({"attributes": attributes} if attributes else {})}
