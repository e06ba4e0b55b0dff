"""What a run is asked to do: put together from what was given, checked before any work.

Wanted     as a user says it: URIs, names, some fields of the configuration
Request    everything looked up, resolved and hashed
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

from pipeline import refiners, sources
from pipeline.calibration.files import calibration_for
from pipeline.cluster.connection import check_reachable
from pipeline.configuration import read_config
from pipeline.errors import RefusedError
from pipeline.models import ModelSpec, Runtime, check_device, check_usable, execution_class, load_model, registry
from pipeline.models.weights import Weights, resolve, with_adapter
from pipeline.output.manifest import Retention
from pipeline.output.recovery import check_method
from pipeline.output.seal import SealRequest
from pipeline.planning.attempts import committed
from pipeline.planning.increment import read_plan
from pipeline.planning.scans import pinned_source
from pipeline.progress.events import OnEvent, Waiting
from pipeline.refining.chunk import Inputs, Job
from pipeline.refining.pending import Share
from pipeline.sources import inventory
from pipeline.sources.walks import location
from pipeline.storage import Access, Store
from pipeline.storage.documents import read_switch, run_store
from pipeline.storage.lease import Hold, Patience, check_store, held, in_use, unguarded
from pipeline.storage.paths import absolute
from pipeline.storage.preflight import check_folder, check_readable, check_writable
from schemas import layout
from schemas.config import Config, Operation, fingerprint

Overrides = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What stands on the command line, or in a call. overrides: {"method": {...}, "gate": {...}, "operation": {...}};
    they win over `config`, the URI of a YAML file.
    """

    masks: str
    output: str
    images: str | None = None
    source: str | None = None
    config: str | None = None
    preset: str = "default"
    overrides: Overrides = field(default_factory=dict)
    checkpoint: str | tuple[str, ...] | None = None  # of several models, each one's
    adapter: str | None = None


@dataclass(frozen=True)
class Request:
    """What a run was asked to do. `config.method.weights_sha256` is that of `weights`."""

    images: str
    masks: str
    output: str
    source: str
    config: Config
    weights: Weights
    address: str | None = None
    limit: int | None = None
    no_plan: bool = False
    prune: bool = False
    checksum: bool = False
    images_inventory: str | None = None
    new_version: bool = False
    retry_failed: bool = False
    retry_reasons: tuple[str, ...] = ()

    @property
    def access(self) -> Access:
        operation = self.config.operation
        return _access(operation)

    @cached_property
    def fingerprint(self) -> str:
        """Of the method: the name of its folder. It is another one where `gc` has removed the first."""
        switch = read_switch(Store(self.output, self.access))
        return layout.method_folder(fingerprint(self.config.method), switch.given_up)

    @cached_property
    def spec(self) -> ModelSpec:
        """Of the model; of a family of them, what its checkpoint says."""
        return registry.resolve(self.config.method.model, self.weights.readable, self.access)

    @property
    def load_side(self) -> int:
        """The long side at which images travel to the model (for crops, at most); ORIGINAL_SIZE: as they are."""
        return refiners.load_side(self.config.method, self.spec.input_side)

    @property
    def plans_by_tasks(self) -> bool:
        """Whether a cluster is named that can plan, by the request or in $RAY_ADDRESS. Ray's client (`ray://`) has no
        tasks that yield.
        """
        address = self.address or os.environ.get("RAY_ADDRESS", "")
        return bool(address) and not address.startswith("ray://")

    def stores(self) -> tuple[Store, Store]:
        """The output, and its folder of this method."""
        output = Store(self.output, self.access)
        return output, run_store(output, self.fingerprint)

    def in_use(self, share: Share | None = None) -> AbstractContextManager[None]:
        """Says that the run refines, to whoever removes the results of other methods."""
        return in_use(self.stores()[0], self.fingerprint, Patience(), str(share or ""))

    def hold(self, on_event: OnEvent) -> Hold:
        """How a step takes the output's lease."""
        operation = self.config.operation
        if operation.assume_exclusive:
            return unguarded
        patience = Patience(wait_s=operation.lease_wait_s)
        return partial(held, self.stores()[0], patience, lambda message: on_event(Waiting(message)))

    def sealing(self) -> SealRequest:
        """How the result is sealed. Raises RefusedError where the calibration cannot be used."""
        operation = self.config.operation
        return SealRequest(
            output=self.stores()[0],
            fingerprint=self.fingerprint,
            gate=self.config.gate,
            calibration=calibration_for(self.config.gate, self.config.method, self.access),
            shard_bytes=operation.shard_mb << 20,
            images_root=self.images,
            retention=Retention(operation.keep_generations, operation.grace_s),
        )

    def check(self) -> None:
        """Refuse what cannot work, before any work. Raises RefusedError."""
        output, run = self.stores()
        self._check_plan(output)
        if self.images_inventory:
            inventory.check(self.images_inventory, self.access, self.images)
        self._check_version(output, run)
        self.sealing()
        check_reachable(self.address)
        if not self.config.operation.assume_exclusive:
            check_store(output)

    def _check_plan(self, output: Store) -> None:
        """Refuse to plan nothing where there is no plan, or together with what is for planning."""
        if not self.no_plan:
            return
        planning = {"--prune": self.prune, "--checksum": self.checksum, "--images-inventory": self.images_inventory}
        if unused := [name for name, given in planning.items() if given]:
            raise RefusedError(f"--no-plan reads no input, so {unused[0]} would do nothing: leave one of them out")
        if not committed(output):
            raise RefusedError(f"{self.output} holds no plan: `relabel plan` makes one, or leave --no-plan out")

    def _check_version(self, output: Store, run: Store) -> None:
        """Refuse a changed method over existing results unless --new-version says that it is meant."""
        current = read_switch(output).pointer
        name = self.fingerprint
        if self.new_version:
            return
        if current is None:
            check_method(output, name)
            return
        if current.fingerprint == name or run.list(layout.PARTS):
            return
        images = int(read_plan(output).chunks.images.sum())
        raise RefusedError(
            f"{self.output} holds a result of another method ({current.fingerprint}, this one is {name}). Going on "
            f"refines all {images} planned images again, beside the old result: say so with --new-version"
        )


