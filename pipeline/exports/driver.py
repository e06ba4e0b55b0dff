"""One export, shard by shard: in parallel, and going on where it stopped.

TARGET/.relabel-export/job.json        what is exported: another job is refused, unless --overwrite
TARGET/.relabel-export/done/<n>.json   a group that is written: its files and counts
TARGET/export.json                     written last: what was exported, from which generation, and what was lost
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from pipeline.dataset import Result
from pipeline.dataset.by_image import Group, groups
from pipeline.errors import RefusedError
from pipeline.exports.fragments import discard
from pipeline.exports.image_files import write_renamed
from pipeline.exports.registry import find
from pipeline.exports.survey import survey
from pipeline.exports.types import Export, Job, Options, Piece, as_json, from_json, selection
from pipeline.storage import Store
from schemas.config import digest
from schemas.layout import EXPORT_REPORT, EXPORT_STATE


@dataclass(frozen=True)
class Exported:
    """What an export wrote. report: the content of `export.json`; groups: written now, the rest were before."""

    report: dict[str, Any]
    groups: int


def export(
    result: Result,
    target: Store,
    images: Store,
    name: str,
    options: Options,
    *,
    workers: int = 1,
    overwrite: bool = False,
    on_group: Callable[[int, int], None] = lambda _done, _all: None,
) -> Exported:
    """Write one result in one format. Raises RefusedError where that cannot be, before anything is written.

    on_group: called with the number of groups done and of all, for progress.
    """
    form = find(name)
    selection(options)  # a filter that is none is refused here
    asked = _asked(result, name, options)
    begin(target, asked, overwrite)
    finished = _report(target)
    if finished is not None:
        discard(target)
        return Exported(finished, 0)
    job = Job(result, target, images, options, survey(result))
    found = groups(result)
    done = _done(target)
    pending = [(index, group) for index, group in enumerate(found) if index not in done]
    on_group(len(done), len(found))
    for index, piece in _write_all(form, job, pending, workers):
        done[index] = piece
        on_group(len(done), len(found))
    pieces = [done[index] for index in range(len(found))]
    last = form.finish(job, pieces)
    last.files += write_renamed(job)
    report = {**asked, **_totals([*pieces, last]), "files": last.files}
    target.put(EXPORT_REPORT, json.dumps(report, indent=1).encode())
    discard(target)  # not before the report: without it the final files are written again, from the fragments
    return Exported(report, len(pending))


def begin(target: Store, asked: dict[str, Any], overwrite: bool) -> None:
    """Claim the target for this job. Raises RefusedError when it holds another export, or files of something else."""
    present = [file.path for file in target.list()]
    if f"{EXPORT_STATE}/job.json" in present:
        before = json.loads(target.read(f"{EXPORT_STATE}/job.json"))
        if before == asked:
            return
        if not overwrite:
            changed = ", ".join(sorted(key for key in asked if before.get(key) != asked[key]))
            raise RefusedError(
                f"{target.uri} holds another export (different: {changed}); choose another folder, or --overwrite"
            )
        clear(target)
    elif present:
        raise RefusedError(f"{target.uri} is not empty, and no export of ours; choose another folder")
    target.put(f"{EXPORT_STATE}/job.json", json.dumps(asked, indent=1).encode())


def clear(target: Store) -> None:
    """Delete what an earlier export wrote, and nothing else; the claim last."""
    files = [path for piece in _done(target).values() for path in piece.files]
    files += (_report(target) or {}).get("files", [])
    for path in [*files, EXPORT_REPORT]:
        target.delete(path)
    for file in reversed(target.list(EXPORT_STATE)):
        target.delete(file.path)


def _write_all(
    form: Export, job: Job, pending: Sequence[tuple[int, Group]], workers: int
) -> Iterator[tuple[int, Piece]]:
    """Write groups as they come; each leaves its mark when its files are there."""
    if workers <= 1 or len(pending) <= 1:
        for index, group in pending:
            yield index, write_group(form, job, group, index)
        return
    # a fresh interpreter each: threads of Arrow and of object stores do not survive a fork
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(pending)), mp_context=context) as pool:
        futures = {pool.submit(write_group, form, job, group, index): index for index, group in pending}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def write_group(form: Export, job: Job, group: Group, index: int) -> Piece:
    """Write one group and mark it done."""
    piece = form.write(job, group, index)
    job.target.put(f"{EXPORT_STATE}/done/{index:06d}.json", json.dumps(as_json(piece)).encode())
    return piece


def _asked(result: Result, name: str, options: Options) -> dict[str, Any]:
    """What makes an export this one and no other; as JSON gives it back."""
    asked = {
        "format": name,
        "fingerprint": result.manifest.fingerprint,
        "generation": result.manifest.generation,
        "result": digest(result.manifest.as_dict()),
        "options": vars(options),
    }
    return dict(json.loads(json.dumps(asked)))


def _done(target: Store) -> dict[int, Piece]:
    found = {}
    for file in target.list(f"{EXPORT_STATE}/done"):
        index = int(file.path.rpartition("/")[2].removesuffix(".json"))
        found[index] = from_json(json.loads(target.read(file.path)))
    return found


def _report(target: Store) -> dict[str, Any] | None:
    try:
        return dict(json.loads(target.read(EXPORT_REPORT)))
    except FileNotFoundError:
        return None


def _totals(pieces: Sequence[Piece]) -> dict[str, dict[str, int]]:
    totals = Piece()
    for piece in pieces:
        totals.counts.update(piece.counts)
        totals.lost.update(piece.lost)
    return {"counts": dict(sorted(totals.counts.items())), "lost": dict(sorted(totals.lost.items()))}
