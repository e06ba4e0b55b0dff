"""Checking a share of a result, in memory that does not grow with it: some of its shards, each by itself.

A shard of masks and its shard of images hold what some chunks of one increment became. So each such pair can be
compared with the rows that the plan has for its chunks, without a look at the others. Pairs are drawn by the hash of
what they were made of, hence the same ones again for the same seed; of several processes each takes its own
(`Share.part`).

Not here: what needs all of the result, which is its totals, and files that nothing names.
"""

from __future__ import annotations

import hashlib
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pyarrow.parquet as pq

from pipeline.dataset.overlays import Row, ids_after
from pipeline.errors import RefusedError
from pipeline.planning.chunks import Chunk
from pipeline.planning.increment import read_superseded
from pipeline.storage import Access, Store, StoredFile
from pipeline.storage.disk_table import scratch_folder
from pipeline.storage.documents import Committed
from pipeline.verify.accounting import Ledger
from pipeline.verify.check import check_shards, chunk_rows, count
from pipeline.verify.files import Check, Current, Report, check_manifest
from pipeline.verify.increments import check_marker, check_small_files
from pipeline.verify.overlays import check_overlays
from pipeline.words import plural
from schemas import layout
from schemas.manifest import Manifest, Shard, ShardGroup

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """How much is checked: a share of the pairs in (0, 1], and of those every `parts`th from number `part` (from 1)."""

    sample: float = 1.0
    part: int = 1
    parts: int = 1
    seed: int = 0


class _Pair(NamedTuple):
    """A shard of masks and one of images. images_of: how many images of each chunk they hold."""

    group: ShardGroup
    masks: Shard
    images: Shard
    images_of: dict[str, int]

    @property
    def increment(self) -> int:
        return int(layout.increment_of(next(iter(self.images_of))))


class _Files(Mapping[str, StoredFile]):
    """The files of an output, each looked for when it is asked for. total: how many will be."""

    def __init__(self, output: Store, total: int) -> None:
        self._output, self._total = output, total

    def __getitem__(self, path: str) -> StoredFile:
        try:
            return StoredFile(path, self._output.size(path), None)
        except FileNotFoundError:
            raise KeyError(path) from None

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return self._total


def verify_share(
    uri: str, access: Access, share: Share, on_file: Callable[[int, int], None] = lambda _count, _total: None
) -> Report:
    """Check some shards of the current result of an output. Raises RefusedError where nothing was ever sealed.

    The report counts what was checked; its notes say what that tells of the whole.
    """
    output = Store(uri, access)
    if not output.exists(layout.CURRENT):
        raise RefusedError(f"{uri} holds no sealed result: there is nothing to verify")
    report = Report(uri)
    with scratch_folder("verify") as folder:
        check = Check(output, _Files(output, 0), folder, report, on_file)
        current = check_manifest(check)
        if current is not None:
            _check_share(check, current, share)
    report.files = len(check.named)
    return report.close()


def _check_share(check: Check, current: Current, share: Share) -> None:
    manifest = current.manifest
    pairs = _pairs(check, current)
    if pairs is None:
        return
    chosen = chosen_of(pairs, share)
    increments = _increments(check, manifest)
    changes = check_overlays(check, manifest)
    for number, some in groupby(chosen, key=lambda pair: pair.increment):
        if number in increments:
            _check_pairs(check, manifest, list(some), number, increments, changes)
    check.report.notes.append(statement(len(chosen), len(pairs), check.report, manifest))


def chosen_of(pairs: Sequence[_Pair], share: Share) -> list[_Pair]:
    """The pairs that a share checks, in plan order."""

    def drawn(place: int) -> str:
        return hashlib.sha256(f"{share.seed} {pairs[place].group.key}".encode()).hexdigest()

    places = sorted(range(len(pairs)), key=drawn)[: math.ceil(share.sample * len(pairs))]
    return [pairs[place] for place in sorted(places[share.part - 1 :: share.parts])]


