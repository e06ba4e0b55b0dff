"""Paths: whether one from an annotation stays where it belongs, and a user's made absolute."""

from __future__ import annotations

from pathlib import Path


def safe_relative(path: str) -> bool:
    """Whether a path from an annotation stays inside the image root."""
    return bool(path) and not path.startswith("/") and "://" not in path and ".." not in path.split("/")


def absolute(uri: str) -> str:
    """A URI as it is; a local path made absolute: workers may run in another folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())
