"""Reading what an output says of itself: the JSON files of `schemas/manifest.py`, where `schemas/layout.py` has them.

What a newer version of this code wrote is refused; what is damaged is a job's failure. Each is told in one line.
"""

from __future__ import annotations

from typing import TypeVar

from pipeline.errors import JobError, RefusedError
from pipeline.storage.store import Store
from schemas import layout, manifest
from schemas.manifest import ContractError, Document, Manifest, Marker, NewerError, Pointer, RetryRound

Model = TypeVar("Model", bound=Document)


def run_store(output: Store, fingerprint: str) -> Store:
    """The folder of one method's results as a store of its own."""
    return Store(f"{output.uri.rstrip('/')}/{layout.run(fingerprint)}", output.access)


def read_current(output: Store) -> Pointer | None:
    """The pointer, or None before the first seal. Raises RefusedError where a newer version wrote it."""
    try:
        return parse(Pointer, output.read(layout.CURRENT), f"{output.uri}/{layout.CURRENT}")
    except FileNotFoundError:
        return None


def read_manifest(run: Store, generation: int) -> Manifest:
    """A generation's manifest. Raises FileNotFoundError; RefusedError where a newer version wrote it."""
    path = layout.Seal(generation).manifest
    return parse(Manifest, run.read(path), f"{run.uri}/{path}")


def read_marker(output: Store, increment: int) -> Marker:
    """The marker of a committed increment."""
    path = layout.Increment(increment).marker
    return parse(Marker, output.read(path), f"{output.uri}/{path}")


def read_round(run: Store, number: int) -> RetryRound:
    """A committed retry round."""
    path = layout.retry_round(number)
    return parse(RetryRound, run.read(path), f"{run.uri}/{path}")


def parse(model: type[Model], data: bytes, where: str) -> Model:
    """A file's content -> its model. Raises RefusedError where a newer version wrote it, JobError where it is damaged.

    where: the file, for the message.
    """
    try:
        return manifest.parse(model, data)
    except NewerError as error:
        raise RefusedError(f"{where} {error}") from None
    except ContractError as error:
        raise JobError(f"{where} is damaged: {error}") from None
