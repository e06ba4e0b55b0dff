"""What people said of masks: read from the page's download, checked, kept beside the result, and read back.

    OUTPUT/reviews/<number>-<hash>.json     one file for each `relabel review`; immutable; later ones win

A verdict is of the pair of masks that was seen: better or worse (the refined one than the coarse one), or reject
(neither can be used). It carries a digest of the two, so it no longer counts once either is another. A new gate or
calibration changes neither mask, and verdicts stay.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.result import Result, open_result
from pipeline.dataset.verdicts import digest, read_masks
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store, brief, split_uri
from schemas.records import SCORES

VERDICTS = ("better", "worse", "reject")
KIND = "relabel-verdicts"
VERSION = 1
FOLDER = "reviews"
MAX_BYTES = 64 << 20

TABLE = pa.schema(
    [
        ("mask_id", pa.string()),
        ("verdict", pa.string()),
        ("random", pa.bool_()),  # whether the mask was drawn at random, not picked for how it looks
        ("decision", pa.string()),
        ("quality", pa.float32()),
        ("quality_coarse", pa.float32()),
        ("quality_refined", pa.float32()),
        *SCORES,
    ]
)


class Verdict(NamedTuple):
    """One mask's verdict. `strata`: what the mask was shown for."""

    mask_id: str
    digest: str
    verdict: str
    strata: tuple[str, ...]


class Reviewed(NamedTuple):
    """What `review` took: verdicts by name, and how many were of masks that the result no longer has so."""

    taken: dict[str, int]
    stale: int
    path: str


def read_file(uri: str, access: Access) -> list[Verdict]:
    """A downloaded file -> its verdicts. Raises RefusedError when it is none."""
    store, name = split_uri(uri, access)
    try:
        data = store.read(name)
    except FileNotFoundError:
        raise RefusedError(f"{uri} does not exist") from None
    except Exception as error:  # every store has exceptions of its own
        raise RefusedError(f"cannot read {uri}: {brief(error)}") from None
    return parse(data, uri)


def parse(data: bytes, where: str) -> list[Verdict]:
    """JSON -> verdicts, every field checked: the file comes from outside. Raises RefusedError."""
    if len(data) > MAX_BYTES:
        raise RefusedError(f"{where} is larger than {MAX_BYTES >> 20} MiB; a file of verdicts is not")
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{where} is not valid JSON: {brief(error)}") from None
    if not isinstance(content, dict) or content.get("kind") != KIND or content.get("schema_version") != VERSION:
        raise RefusedError(f"{where} is not a file of verdicts, as the audit page downloads it")
    entries = content.get("verdicts")
    if not isinstance(entries, list):
        raise RefusedError(f"{where} has no list `verdicts`")
    return [_verdict(entry, where) for entry in entries]


def _verdict(entry: Any, where: str) -> Verdict:
    fields = [entry.get(name) if isinstance(entry, dict) else None for name in ("mask_id", "digest", "verdict")]
    strata = entry.get("strata", []) if isinstance(entry, dict) else None
    texts = [*fields, *(strata if isinstance(strata, list) else [None])]
    if not all(isinstance(text, str) for text in texts) or fields[2] not in VERDICTS:
        raise RefusedError(f"{where}: not a verdict ({', '.join(VERDICTS)}): {str(entry)[:100]}")
    mask_id, seen, verdict = (str(text) for text in fields)
    return Verdict(mask_id, seen, verdict, tuple(str(name) for name in strata or ()))


def review(output: str, uri: str, access: Access | None = None) -> Reviewed:
    """Keep the verdicts of a file beside the result. The same file twice changes nothing.

    Raises RefusedError when the file is none, or none of its masks is in the result as it was seen.
    """
    access = access or Access()
    result = open_result(output, access)
    given = read_file(uri, access)
    current = {row["mask_id"]: digest(row) for row in read_masks(result, [one.mask_id for one in given])}
    fresh = [one for one in given if current.get(one.mask_id) == one.digest]
    if not fresh:
        raise RefusedError(f"{uri} has no verdict on a mask that {output} holds as it was seen; nothing was stored")
    path = _put(result.store, fresh)
    return Reviewed(dict(sorted(Counter(one.verdict for one in fresh).items())), len(given) - len(fresh), path)


def stored(output: Store) -> dict[str, Verdict]:
    """All verdicts kept beside an output, by mask id; of several on one mask the latest."""
    found: dict[str, Verdict] = {}
    for file in output.list(FOLDER):
        if file.path.endswith(".json"):
            found |= {one.mask_id: one for one in parse(output.read(file.path), f"{output.uri}/{file.path}")}
    return found


def standing(result: Result) -> dict[str, tuple[Verdict, dict[str, Any]]]:
    """The verdicts that hold for the current result, each with the row of its mask."""
    kept = stored(result.store)
    rows = read_masks(result, list(kept)) if kept else []
    return {row["mask_id"]: (kept[row["mask_id"]], row) for row in rows if kept[row["mask_id"]].digest == digest(row)}


def rejected(output: str, access: Access | None = None) -> frozenset[str]:
    """Ids of the masks of the current result that a person rejected: exports leave them out."""
    store = Store(output, access or Access())
    if not any(one.verdict == "reject" for one in stored(store).values()):
        return frozenset()
    found = standing(open_result(output, access))
    return frozenset(mask_id for mask_id, (one, _) in found.items() if one.verdict == "reject")


def as_calibration(result: Result) -> pa.Table:
    """Verdicts beside the scores of their masks (TABLE): what a gate or calibration can be fitted to.

    better: the refined mask has the higher IoU with the truth; worse: the coarse one; reject: neither is usable.
    Only rows with `random` are a fair sample of the result.
    """
    found = standing(result)
    scores = {row["mask_id"]: row for row in _scores(result, list(found))}
    rows = [
        {
            **{name: scores[mask_id][name] for name in TABLE.names if name in scores[mask_id]},
            "verdict": one.verdict,
            "random": "random" in one.strata,
        }
        for mask_id, (one, _) in sorted(found.items())
    ]
    return pa.Table.from_pylist(rows, TABLE)


def judged(result: Result) -> list[dict[str, Any]]:
    """{quality, wrong, random} of each standing verdict, for `risk.by_verdicts`."""
    return [
        {"quality": row["quality"], "wrong": wrong(one.verdict, row["decision"]), "random": "random" in one.strata}
        for one, row in standing(result).values()
    ]


def wrong(verdict: str, decision: str) -> bool:
    """Whether the person would not have kept the mask that the gate kept."""
    return verdict == "reject" or (verdict == "better") != (decision == "refined")


def _scores(result: Result, mask_ids: Iterable[str]) -> list[dict[str, Any]]:
    names = [name for name in TABLE.names if name not in ("verdict", "random")]
    wanted = pa.array(sorted(mask_ids), pa.string())  # typed, for there may be none
    return result.masks(pc.field("mask_id").isin(wanted), names).to_pylist()


def _put(output: Store, verdicts: list[Verdict]) -> str:
    entries = [one._asdict() for one in sorted(verdicts)]
    content = {"kind": KIND, "schema_version": VERSION, "verdicts": entries}
    data = json.dumps(content, indent=1).encode()
    name = hashlib.sha256(data).hexdigest()[:16]
    files = [file.path for file in output.list(FOLDER)]
    if files and files[-1].endswith(f"-{name}.json"):
        return files[-1]
    path = f"{FOLDER}/{len(files):06}-{name}.json"
    output.put(path, data)
    return path
