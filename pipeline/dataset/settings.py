"""The configuration behind a result: the method that made it, and its gate with some fields replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from pipeline.errors import JobError, RefusedError
from pipeline.storage import Store
from schemas import layout
from schemas.config import Config, Gate, parse_config


def method_of(run: Store) -> Config:
    """The configuration that a run wrote beside its parts. Raises JobError where it is gone."""
    try:
        return parse_config(run.read(layout.CONFIG).decode("utf-8"))
    except FileNotFoundError:
        rewritten = "`relabel run` with the arguments it had writes it again"
        raise JobError(f"{run.uri}/{layout.CONFIG} is gone; {rewritten}") from None


def merged(gate: Mapping[str, Any], overrides: Mapping[str, Any]) -> Gate:
    """A gate's fields with some replaced; None values are ignored. Raises RefusedError."""
    wanted = {key: value for key, value in overrides.items() if value is not None}
    known = {key: value for key, value in gate.items() if key in Gate.model_fields}
    try:
        return Gate.model_validate({**known, **wanted})
    except ValidationError as error:
        first = error.errors()[0]
        raise RefusedError(f"gate.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
