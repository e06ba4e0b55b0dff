"""What `relabel run` and `relabel plan` were asked to do, checked before any work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jobs.options import absolute, read_config
from pipeline import sources
from pipeline.models.weights import Weights, resolve, with_adapter
from pipeline.refiners import check_refiner
from pipeline.storage import Access, Store
from pipeline.storage.preflight import check_readable, check_writable
from schemas.config import Config

if TYPE_CHECKING:
    from pipeline.job import Request


@dataclass(frozen=True)
class Wanted:
    """What stands on the command line; `overrides` as schemas.config.resolve takes them."""

    masks: str
    output: str
    images: str | None
    source: str | None
    config: str | None
    preset: str
    overrides: Mapping[str, Mapping[str, Any]]
    checkpoint: str | None
    adapter: str | None


def make_request(wanted: Wanted, *, with_weights: bool = True, **how: Any) -> Request:
    """The request with everything looked up and hashed. Raises RefusedError or ConfigError for what cannot work.

    how: further fields of Request. with_weights: False where no model will be loaded, so that none is fetched.
    """
    endpoint_url = wanted.overrides["operation"]["endpoint_url"]
    stated = Access(
        read_config(wanted.config, wanted.preset, wanted.overrides, Access(endpoint_url)).operation.endpoint_url
    )
    check_readable(wanted.masks, stated, "masks")
    source = wanted.source or _known_source(wanted, stated) or sources.detect(wanted.masks, stated, wanted.images)
    images = sources.images_root(source, wanted.images, wanted.masks, stated)
    semantic = sources.parse(source)[0] in sources.SEMANTIC
    base = {"split_regions": True, "exclusive": True} if semantic else None
    config = read_config(wanted.config, wanted.preset, wanted.overrides, Access(endpoint_url), base)
    access = _check(config, images, wanted.output)
    weights = _weights(wanted, config, access) if with_weights else Weights("", "", access)
    hashes = {"weights_sha256": weights.sha256, "adapter_sha256": weights.adapter.sha256 if weights.adapter else ""}
    method = config.method.model_copy(update=hashes)

    from pipeline.job import Request  # Ray takes a second to import

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
    from pipeline.planning.scans import pinned_source

    images = absolute(wanted.images or "")
    return pinned_source(Store(wanted.output, access), images, absolute(wanted.masks)) if wanted.images else None


def _weights(wanted: Wanted, config: Config, access: Access) -> Weights:
    weights = resolve(config.method.model, wanted.checkpoint, access)
    return weights if wanted.adapter is None else with_adapter(weights, wanted.adapter)


def _check(config: Config, images: str, output: str) -> Access:
    """Refuse what cannot work, before any work."""
    operation = config.operation
    access = Access(operation.endpoint_url, operation.storage_tries, operation.storage_timeout_s)
    check_refiner(config.method.refiner)
    check_readable(images, access, "image folder")
    check_writable(Store(output, access))
    return access
