"""JSON that may be larger than memory: the entries of its lists, one at a time.

The text is cut by the standard decoder itself, which says where each value ends; so it is read at its speed, and what
is held is one block of text and one entry. `ijson` would refuse NaN, Infinity and byte-order marks, which files have.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from typing import Any

from pipeline.errors import RefusedError
from pipeline.storage import Access, brief, split_uri

BLOCK_BYTES = 4 << 20
MAX_VALUE_CHARACTERS = 1 << 28
MAX_DIGITS = 1000
"""Of an integer: Python takes quadratic time for long ones, and refuses them."""
TOO_DEEP = "nested too deeply"
"""Stands for a value that is."""
LIST = object()
"""Comes before the entries of each list, so that an empty one is seen."""

_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()
_LENIENT = json.JSONDecoder(parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else math.inf)
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_MAY_GO_ON = {"", ".", "e", "E", "e+", "e-", "E+", "E-"}
"""What may stand between a number and the end of a block that cuts it: the decoder takes the number to end before."""


def entries(uri: str, access: Access) -> Iterator[tuple[str, Any]]:
    """(key, entry) for the lists in the object that a file holds, (key, value) for what is no list.

    Of a file that is a list itself, the key is "". Each list begins with (key, LIST). Raises RefusedError for what is
    not JSON, or is neither list nor object.
    """
    text = _Text(uri, access)
    try:
        if text.peek() == "[":
            yield from _list(text, "")
        elif text.peek() == "{":
            yield from _members(text)
        else:
            raise RefusedError(f"{uri} is not valid JSON of a dataset: it begins with {text.peek()[:20]!r}")
        if text.peek():
            raise ValueError("more text after its end")
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{uri} is not valid JSON, after about byte {text.consumed}: {brief(error)}") from None


def _members(text: _Text) -> Iterator[tuple[str, Any]]:
    text.take("{")
    while not text.try_take("}"):
        key = text.value()
        if not isinstance(key, str):
            raise ValueError("a key that is no string")
        text.take(":")
        if text.peek() == "[":
            yield from _list(text, key)
        else:
            yield key, text.value()
        if text.peek() != "}":
            text.take(",")


def _list(text: _Text, key: str) -> Iterator[tuple[str, Any]]:
    text.take("[")
    yield key, LIST
    while not text.try_take("]"):
        yield key, text.value()
        if text.peek() != "]":
            text.take(",")


class _Text:
    """The part of a file's text that is being decoded."""

    def __init__(self, uri: str, access: Access) -> None:
        self._blocks = _blocks(uri, access)
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._buffer = ""
        self._at = 0
        self.consumed = 0

    def peek(self) -> str:
        """The next character that is not white space, "" at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def take(self, wanted: str) -> None:
        """Step over one character. Raises ValueError when it is another."""
        if not self.try_take(wanted):
            raise ValueError(f"expected {wanted!r}, found {self.peek()!r}")

    def try_take(self, wanted: str) -> bool:
        found = self.peek() == wanted
        self._at += found
        return found

    def value(self) -> Any:
        """The next value, read to its end. Raises ValueError."""
        self.peek()
        while True:
            try:
                value, end = _decoded(self._buffer, self._at)
            except ValueError:
                if self._more():  # it may only be cut off
                    continue
                raise
            if self._buffer[end : end + 3] in _MAY_GO_ON and self._more():
                continue
            self._at = end
            return value

    def _more(self) -> bool:
        """Read on: as much again as is waiting, so that a long value is not tried again for each block."""
        left = self._buffer[self._at :]
        if len(left) > MAX_VALUE_CHARACTERS:
            raise ValueError(f"one value has more than {MAX_VALUE_CHARACTERS} characters")
        self.consumed += self._at
        parts = [left]
        added = 0
        while added <= len(left):
            block = next(self._blocks, None)
            if block is None:
                break
            parts.append(self._decode.decode(block))
            added += len(parts[-1])
        self._buffer, self._at = "".join(parts), 0
        return added > 0


def _decoded(text: str, at: int) -> tuple[Any, int]:
    """The value that begins at `at`, and where it ends. Raises ValueError where it is none, or cut off."""
    try:
        return _DECODER.raw_decode(text, at)
    except json.JSONDecodeError:
        raise
    except ValueError:
        return _LENIENT.raw_decode(text, at)
    except RecursionError:
        return TOO_DEEP, _end_of_brackets(text, at)


def _end_of_brackets(text: str, at: int) -> int:
    depth = 0
    for match in _BRACKETS.finditer(text, at):
        depth += (match[0] in "[{") - (match[0] in "]}")
        if not depth:
            return match.end()
    raise ValueError("cut off within brackets")


def _blocks(uri: str, access: Access) -> Iterator[bytes]:
    store, name = split_uri(uri, access)
    try:
        size = store.size(name)
        for start in range(0, size, BLOCK_BYTES):
            yield store.read_range(name, start, min(BLOCK_BYTES, size - start))
    except FileNotFoundError:
        raise RefusedError(f"{uri} does not exist") from None
