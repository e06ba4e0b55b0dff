"""The planning pass over a dataset, as `relabel plan` makes it, with nothing written and within bounds.

What planning would refuse is kept as `refused`, with what was found up to there. A bound that was reached is kept in
`cut`: what was found is then that of a sample.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from pipeline import sources
from pipeline.errors import RefusedError
from pipeline.inspection.sample import Seen, look_at
from pipeline.inspection.spread import Spread
from pipeline.planning.coverage import Content, content, counted
from pipeline.refining.chunk import Inputs
from pipeline.sources import PlannedImage, SourceInput, walks
from pipeline.sources.coverage import Coverage
from pipeline.sources.detect import holds
from pipeline.storage import Access, Store, StoredFile
from pipeline.storage.listing import listing
from pipeline.storage.paths import absolute
from pipeline.storage.preflight import check_readable
from schemas.config import Method

T = TypeVar("T")

MAX_LISTED = 200_000
"""Stores give some thousand a second."""
IMAGE_FORMATS = ("png", "instances", "class-maps")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """limit: images with masks that are read, 0 for all. sample: images that are looked at. listed: files of a remote
    folder that are listed (a local one is listed whole). The rest as of a run.
    """

    masks: str
    images: str | None = None
    source: str | None = None
    access: Access = field(default_factory=Access)
    ignore: tuple[str, ...] = ()
    limit: int = 0
    sample: int = 0
    listed: int = MAX_LISTED
    threads: int = 8
    method: Method = field(default_factory=Method)


@dataclass
class Found:
    """What a look found. Counts are of images in the plan; sizes: (height, width) that the source declares -> images;
    seen: the images that were looked at; refused: why planning would refuse, None where it would not.
    """

    masks_uri: str
    images_uri: str = ""
    source: str = ""
    format: str = ""
    why: str = ""
    images: int = 0
    masks: int = 0
    without_masks: int = 0
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    seen: list[Seen] = field(default_factory=list)
    scan: Content | None = None
    cut: list[str] = field(default_factory=list)
    refused: str | None = None

    @property
    def unread(self) -> int:
        """Files and entries that planning would leave unread."""
        return int(self.scan["unread"]) if self.scan else 0

    def count(self, image: PlannedImage) -> None:
        """One more image of the plan."""
        self.images += 1
        self.masks += len(image.masks)
        self.without_masks += not image.masks
        if image.declared_hw:
            self.sizes[image.declared_hw] += 1


def look(asked: Asked, on_image: Callable[[int], None] = lambda _count: None) -> Found:
    """Read what planning would read, and load a few images. on_image: called with 1 for each that is loaded."""
    masks = absolute(asked.masks)
    found = Found(masks)
    try:
        check_readable(asked.masks, asked.access, "masks")
        _identify(asked, found)
        check_readable(found.images_uri, asked.access, "image folder")
        _read(replace(asked, masks=masks), found, on_image)
    except RefusedError as refused:
        found.refused = str(refused)
    return found


def _identify(asked: Asked, found: Found) -> None:
    """The format, why it is taken for that, and where the images are."""
    masks_name = found.masks_uri.rpartition("/")[2]
    if asked.source:
        found.why = "as --source says"
    else:
        there = [path for path in walks.some(Store(asked.masks, asked.access), walks.LOOKED_AT) if path]
        found.why = f"detected by content: {holds(there) if there else masks_name}"
    found.source = asked.source or sources.detect(asked.masks, asked.access, asked.images)
    name = sources.parse(found.source)[0]
    scan = sources.SOURCES[name].scan
    found.format = _first_words(inspect.getmodule(getattr(scan, "scan", scan)))  # of what is read file by file
    if name in IMAGE_FORMATS and not asked.source:
        others = " or ".join(other for other in IMAGE_FORMATS if other != name)
        found.why += f" (images of {others} look alike: --source says so where these are)"
    found.images_uri = absolute(sources.images_root(found.source, asked.images, asked.masks, asked.access))


def _first_words(module: object) -> str:
    """What a source's module says of its format, as far as its first stop."""
    first = (getattr(module, "__doc__", None) or "").partition("\n")[0]
    return first.partition(":")[0].rstrip(".")


def _read(asked: Asked, found: Found, on_image: Callable[[int], None]) -> None:
    coverage, images = Coverage(asked.ignore), Store(found.images_uri, asked.access)
    bounds = {
        "files of --images were listed": _listing_bound(images, asked),
        "files of --masks were listed": _listing_bound(Store(asked.masks, asked.access), asked),
        "images with masks were read": Bound(asked.limit or None),
    }
    of_images, of_masks, of_plan = bounds.values()
    try:
        with listing(of_images.first(walks.regular(images, coverage))) as listed:
            given = SourceInput(
                asked.masks,
                asked.access,
                listed,
                asked.threads,
                coverage=coverage,
                images_uri=found.images_uri,
                within=of_masks.first,
            )
            planned = of_plan.first(sources.scan(found.source, given), lambda image: bool(image.masks))
            chosen = _spread(counted(planned, given, max_unread=0, prune=False), found, asked.sample)
            found.seen = list(_load(chosen, listed, images, found.source, asked, on_image))
    finally:
        found.cut = [f"the first {bound.limit} {what}" for what, bound in bounds.items() if bound.reached]
        scan = content(coverage, found.source)
        found.scan = _without_the_rest(scan) if found.cut else scan


def _listing_bound(store: Store, asked: Asked) -> Bound:
    return Bound(None if store.is_local or not asked.limit else asked.listed)


def _spread(planned: Iterable[PlannedImage], found: Found, sample: int) -> list[PlannedImage]:
    spread = Spread(sample)
    for image in planned:
        found.count(image)
        spread.add(image)
    return spread.chosen()


def _load(
    chosen: list[PlannedImage],
    listed: Mapping[str, StoredFile],
    images: Store,
    source: str,
    asked: Asked,
    on_image: Callable[[int], None],
) -> Iterator[Seen]:
    files = sources.files_root(source, asked.masks)
    inputs = Inputs(images, None if files is None else Store(files, asked.access))
    return look_at(chosen, listed, inputs, asked.method, asked.threads, on_image)


def _without_the_rest(scan: Content) -> Content:
    """Without what only a whole pass can tell: which images no mask names, and how many names match."""
    found = [tally for tally in scan["found"] if tally["state"] != "unnamed"]
    return {**scan, "found": found, "matches": {}}


class Bound:
    """The first things of a kind; `reached`: whether there were more. limit: None for all."""

    def __init__(self, limit: int | None) -> None:
        self.limit, self.reached = limit, False

    def first(self, things: Iterable[T], counts: Callable[[T], bool] = lambda _thing: True) -> Iterator[T]:
        """The things before the first that is over the limit. counts: which of them count."""
        number = 0
        for thing in things:
            does_count = counts(thing)
            if does_count and number == self.limit:
                self.reached = True
                return
            number += does_count
            yield thing