def statement(checked: int, pairs: int, report: Report, manifest: Manifest) -> str:
    """What the check of some of the pairs tells of all."""
    found = sum(report.done.values()) + sum(report.failed.values()), manifest.counts.rows
    what = f"checked {checked} of {plural(pairs, 'pair')} of shards, {found[0]} of {plural(found[1], 'row')}"
    if report.findings or not checked:
        return what
    limits = "Totals, and files that nothing names, were not looked at"
    if checked == pairs:
        return f"{what}: none is unsound. {limits}"
    most = 1 - (1 - CONFIDENCE) ** (1 / checked)
    return (
        f"{what}: none is unsound; had more than {most:.2%} of all pairs been, one would have been found with a "
        f"probability of {CONFIDENCE:.0%}. {limits}"
    )


def _pairs(check: Check, current: Current) -> list[_Pair] | None:
    """All pairs, in plan order; None where the list of their parts is not what it was."""
    manifest = current.manifest
    path = layout.in_run(manifest.fingerprint, current.seal.parts)
    local = check.fetch(path, manifest.parts.sha256, manifest.parts.bytes)
    if local is None:
        return None
    listed = pq.read_table(local, columns=["chunk_id", "path", "images"])
    found, start = [], 0
    for group, masks, images in zip(manifest.groups, manifest.masks, manifest.images, strict=True):
        files = listed.slice(start, group.files).to_pylist()
        bases = [one for one in files if (name := layout.part_name(one["path"])) and not name.round]
        found.append(_Pair(group, masks, images, {one["chunk_id"]: one["images"] for one in bases}))
        start += group.files
    return found


def _increments(check: Check, manifest: Manifest) -> dict[int, Committed]:
    """Those whose marker is the one that was sealed, by number."""
    found = ((marker.increment, check_marker(check, marker.increment, marker.sha256)) for marker in manifest.plan)
    return {number: one for number, one in found if one is not None}


def _check_pairs(
    check: Check,
    manifest: Manifest,
    pairs: Sequence[_Pair],
    number: int,
    increments: Mapping[int, Committed],
    changes: Mapping[str, Sequence[Row]],
) -> None:
    """Pairs of one increment."""
    own = increments[number]
    chunks: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in check_small_files(check, own.files, own.marker):
        chunks[chunk.file].append(chunk)
    later = [one for other, one in increments.items() if other > number]
    superseded = {pair for one in later for pair in read_superseded(check.output, one)}
    for pair in pairs:
        with TemporaryDirectory(dir=check.folder) as folder:
            ledger = Ledger(Path(folder))
            for row, is_sealed in _planned_rows(check, pair, own, chunks):
                if (row["chunk_id"], row["image_id"]) not in superseded:
                    ids = ids_after((mask["mask_id"] for mask in row["masks"]), changes.get(row["image_id"], ()))
                    count(check.report.planned, len(ids))
                    if is_sealed:
                        ledger.planned(row["image_id"], ids)
                    else:
                        count(check.report.pending, len(ids))
            _check_pair(check, manifest, pair, ledger)


def _planned_rows(
    check: Check, pair: _Pair, own: Committed, chunks: Mapping[str, Sequence[Chunk]]
) -> Iterator[tuple[Row, bool]]:
    """Rows of the plan for the pair's chunks, each with whether its part was sealed."""
    for path in (path for path in chunks if any(chunk.chunk_id in pair.images_of for chunk in chunks[path])):
        local = check.fetch(path, own.marker.sha256[layout.name_of(path)])
        for chunk, rows in chunk_rows(check, path, local, chunks[path]) if local is not None else ():
            sealed = pair.images_of.get(chunk.chunk_id)
            yield from ((row, place < sealed) for place, row in enumerate(rows) if sealed is not None)


def _check_pair(check: Check, manifest: Manifest, pair: _Pair, ledger: Ledger) -> None:
    before = len(check.report.findings)
    alone = manifest.model_copy(update={"masks": [pair.masks], "images": [pair.images]})
    counts = check_shards(check, alone, ledger)
    if len(check.report.findings) > before:
        return  # what could not be read cannot be compared
    said = {kind: numbers for kind, numbers in pair.group.counts.as_dict().items() if numbers}
    found = {kind: dict(sorted(numbers.items())) for kind, numbers in counts.items() if numbers}
    if said != found:
        check.report.add("accounting", pair.masks.path, f"and its images hold {found}, the manifest says {said}")
    for kind, sentence in ledger.compare():
        check.report.add("accounting", (pair.images if kind == "images" else pair.masks).path, sentence)
