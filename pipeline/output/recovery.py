"""What can still be told where the pointer was lost, or a manifest is damaged: parts and plan are there, and say it."""

from __future__ import annotations

from contextlib import suppress

from pipeline.errors import JobError, RefusedError
from pipeline.output.manifest import finished_s, intact, latest
from pipeline.storage import Store
from pipeline.storage.documents import read_manifest, run_store
from schemas import layout
from schemas.manifest import Manifest, Pointer


def sealed_methods(output: Store) -> list[str]:
    """Folders of methods with a complete generation, whether or not the pointer ever named one."""
    names = {found[0] for file in output.list(layout.RUNS) if (found := layout.split_run(file.path))}
    return sorted(name for name in names if latest(run_store(output, name)) is not None)


def check_method(output: Store, name: str | None) -> str | None:
    """Which method's result counts, where the pointer was lost: the one of that name, or for None the only one there.

    None where nothing was ever sealed. Raises RefusedError where it cannot be told.
    """
    others = [method for method in sealed_methods(output) if method != name]
    if name is None and len(others) == 1:
        return others[0]
    if others:
        raise RefusedError(
            f"{output.uri}/{layout.CURRENT} is damaged or was lost, and there are results of other methods "
            f"({', '.join(others)}): `relabel seal {output.uri} --method NAME` says which of them counts"
        )
    return name


def last_manifest(output: Store, pointer: Pointer | None, name: str) -> Manifest:
    """The current manifest of a method, or else of its generations the last that can be read. Raises JobError."""
    if current := intact(output, pointer):
        return current
    run = run_store(output, name)
    for number in sorted(finished_s(run), reverse=True):
        with suppress(JobError):
            return read_manifest(run, number)
    raise JobError(
        f"{run.uri}/{layout.SEALS} has no manifest that can be read; `relabel run` with the same arguments makes one"
    )


def sealed_rounds(run: Store) -> int:
    """The last retry round that is in the last generation. Where that cannot be read, the last round but one: all of
    the last one is then found to be done, or is worked on.
    """
    generation = latest(run)
    with suppress(JobError):
        return read_manifest(run, generation).retries.done if generation is not None else 0
    rounds = (layout.numbered(layout.RETRIES, file.path) for file in run.list(layout.RETRIES))
    return max((number for number in rounds if number), default=1) - 1
