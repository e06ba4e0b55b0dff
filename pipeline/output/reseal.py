"""Sealing again what is already refined, with another calibration or gate: minutes, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from pipeline.calibration.files import calibration_for
from pipeline.dataset.settings import merged, method_of
from pipeline.errors import RefusedError
from pipeline.output.manifest import Retention, Sealed
from pipeline.output.seal import SealRequest, seal
from pipeline.progress.events import OnEvent, Waiting, nobody
from pipeline.storage import Store
from pipeline.storage.documents import read_current, read_manifest, run_store
from pipeline.storage.lease import Patience, check_store, held, unguarded
from schemas import layout


def reseal(
    output: Store, overrides: Mapping[str, Any], on_event: OnEvent = nobody, *, assume_exclusive: bool = False
) -> Sealed:
    """A new generation of the current result. `overrides`: gate fields that differ from the current generation's.

    assume_exclusive: take no lease (for stores that cannot hold one).
    Raises RefusedError where nothing was sealed before, or the gate or calibration is wrong.
    """
    request = _as_sealed(output, overrides)
    if assume_exclusive:
        return seal(request, unguarded, on_event)
    check_store(output)
    hold = partial(held, output, Patience(), lambda message: on_event(Waiting(message)))
    return seal(request, hold, on_event)


def _as_sealed(output: Store, overrides: Mapping[str, Any]) -> SealRequest:
    """The seal that made the current generation, with some fields of the gate replaced."""
    current = read_current(output)
    if current is None:
        raise RefusedError(f"{output.uri} holds no sealed result: no {layout.CURRENT}. `relabel run` makes one")
    run = run_store(output, current.fingerprint)
    config, manifest = method_of(run), read_manifest(run, current.generation)
    gate = merged(manifest.gate, overrides)
    return SealRequest(
        output=output,
        fingerprint=current.fingerprint,
        gate=gate,
        calibration=calibration_for(gate, config.method, output.access),
        shard_bytes=config.operation.shard_mb << 20,
        images_root=manifest.images_root,
        retention=Retention(config.operation.keep_generations, config.operation.grace_s),
    )
