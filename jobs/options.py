"""Option values that several commands read the same way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import REASONS, RefusedError
from pipeline.storage import Access, brief, split_uri
from schemas.config import Config, resolve


class Actors(NamedTuple):
    """How many model actors: at least `low`, at most `high`; None leaves it to the cluster's size."""

    low: int | None
    high: int | None


def parse_actors(text: str) -> Actors:
    """`N` or `MIN:MAX`. Raises RefusedError."""
    low, _, high = text.partition(":")
    try:
        actors = Actors(int(low), int(high or low))
    except ValueError:
        raise RefusedError(f"--actors takes N or MIN:MAX, not {text!r}") from None
    if not 1 <= (actors.low or 0) <= (actors.high or 0):
        raise RefusedError(f"--actors takes 1 <= MIN <= MAX, not {text!r}")
    return actors


def parse_reasons(text: str | None, retry_failed: bool) -> tuple[str, ...]:
    """`code,code,...` -> reason codes. Raises RefusedError."""
    if text is None:
        return ()
    if not retry_failed:
        raise RefusedError("--retry-reasons goes with --retry-failed")
    reasons = tuple(part.strip() for part in text.split(",") if part.strip())
    for reason in reasons:
        if reason not in REASONS:
            raise RefusedError(f"--retry-reasons: unknown reason {reason!r}; there are {', '.join(REASONS)}")
    return reasons


def read_config(
    uri: str | None,
    preset: str,
    overrides: Mapping[str, Mapping[str, Any]],
    access: Access,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Base of the method, then preset, then the YAML at `uri`, then options. Raises RefusedError or ConfigError."""
    if uri is None:
        return resolve(preset, None, overrides, base)
    store, name = split_uri(uri, access)
    try:
        text = store.read(name).decode("utf-8")
    except FileNotFoundError:
        raise RefusedError(f"the configuration {uri} does not exist") from None
    except Exception as error:  # each store has exceptions of its own
        raise RefusedError(f"cannot read the configuration {uri}: {brief(error)}") from None
    return resolve(preset, text, overrides, base)


def absolute(uri: str) -> str:
    """Local paths made absolute: workers may run in another folder."""
    return uri if "://" in uri else str(Path(uri).expanduser().resolve())
