"""XML that may be larger than memory: some of its elements, one at a time.

A document type declaration is refused: with it come entities, which make a small file large, or read others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from pipeline.errors import RefusedError
from pipeline.storage import Access, split_uri

BLOCK_BYTES = 1 << 20
MAX_DEPTH = 64


class MarkupError(ValueError):
    """What is no XML, or more than is read of it."""


def elements(uri: str, access: Access, wanted: Collection[str]) -> Iterator[Element]:
    """The outermost elements of these names, in order. Raises RefusedError for what is no XML."""
    reader = _Reader(wanted)
    try:
        for block in _blocks(uri, access):
            yield from reader.feed(block)
        yield from reader.feed(b"", last=True)
    except MarkupError as error:
        raise RefusedError(f"{uri} is not valid XML: {error}") from None


def root_name(uri: str, access: Access) -> str | None:
    """The name of the outermost element; None for what is no XML."""
    reader = _Reader(())
    try:
        for block in _blocks(uri, access):
            reader.feed(block)
            if reader.root is not None:
                break
    except (MarkupError, RefusedError):
        return None
    return reader.root


def parse(data: bytes) -> Element:
    """A whole document. Raises MarkupError."""
    reader = _Reader(None)
    [root] = [*reader.feed(data), *reader.feed(b"", last=True)]
    return root


class _Reader:
    """expat's events -> elements. wanted: None for the outermost one."""

    def __init__(self, wanted: Collection[str] | None) -> None:
        self.root: str | None = None
        self._wanted, self._depth, self._inside = wanted, 0, 0
        self._builder: TreeBuilder | None = None
        self._found: list[Element] = []
        parser = expat.ParserCreate(namespace_separator=None)
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._refuse
        self._parser = parser

    def feed(self, data: bytes, last: bool = False) -> list[Element]:
        """The elements that end in the next part of the text. Raises MarkupError."""
        try:
            self._parser.Parse(data, last)
        except (expat.ExpatError, ValueError, LookupError) as error:
            raise MarkupError(str(error)) from None
        found, self._found = self._found, []
        return found

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self.root = self.root or name
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise MarkupError(f"elements nested deeper than {MAX_DEPTH}")
        if self._builder is None and (self._wanted is None or name in self._wanted):
            self._builder, self._inside = TreeBuilder(), self._depth
        if self._builder is not None:
            self._builder.start(name, attributes)

    def _end(self, name: str) -> None:
        if self._builder is not None:
            self._builder.end(name)
            if self._depth == self._inside:
                self._found.append(self._builder.close())
                self._builder = None
        self._depth -= 1

    def _text(self, text: str) -> None:
        if self._builder is not None:
            self._builder.data(text)

    def _refuse(self, *_words: Any) -> None:
        raise MarkupError("a document type declaration, which is not read")


def _blocks(uri: str, access: Access) -> Iterator[bytes]:
    store, name = split_uri(uri, access)
    try:
        size = store.size(name)
        for start in range(0, size, BLOCK_BYTES):
            yield store.read_range(name, start, min(BLOCK_BYTES, size - start))
    except FileNotFoundError:
        raise RefusedError(f"{uri} does not exist") from None
