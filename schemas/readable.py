"""What is wrong with a configuration, a line for each thing."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.recipes import Recipe


def readable(error: ValidationError, parts: Mapping[str, type[BaseModel]]) -> str:
    """One line, or a heading and a line each. parts: the keys that a configuration may have."""
    lines = [_line(one, parts) for one in error.errors()]
    return lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} errors in the configuration", *lines])


def _line(error: Any, parts: Mapping[str, type[BaseModel]]) -> str:
    place = error["loc"]
    key = ".".join(str(step) for step in place)
    if error["type"] == "extra_forbidden":
        own = Recipe.model_fields if "per_category" in place else parts[place[0]].model_fields if place[1:] else parts
        near = get_close_matches(str(place[-1]), list(own), n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        return f"unknown key {key!r}; {meant}there are {', '.join(own)}"
    return f"{key}: {error['msg'].removeprefix('Value error, ')} (given: {error['input']!r})"
