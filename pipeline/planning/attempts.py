"""Which planning step is increment n: every step writes below a name of its own, and one of them is named, once.

    plan/<n>/<attempt>/marker.json    created when the attempt's files are there: it is complete. Who discards one
                                      creates this file first, so that it can never become complete
    plan/<n>/_COMMITTED               created then: this attempt is increment n. Whoever comes later has lost

So a step that slept while others went on changes nothing of theirs, whenever it wakes.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress

from pipeline.errors import JobError
from pipeline.storage import Store
from pipeline.storage.documents import Committed, complete_attempts, find_increment, read_current, read_pointed
from schemas import layout
from schemas.manifest import Marker, to_json

DISCARDED = json.dumps({"discarded": True}).encode()
"""In place of a marker."""


def committed(output: Store) -> list[int]:
    """Numbers of the committed increments, ascending. Raises JobError where one of them is missing."""
    numbers = _named(output)
    if missing := set(range(len(numbers))) - set(numbers):
        lost = f"{output.uri}/{layout.Increment(min(missing)).choice}"
        raise JobError(f"{lost} is not there, and later increments are; `relabel plan` looks for what it named")
    return numbers


def increments(output: Store, numbers: Sequence[int] | None = None) -> list[Committed]:
    """The committed increments, or some of them."""
    return [find_increment(output, number) for number in (committed(output) if numbers is None else numbers)]


def commit(output: Store, increment: layout.Increment, marker: Marker) -> None:
    """Let a complete attempt be the increment. Raises JobError where it was discarded, or another one is."""
    if not output.create(increment.marker, to_json(marker)) or not _name(output, increment, marker):
        raise JobError(
            f"another run planned {output.uri} at the same time, and took over; nothing was committed. Run it again"
        )


def adopt(output: Store) -> None:
    """Name again what was an increment and whose name was lost: later increments are there, or it was sealed."""
    named = _named(output)
    sealed = _sealed(output)
    for number in sorted({*range(max(named, default=0)), *sealed} - set(named)):
        complete = complete_attempts(output, number)
        sure = [one for one in complete if one.sha256 == sealed.get(number)]
        if not sure and len(complete) == 1 and number not in sealed:
            sure = complete
        for one in sure[:1]:
            _name(output, one.files, one.marker)


def _sealed(output: Store) -> dict[int, str]:
    """Increments of the current result, each with the hash of its marker; none where that cannot be read."""
    with suppress(JobError):
        current = read_current(output)
        plan = read_pointed(output, current).plan if current else []
        return {one.increment: one.sha256 for one in plan}
    return {}


def leftovers(output: Store) -> list[str]:
    """Files below plan/ that are of no increment and never will be, once `discard` was called for them."""
    chosen = {one.files.number: one.files for one in increments(output)}
    left: list[str] = []
    for number, paths in _files(output).items():
        if number in chosen:
            keep = {chosen[number].attempt}
            left += [path for path in paths if _attempt(path) not in keep and path != chosen[number].choice]
        else:
            keep = {one.files.attempt for one in complete_attempts(output, number)}
            markers = {layout.Increment(number, _attempt(path)).marker for path in paths}  # what keeps them from it
            left += [path for path in paths if _attempt(path) not in keep and path not in markers]
    return left


def discard(output: Store, paths: Sequence[str]) -> list[str]:
    """Those of the `leftovers` that may now be deleted: of attempts that lost, or that were kept from completion."""
    named = set(_named(output))
    free: dict[str, bool] = {}
    for path in paths:
        number, attempt = layout.attempt_of(layout.PLAN, path) or (layout.numbered(layout.PLAN, path), "")
        if number is None or number in named or not attempt:
            free[path] = True
        else:
            increment = layout.Increment(number, attempt)
            if increment.folder not in free:
                free[increment.folder] = output.create(increment.marker, DISCARDED)
            free[path] = free[increment.folder]
    return [path for path in paths if free[path]]


def _name(output: Store, increment: layout.Increment, marker: Marker) -> bool:
    """Whether the attempt is the increment now."""
    return output.create(increment.choice, choice_of(increment, marker))


def choice_of(increment: layout.Increment, marker: Marker) -> bytes:
    """The file that names an attempt. An earlier version's is the marker itself."""
    named = {"attempt": increment.attempt} if increment.attempt else {}
    return json.dumps({**marker.as_dict(), **named}).encode()


def _named(output: Store) -> list[int]:
    found = (layout.committed_number(file.path) for file in output.list(layout.PLAN))
    return sorted(number for number in found if number is not None)


def _attempt(path: str) -> str:
    """ "" for a file that an earlier version wrote."""
    found = layout.attempt_of(layout.PLAN, path)
    return found[1] if found else ""


def _files(output: Store) -> dict[int, list[str]]:
    """Paths below plan/, by increment."""
    found: dict[int, list[str]] = defaultdict(list)
    for file in output.list(layout.PLAN):
        number = layout.numbered(layout.PLAN, file.path)
        if number is not None:
            found[number].append(file.path)
    return found
