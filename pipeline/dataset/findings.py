"""What `relabel findings` found in a result, and what people said of it, as both are kept beside the result.

    OUTPUT/findings/<number>-<hash>.parquet   all findings of one pass (FINDINGS); immutable; the last one counts
    OUTPUT/findings/<number>-<hash>.json      verdicts; immutable; later ones win

A finding's id depends on the masks as they are, so it is another finding, without a verdict, once one of them changes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa

from pipeline.dataset.result import Result
from pipeline.errors import JobError
from pipeline.storage import Store, parquet_bytes
from schemas import layout
from schemas.records import FINDINGS, conform

RIGHT, WRONG = "right", "wrong"
KIND = "relabel-finding-verdicts"
OF_GENERATION = b"relabel.generation"


class Found(NamedTuple):
    """The findings of the last pass. current: whether they are of the generation that readers see."""

    path: str
    rows: pa.Table
    current: bool


def keep(result: Result, rows: pa.Table) -> str:
    """Store findings (FINDINGS) beside the result. The same ones again change nothing. Returns the path."""
    table = conform(rows, FINDINGS).replace_schema_metadata({OF_GENERATION: _generation(result)})
    return _put(result.store, parquet_bytes(table), ".parquet")


def latest(result: Result) -> Found | None:
    """The findings of the last pass; None where there was none."""
    paths = _listed(result.store, ".parquet")
    if not paths:
        return None
    table = result.store.read_parquet(paths[-1])
    of = (table.schema.metadata or {}).get(OF_GENERATION)
    return Found(paths[-1], conform(table, FINDINGS), of == _generation(result))


def keep_verdicts(output: Store, verdicts: Mapping[str, str]) -> str:
    """Store verdicts (finding id -> right or wrong). Returns the path."""
    content = {"kind": KIND, "schema_version": 1, "verdicts": dict(sorted(verdicts.items()))}
    return _put(output, json.dumps(content, indent=1).encode(), ".json")


def verdicts(output: Store) -> dict[str, str]:
    """Every verdict: finding id -> right or wrong; of several the last. Raises JobError for a damaged file."""
    found: dict[str, str] = {}
    for path in _listed(output, ".json"):
        try:
            content = json.loads(output.read(path))
            found |= {str(key): str(value) for key, value in content["verdicts"].items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise JobError(f"{output.uri}/{path} is damaged; remove it to go on without its verdicts") from None
    return found


def finding_id(kind: str, image_id: str, *masks: Mapping[str, Any] | None) -> str:
    """A hash of what is found of which masks: rows with `mask_id` and `mask_rle`, or a `mask_rle` alone."""
    said = [f"{mask.get('mask_id')} {(mask.get('mask_rle') or {}).get('counts')}" for mask in masks if mask]
    return hashlib.sha256(json.dumps([kind, image_id, sorted(said)]).encode()).hexdigest()[:32]


def _generation(result: Result) -> bytes:
    return f"{result.manifest.fingerprint} {hashlib.sha256(result.manifest.to_json()).hexdigest()}".encode()


def _listed(output: Store, suffix: str) -> list[str]:
    return [
        file.path for file in output.list(layout.FINDINGS) if file.path.endswith(suffix) and layout.reviewed(file.path)
    ]


def _put(output: Store, data: bytes, suffix: str) -> str:
    sha256 = hashlib.sha256(data).hexdigest()
    own = _listed(output, suffix)
    if own and layout.reviewed(own[-1]) == sha256[:16]:
        return own[-1]
    numbers = [
        int(path.partition("/")[2].partition("-")[0])
        for path in (*_listed(output, ".json"), *_listed(output, ".parquet"))
    ]
    path = layout.finding(max(numbers, default=-1) + 1, sha256, suffix)
    output.put(path, data)
    return path
