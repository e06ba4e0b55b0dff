"""Reading a source: as a whole, or piece by piece where it is many files, so that several can be read at a time.

Whoever reads the pieces, what they hold comes back in the pieces' order. So the plan is the same, byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline import sources
from pipeline.planning.coverage import account, file_of, noted
from pipeline.planning.flow import one_by_one
from pipeline.planning.rows import to_row
from pipeline.planning.shuffle import Read, Shuffle, Told
from pipeline.planning.spill import CHARACTERS, ROWS, Filling, Lines
from pipeline.sources import PlannedImage, SourceInput
from pipeline.sources.containers import Piece

TOGETHER_BYTES = 1 << 26
PARALLEL_BYTES = 1 << 28
"""Of files that one process reads sooner than others have begun to."""


@dataclass(frozen=True)
class _Reader:
    """Reads some files of a source; it is sent to where that is done. given: without what is here alone."""

    source: str
    given: SourceInput

    def __call__(self, group: Sequence[Piece]) -> Iterator[Read]:
        given = replace(self.given, coverage=self.given.coverage.fresh())
        images = (image for piece in group for image in sources.scan_piece(self.source, given, piece))
        for rows in encoded(noted(images, given.coverage)):
            yield Read(rows)
        yield Read(Filling().rows(), given.coverage)

    def identity(self, group: Sequence[Piece]) -> Any:
        """What the rows of some files depend on, as JSON; None where a file that was changed could pass for itself."""
        if any(piece.tag is None for piece in group):
            return None
        given, coverage = self.given, self.given.coverage
        asked = [self.source, given.masks_uri, given.images_uri, dict(given.options)]
        return [*asked, list(coverage.ignored), coverage.pinned, [list(piece) for piece in group]]


@dataclass(frozen=True)
class Pieces:
    """A source in its pieces, each some files, and how one is read."""

    reader: _Reader
    groups: Sequence[Sequence[Piece]]

    @property
    def are_many(self) -> bool:
        """Whether it is worth while to read them elsewhere, several at a time."""
        return len(self.groups) > 1 and sum(piece.size for group in self.groups for piece in group) >= PARALLEL_BYTES


def pieces(source: str, given: SourceInput) -> Pieces | None:
    """None for a source that is read as a whole."""
    found = sources.pieces(source, given)
    if found is None:
        return None
    bare = replace(given, images={}, coverage=given.coverage.fresh(), within=iter)
    return Pieces(_Reader(source, bare), list(_together(found)))


def read_whole(source: str, given: SourceInput, *, max_unread: int, prune: bool) -> Iterator[Lines]:
    """The rows of a source. Raises RefusedError at their end for what cannot be meant."""
    yield from encoded(noted(sources.scan(source, given), given.coverage))
    account(given, max_unread=max_unread, prune=prune)


def read_pieces(
    found: Pieces, given: SourceInput, shuffle: Shuffle | None, *, max_unread: int, prune: bool
) -> Iterator[Lines | Told]:
    """As `read_whole`. given: whose coverage is told what was found. shuffle: None: they are read in this process."""
    if shuffle is None:
        reads: Iterable[Read | Told] = one_by_one(found.reader, found.groups)
    else:
        reads = shuffle.each(found.reader, found.reader.identity, found.groups)
    for read in reads:
        if read.coverage is not None:
            given.coverage.merge(read.coverage)
        yield read.lines if isinstance(read, Read) else read
    account(given, max_unread=max_unread, prune=prune)


def encoded(images: Iterable[PlannedImage]) -> Iterator[Lines]:
    """Images as rows of the plan, some at a time."""
    filling = Filling()
    for image in images:
        filling.add(to_row(image, None), file_of(image))
        if filling.images >= ROWS or filling.characters >= CHARACTERS:
            yield filling.rows()
            filling = Filling()
    if filling.images:
        yield filling.rows()


def _together(found: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Small files are read together."""
    group: list[Piece] = []
    size = 0
    for piece in found:
        if group and size + piece.size > TOGETHER_BYTES:
            yield group
            group, size = [], 0
        group.append(piece)
        size += piece.size
    if group:
        yield group
