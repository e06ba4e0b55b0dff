"""Reading what an output says of itself: the JSON files of `schemas/manifest.py`, where `schemas/layout.py` has them.

What a newer version of this code wrote is refused; what is damaged or missing is a job's failure. Each is told in one
line.
"""

from __future__ import annotations

import json
from contextlib import suppress
from typing import NamedTuple, TypeVar

from pipeline.errors import JobError, RefusedError
from pipeline.storage.store import Store
from schemas import layout, manifest
from schemas.manifest import Choice, ContractError, Document, Manifest, Marker, NewerError, Pointer, RetryRound, to_json

Model = TypeVar("Model", bound=Document)

GROUPS = b'\n "groups": [\n'
REBUILD = "`relabel run` with the same arguments, or `relabel seal`, writes it anew from the parts"


class Switch(NamedTuple):
    """The pointer, and the version that it has to be replaced from: None where there is no file.

    pointer: None before the first seal, and where the file is damaged or was lost.
    """

    pointer: Pointer | None
    version: str | None

    @property
    def given_up(self) -> frozenset[str]:
        """Paths that are not to be used again."""
        return frozenset(self.pointer.given_up if self.pointer else ())


class Committed(NamedTuple):
    """An increment of the plan. sha256: of its marker."""

    files: layout.Increment
    marker: Marker
    sha256: str


def run_store(output: Store, fingerprint: str) -> Store:
    """The folder of one method's results as a store of its own."""
    return Store(f"{output.uri.rstrip('/')}/{layout.run(fingerprint)}", output.access)


def read_switch(output: Store) -> Switch:
    """The pointer as it is to be replaced. Raises RefusedError where a newer version wrote it."""
    try:
        data, version = output.versioned(layout.CURRENT)
    except FileNotFoundError:
        return Switch(None, None)
    with suppress(JobError):
        return Switch(parse(Pointer, data, f"{output.uri}/{layout.CURRENT}"), version)
    return Switch(None, version)


def read_current(output: Store) -> Pointer | None:
    """The pointer, or None where there is none. Raises RefusedError where a newer version wrote it."""
    try:
        data = output.read(layout.CURRENT)
    except FileNotFoundError:
        return None
    try:
        return parse(Pointer, data, f"{output.uri}/{layout.CURRENT}")
    except JobError as error:
        raise JobError(f"{error}; {REBUILD}") from None


def read_pointed(output: Store, pointer: Pointer, groups: bool = True) -> Manifest:
    """The manifest that the pointer names. Raises JobError where it is not there, or another one.

    groups: False leaves `groups` empty, which are most of a large manifest and tell a reader nothing.
    """
    path = layout.in_run(pointer.fingerprint, layout.Seal(pointer.generation, pointer.attempt).manifest)
    where = f"{output.uri}/{path}"
    try:
        data = output.read(path)
    except FileNotFoundError:
        raise JobError(f"{where}, which {layout.CURRENT} names, is not there; {REBUILD}") from None
    if manifest.sha256(data) != pointer.manifest_sha256:
        raise JobError(f"{where} is not the manifest that {layout.CURRENT} names; {REBUILD}")
    return parse(Manifest, data if groups else _without_groups(data), where)


def _without_groups(data: bytes) -> bytes:
    """A manifest as `Manifest.to_json` writes it, with no groups; any other one as it is."""
    start, opening, closing = data.find(GROUPS), len(GROUPS), b"\n ],\n"
    stop = data.find(closing, start + opening)
    if start < 0 or stop < 0:
        return data
    return b"".join((data[:start], b'\n "groups": [],\n', data[stop + len(closing) :]))


def find_seal(run: Store, generation: int) -> layout.Seal | None:
    """Where a complete generation's files are; None for one that was discarded, or of which that cannot be told."""
    seal = layout.Seal(generation)
    try:
        data = run.read(seal.success)
        choice = parse(Choice, data, f"{run.uri}/{seal.success}") if data else Choice()
    except (FileNotFoundError, JobError):
        return None
    return None if choice.attempt is None else layout.Seal(generation, choice.attempt)


def read_manifest(run: Store, generation: int) -> Manifest:
    """A complete generation's manifest. Raises JobError where it is damaged or not there; RefusedError where a newer
    version wrote it.
    """
    seal = find_seal(run, generation)
    where = f"{run.uri}/{(seal or layout.Seal(generation)).manifest}"
    try:
        if seal is not None:
            return parse(Manifest, run.read(seal.manifest), where)
    except FileNotFoundError:
        pass
    raise JobError(f"{where} is not there; {REBUILD}")


def find_increment(output: Store, number: int) -> Committed:
    """A committed increment, from what names it, or else from the one attempt that is complete.

    Raises JobError where neither can be read.
    """
    choice = layout.Increment(number).choice
    where = f"{output.uri}/{choice}"
    try:
        return _chosen(output.read(choice), number, where)
    except FileNotFoundError:
        raise JobError(f"{where} is not there") from None
    except JobError:
        complete = complete_attempts(output, number)
        if len(complete) != 1:
            raise
        return complete[0]


def _chosen(data: bytes, number: int, where: str) -> Committed:
    choice = parse(Choice, data, where)
    if not choice.attempt:  # an earlier version's: the marker itself
        return Committed(layout.Increment(number), parse(Marker, data, where), manifest.sha256(data))
    fields = {key: value for key, value in choice.as_dict().items() if key != "attempt"}
    marker = parse(Marker, json.dumps(fields).encode(), where)
    return Committed(layout.Increment(number, choice.attempt), marker, manifest.sha256(to_json(marker)))


def complete_attempts(output: Store, number: int) -> list[Committed]:
    """The attempts at an increment of which all files are there."""
    found = []
    for file in output.list(f"{layout.PLAN}/{number}"):
        attempt = layout.attempt_of(layout.PLAN, file.path)
        increment = layout.Increment(number, attempt[1] if attempt else "")
        if attempt and file.path == increment.marker:
            with suppress(JobError, FileNotFoundError):
                data = output.read(file.path)
                found.append(Committed(increment, parse(Marker, data, file.path), manifest.sha256(data)))
    return found


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
