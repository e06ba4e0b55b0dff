"""Text that every parser takes, whatever the names and the carried fields of a dataset are.

JSON has no NaN and no infinity, which become null; UTF-8 has no half of a surrogate pair, and XML 1.0 hardly any
control character: these become U+FFFD. What is replaced is counted.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pipeline.exports.types import Piece

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(value: Any, piece: Piece, indent: int | None = None) -> str:
    """One line of ASCII (or more, with `indent`); what JSON cannot hold is counted in `piece`."""
    separators = (",", ":") if indent is None else None
    try:
        text = json.dumps(value, allow_nan=False, separators=separators, indent=indent)
    except ValueError:
        text = ""
    if text and "\\ud" not in text:  # surrogates are written as escapes, whole pairs too
        return text
    return json.dumps(_clean(value, piece), allow_nan=False, separators=separators, indent=indent)


def xml_attribute(text: str, piece: Piece) -> str:
    """Text in quotes and in one line."""
    return quoteattr(xml_text(text, piece), {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def xml_content(text: str, piece: Piece) -> str:
    """Text between tags."""
    return escape(xml_text(text, piece), {"\r": "&#13;"})


def xml_text(text: str, piece: Piece) -> str:
    """The characters that XML has."""
    found, replaced = _NO_XML.subn(REPLACEMENT, text)
    piece.lose("characters that XML cannot hold", replaced)
    return found


def _clean(value: Any, piece: Piece) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        piece.lose("numbers that JSON cannot hold", 1)
        return None
    if isinstance(value, str):
        found, replaced = _SURROGATE.subn(REPLACEMENT, value)
        piece.lose("characters that UTF-8 cannot hold", replaced)
        return found
    if isinstance(value, Mapping):
        return {_clean(str(key), piece): _clean(entry, piece) for key, entry in value.items()}
    return [_clean(entry, piece) for entry in value] if isinstance(value, list | tuple) else value
