"""Paths: whether one from an annotation stays where it belongs, and a user's made absolute."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import RefusedError
from schemas import secrets


def safe_relative(path: str) -> bool:
    """Whether a path from an annotation stays inside the image root."""
    return bool(path) and not path.startswith("/") and "://" not in path and ".." not in path.split("/")


def absolute(uri: str) -> str:
    """A URI as it is; a local path made absolute: workers may run in another folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())


def refuse_secrets(uri: str) -> None:
    """Raise RefusedError where credentials stand in `uri`: whatever opens one asks, before it says a word of it."""
    if why := secrets.refusal(uri):
        raise RefusedError(why)
