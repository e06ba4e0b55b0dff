"""Sealing again what is already refined, with another calibration or gate: minutes, and no model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from pipeline.calibration.files import calibration_for
from pipeline.dataset.settings import merged, method_of
from pipeline.errors import RefusedError
from pipeline.output.manifest import Retention, Sealed
from pipeline.output.recovery import check_method, last_manifest
from pipeline.output.seal import SealRequest, seal
from pipeline.progress.events import OnEvent, Waiting, nobody
from pipeline.storage import Store
from pipeline.storage.documents import read_switch, run_store
from pipeline.storage.lease import Patience, check_store, held, unguarded
from schemas import layout


def reseal(
    output: Store,
    overrides: Mapping[str, Any],
    on_event: OnEvent = nobody,
    *,
    method: str | None = None,
    assume_exclusive: bool = False,
) -> Sealed:
    """A new generation of the current result. `overrides`: gate fields that differ from the current generation's.

    method: the folder of the method whose result is to be the current one. assume_exclusive: take no lease (for stores
    that cannot hold one). Raises RefusedError where nothing was sealed before, or the gate or calibration is wrong.
    """
    if assume_exclusive:
        output = Store(output.uri, replace(output.access, exclusive=True))
    request = _as_sealed(output, overrides, method)
    if assume_exclusive:
        return seal(request, unguarded, on_event)
    check_store(output)
    hold = partial(held, output, Patience(), lambda message: on_event(Waiting(message)))
    return seal(request, hold, on_event)


def _as_sealed(output: Store, overrides: Mapping[str, Any], method: str | None) -> SealRequest:
    """The seal that made the method's last generation, with some fields of the gate replaced."""
    current = read_switch(output).pointer
    name = method or (current.fingerprint if current else check_method(output, None))
    if name is None:
        raise RefusedError(f"{output.uri} holds no sealed result: no {layout.CURRENT}. `relabel run` makes one")
    manifest = last_manifest(output, current if current and current.fingerprint == name else None, name)
    config = method_of(run_store(output, name))
    gate = merged(manifest.gate, overrides)
    return SealRequest(
        output=output,
        fingerprint=name,
        gate=gate,
        calibration=calibration_for(gate, config.method, output.access),
        shard_bytes=config.operation.shard_mb << 20,
        images_root=manifest.images_root,
        retention=Retention(config.operation.keep_generations, config.operation.grace_s),
    )
