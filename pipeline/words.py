"""Numbers and names in sentences. Pure."""

from __future__ import annotations


def plural(count: int, what: str, many: str = "") -> str:
    """As `1 image`, `2,000 images`; many: the plural where it takes more than an s, as `entries`."""
    return f"{count:,} {what if count == 1 else many or what + 's'}"


def one_line(text: str) -> str:
    """Text, as a name from the data, of which no end of a line begins another one: shown as `\\n`."""
    return text.replace("\r", r"\r").replace("\n", r"\n")
