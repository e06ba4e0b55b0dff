"""A configuration from what a user gave: a preset, a YAML file at a URI, options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.errors import RefusedError
from pipeline.storage import Access, brief, split_uri
from schemas.config import Config, resolve


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
