"""What people say of masks: read from the page's download, checked, kept beside the result (`dataset/verdicts.py`).

And what it is good for: a gate or calibration fitted to verdicts, the risk that they show.
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
from pipeline.dataset.verdicts import KIND, VERSION, Verdict, digest, parse, read_masks, standing
from pipeline.errors import RefusedError
from pipeline.storage import Access, Store, read_uri
from schemas import layout
from schemas.records import SCORES

MAX_VERDICTS_BYTES = 1 << 28
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


class Reviewed(NamedTuple):
    """What `review` took: verdicts by name, and how many were of masks that the result no longer has so."""

    taken: dict[str, int]
    stale: int
    path: str


def read_file(uri: str, access: Access) -> list[Verdict]:
    """A downloaded file -> its verdicts. Raises RefusedError when it is none."""
    return parse(read_uri(uri, access, MAX_VERDICTS_BYTES, "file of verdicts"), uri)


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
    sha256 = hashlib.sha256(data).hexdigest()
    files = [file.path for file in output.list(layout.REVIEWS)]
    if files and files[-1] == layout.review(len(files) - 1, sha256):
        return files[-1]
    path = layout.review(len(files), sha256)
    output.put(path, data)
    return path
