"""What pages could not show."""

from __future__ import annotations

from collections.abc import Mapping

import typer

from jobs import console
from pipeline.words import plural

FIRST_UNREAD = 5


def tell_unread_pictures(unread: Mapping[str, str], page: str) -> None:
    """Exit code 3 where images could not be shown; said on stderr. unread: image -> reason code."""
    if not unread:
        return
    named = ", ".join(f"{image} ({why})" for image, why in sorted(unread.items())[:FIRST_UNREAD])
    more = ", ..." if len(unread) > FIRST_UNREAD else ""
    console.err.tell(
        f"relabel: {page} has no picture of {plural(len(unread), 'image')}: {named}{more}. Where they were moved, name "
        "their folder with --images"
    )
    raise typer.Exit(3)
