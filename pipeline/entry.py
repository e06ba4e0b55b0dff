"""`pipeline.run`: the command, from Python and in any thread (a notebook, an Airflow task)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline import job
from pipeline.output.manifest import Sealed
from pipeline.progress.events import OnEvent, nobody
from pipeline.request import Wanted, make_request

Fields = Mapping[str, Any]


def run(
    masks: str,
    output: str,
    *,
    images: str | None = None,
    images_inventory: str | None = None,
    source: str | None = None,
    config: str | None = None,
    preset: str = "default",
    method: Fields | None = None,
    gate: Fields | None = None,
    operation: Fields | None = None,
    checkpoint: str | None = None,
    adapter: str | None = None,
    address: str | None = None,
    limit: int | None = None,
    prune: bool = False,
    checksum: bool = False,
    new_version: bool = False,
    retry_failed: bool = False,
    retry_reasons: Sequence[str] = (),
    on_event: OnEvent = nobody,
) -> Sealed:
    """Refine every coarse mask of a dataset into Parquet, with a quality for each mask; `pipeline.open` reads it.

    masks, output, images: URIs. method, gate, operation: fields of the configuration, which win over those of `config`,
    the URI of a YAML file. address: of a Ray cluster; by default $RAY_ADDRESS, else one is started for the run. All
    else is as the options of `relabel run` have it. on_event: is sent each of `pipeline.progress.events`, in this
    thread; what it raises ends the run.

    Repeat the call to resume, whatever interrupted it. Failed rows are data: `.manifest.counts.failed` counts them.
    Raises RefusedError or ConfigError before any work, JobError when the job cannot go on.
    """
    overrides = {"method": method or {}, "gate": gate or {}, "operation": operation or {}}
    wanted = Wanted(
        masks=masks,
        output=output,
        images=images,
        source=source,
        config=config,
        preset=preset,
        overrides=overrides,
        checkpoint=checkpoint,
        adapter=adapter,
    )
    request = make_request(
        wanted,
        address=address,
        limit=limit,
        prune=prune,
        checksum=checksum,
        images_inventory=images_inventory,
        new_version=new_version,
        retry_failed=retry_failed,
        retry_reasons=tuple(retry_reasons),
    )
    return job.run(request, on_event)