def make_request(wanted: Wanted, *, with_weights: bool = True, **how: Any) -> Request:
    """The request with everything looked up and hashed. Raises RefusedError or ConfigError for what cannot work.

    how: further fields of Request. with_weights: False where no model will be loaded, so that none is fetched.
    """
    given = Access(wanted.overrides.get("operation", {}).get("endpoint_url"))
    stated = Access(read_config(wanted.config, wanted.preset, wanted.overrides, given).operation.endpoint_url)
    check_folder(wanted.output)
    check_readable(wanted.masks, stated, "masks")
    source = wanted.source or _known_source(wanted, stated) or sources.detect(wanted.masks, stated, wanted.images)
    images = sources.images_root(source, wanted.images, wanted.masks, stated)
    base = {"split_regions": True, "exclusive": True} if sources.find(source).semantic else None
    config = read_config(wanted.config, wanted.preset, wanted.overrides, given, base)
    _check_apart(wanted.output, {"--images": images, "--masks": wanted.masks})
    access = _check_places(config, images, wanted.output)
    weights = _weights(wanted, config, access) if with_weights else Weights("", "", access)
    hashes = {"weights_sha256": weights.sha256, "adapter_sha256": weights.adapter.sha256 if weights.adapter else ""}
    method = config.method.model_copy(update=hashes)
    return Request(
        images=absolute(images),
        masks=absolute(wanted.masks),
        output=absolute(wanted.output),
        source=source,
        config=config.model_copy(update={"method": method}),
        weights=weights,
        **how,
    )


def _known_source(wanted: Wanted, access: Access) -> str | None:
    """What the same input was read with before: it must not turn into another format overnight."""
    images = absolute(wanted.images or "")
    return pinned_source(Store(wanted.output, access), images, absolute(wanted.masks)) if wanted.images else None


def _weights(wanted: Wanted, config: Config, access: Access) -> Weights:
    weights = resolve(config.method.model, wanted.checkpoint, access)
    registry.resolve(config.method.model, weights.readable, access)
    return weights if wanted.adapter is None else with_adapter(weights, wanted.adapter)


def _access(operation: Operation) -> Access:
    tries, timeout_s = operation.storage_tries, operation.storage_timeout_s
    return Access(operation.endpoint_url, tries, timeout_s, operation.assume_exclusive)


def _check_places(config: Config, images: str, output: str) -> Access:
    access = _access(config.operation)
    refiners.check_refiner(config.method.refiner)
    check_readable(images, access, "image folder")
    check_writable(Store(output, access))
    return access


def _check_apart(output: str, inputs: Mapping[str, str]) -> None:
    for option, uri in inputs.items():
        if location(uri) == location(output):
            raise RefusedError(f"--output {output} is the folder of {option}: name a folder of its own")


def make_job(request: Request, device: str) -> Job:
    """What the workers need to know. Raises RefusedError where they could not load the model as asked."""
    operation, method = request.config.operation, request.config.method
    output, run = request.stores()
    spec = request.spec
    adapted = request.weights.adapter is not None
    check_usable(spec, Runtime(device, method.dtype, operation.compile), adapted=adapted)
    if request.address is None:  # else the GPUs are other machines', which check for themselves
        check_device(device, method.dtype)
    mask_files = sources.files_root(request.source, request.masks)
    return Job(
        output=output,
        run=run,
        inputs=Inputs(
            images=Store(request.images, request.access),
            masks=None if mask_files is None else Store(mask_files, request.access),
        ),
        method=method,
        weights=request.weights,
        spec=spec,
        refiner=refiners.find(method.refiner),
        input_side=request.load_side,
        threads=operation.threads_per_actor,
        fetch_threads=operation.fetch_threads,
        device=device,
        attempt_log=operation.attempt_log,
        loader=partial(load_model, dtype=method.dtype, compiled=operation.compile, encode_batch=method.encode_batch),
        execution_of=partial(
            execution_class,
            dtype=method.dtype,
            compiled=operation.compile,
            library=spec.extra[1] if spec.extra else "",
        ),
        memory_bytes=operation.worker_memory_mb << 20 if operation.worker_memory_mb else None,
    )
