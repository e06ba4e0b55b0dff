"""Paths that come from annotations and archives: whether they stay where they belong."""

from __future__ import annotations


def safe_relative(path: str) -> bool:
    """Whether a path from an annotation stays inside the image root."""
    return bool(path) and not path.startswith("/") and "://" not in path and ".." not in path.split("/")
