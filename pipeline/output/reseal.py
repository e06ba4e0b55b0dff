"""Sealing again what is already refined, with another calibration or gate: minutes, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.calibration.files import calibration_for
from pipeline.dataset import read_current
from pipeline.dataset.settings import merged, method_of
from pipeline.errors import RefusedError
from pipeline.output.manifest import Retention, Sealed, read_manifest
from pipeline.output.seal import seal
from pipeline.planning.increment import read_plan
from pipeline.progress.events import Progress
from pipeline.storage import Access, Store
from pipeline.storage.lease import Patience, check_store, held, unguarded


def reseal(
    output_uri: str, overrides: Mapping[str, Any], access: Access, progress: Progress, *, assume_exclusive: bool = False
) -> Sealed:
    """A new generation of the current result. `overrides`: gate fields that differ from the current generation's.

    assume_exclusive: take no lease (for stores that cannot hold one).
    Raises RefusedError where nothing was sealed before, or the gate or calibration is wrong.
    """
    output = Store(output_uri, access)
    current = read_current(output)
    if current is None:
        raise RefusedError(f"{output_uri} holds no sealed result: no current.json. `relabel run` makes one")
    run = Store(f"{output_uri.rstrip('/')}/runs/{current['fingerprint']}", access)
    config, manifest = method_of(run), read_manifest(run, current["generation"])
    gate = merged(manifest["gate"], overrides)
    operation = config.operation
    calibration = calibration_for(gate, config.method, access)
    if not assume_exclusive:
        check_store(output)
    with unguarded() if assume_exclusive else held(output, Patience(), progress.waiting) as fence:
        planned = read_plan(output)
        with progress.sealing(len(planned.chunks)) as on_parts:
            return seal(
                output,
                run,
                current["fingerprint"],
                planned,
                gate,
                calibration=calibration,
                shard_bytes=operation.shard_mb << 20,
                images_root=manifest["images_root"],
                retention=Retention(operation.keep_generations, operation.grace_s),
                fence=fence,
                on_parts=on_parts,
            )
