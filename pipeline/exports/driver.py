"""One export, shard by shard: in parallel, and going on where it stopped. What it remembers is `state.py`'s.

A rerun of the same command writes what is missing: groups that were not written, those of which a file is gone, and
those of which something could not be read and now can.
"""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, islice
from typing import Any

from pipeline.dataset import Result
from pipeline.dataset.by_image import Group, groups
from pipeline.exports import own_files, state
from pipeline.exports.fragments import discard
from pipeline.exports.image_files import THREADS, write_renamed, write_unread
from pipeline.exports.registry import find
from pipeline.exports.survey import survey
from pipeline.exports.types import Export, Job, Options, Piece, batches, selection
from pipeline.storage import Store
from schemas.config import digest
from schemas.layout import EXPORT_REPORT

FIRST_UNREAD = 20


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
    asked = _asked(result, name, options, images if options.with_images or form.names_images else None)
    before = state.find(target)
    state.refuse(before, asked, overwrite)
    if before.is_whole and not before.has_unread and not overwrite:
        return _as_it_was(before)
    job = Job(result, own_files.OwnFiles.of(target), images, options, survey(result))
    form.check(job)
    if overwrite and before.claim is not None:
        before = state.clear(before)
    found = groups(result)
    again = _again(form, job, found, before)
    if before.is_whole and not again:
        return _as_it_was(before)
    again |= {index for index in before.done if not before.holds_fragments(index)}
    target.put(state.CLAIM, json.dumps(asked, indent=1).encode())
    state.reopen(before, sorted(again))
    done = {index: piece for index, piece in before.done.items() if index not in again}
    pending = [(index, group) for index, group in enumerate(found) if index not in done]
    on_group(len(done), len(found))
    for index, piece in _write_all(form, job, pending, workers):
        done[index] = piece
        on_group(len(done), len(found))
    report = asked | _finish(form, job, [done[index] for index in range(len(found))])
    own_files.sweep(target, before.temporary)
    target.put(EXPORT_REPORT, json.dumps(report, indent=1).encode())
    _tidy(target)  # not before the report: without it the final files are written again, from the fragments
    return Exported(report, len(pending))


def _as_it_was(before: state.State) -> Exported:
    """Nothing is missing, or nothing that could be read now."""
    _tidy(before.target)
    return Exported(before.report or {}, 0)


def _tidy(target: Store) -> None:
    """Delete what only an export that has not ended needs."""
    discard(target)
    own_files.forget(target)


def _again(form: Export, job: Job, found: Sequence[Group], before: state.State) -> set[int]:
    """The groups that were done, and must be once more: a file is gone, or something unread can be read now."""
    return {
        index
        for index, piece in before.done.items()
        if not before.holds(piece.files) or (piece.unread and _can_read_more(form, job, found[index], piece))
    }


def _can_read_more(form: Export, job: Job, group: Group, piece: Piece) -> bool:
    """Of a group that was written with something left out: whether any of it is there now."""
    left_out = (image for image in job.read(group, Piece()) if image.uri in piece.unread)
    with ThreadPoolExecutor(THREADS) as pool:
        return any(any(pool.map(partial(form.can_read, job), batch)) for batch in batches(left_out, 4 * THREADS))


def _finish(form: Export, job: Job, pieces: Sequence[Piece]) -> dict[str, Any]:
    """Write what goes over all groups; what the report says of the whole."""
    last = form.finish(job, pieces)
    unread = {uri: why for piece in pieces for uri, why in piece.unread.items()}
    last.files += [*write_renamed(job), *write_unread(job, unread)]
    first = [{"image_uri": uri, "why": why} for uri, why in islice(unread.items(), FIRST_UNREAD)]
    own_files.settle(job.target, own_files.FINAL, set(chain.from_iterable(piece.files for piece in [*pieces, last])))
    return {**_totals([*pieces, last]), "unread": {"images": len(unread), "first": first}, "files": last.files}


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
    own = replace(job, target=own_files.OwnFiles.of(job.target, index))
    piece = form.write(own, group, index)
    state.mark(job.target, index, piece)
    return piece


def _asked(result: Result, name: str, options: Options, images: Store | None) -> dict[str, Any]:
    """What makes an export this one and no other; as JSON gives it back. images: where they are, if it matters."""
    asked = {
        "format": name,
        "fingerprint": result.manifest.fingerprint,
        "generation": result.manifest.generation,
        "result": digest(result.manifest.as_dict()),
        "options": vars(options),
        state.IMAGES: images.uri if images else None,
    }
    return dict(json.loads(json.dumps(asked)))


def _totals(pieces: Sequence[Piece]) -> dict[str, dict[str, int]]:
    totals = Piece()
    for piece in pieces:
        totals.counts.update(piece.counts)
        totals.lost.update(piece.lost)
    counts = {"images": 0, "masks": 0, **totals.counts}
    return {"counts": dict(sorted(counts.items())), "lost": dict(sorted(totals.lost.items()))}
