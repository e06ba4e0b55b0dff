"""A configuration from what a user gave: completed by what is registered for its refiner and its model.

`schemas/config.py` knows the keys and their ranges; here they meet the refiners and models that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline import refiners
from pipeline.models import ModelSpec, registry
from pipeline.refiners import PROMPTABLE, REFINERS, Refiner
from pipeline.storage import Access, read_text
from schemas.config import Config, ConfigError, Method, merged, validated

DEFAULTS = Method()
MAX_CONFIG_BYTES = 1 << 20
PUBLISHED_ITERATIONS = 5
"""Of a model that is named and does not say otherwise."""


def read_config(
    uri: str | None,
    preset: str,
    overrides: Mapping[str, Mapping[str, Any]],
    access: Access,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Base of the method, then preset, then the YAML at `uri`, then options. Raises RefusedError or ConfigError."""
    if uri is None:
        return resolve(preset, None, overrides, base)
    text = read_text(uri, access, MAX_CONFIG_BYTES, "configuration")
    try:
        return resolve(preset, text, overrides, base)
    except ConfigError as error:
        raise ConfigError(f"{uri}: {error}" if _is_wrong(text) else str(error)) from None


def _is_wrong(text: str) -> bool:
    """Whether a file is no configuration by itself, whatever the options are."""
    try:
        validated(merged(text=text))
    except ConfigError:
        return True
    return False


def resolve(
    preset: str = "default",
    text: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Config:
    """Base of the method, preset, YAML text, overrides ({"method": {...}, ...}; None values are ignored) -> Config.

    Each wins over the ones before it, and all of them over the defaults of the model and what the preset stands for
    on it. Raises ConfigError or RefusedError with one readable line.
    """
    parts = merged(preset, text, overrides, base)
    return validated({**parts, "method": completed(parts["method"], preset)})


def completed(given: Mapping[str, Any], preset: str) -> dict[str, Any]:
    """The keys of a method, with its model and that model's defaults where they were not given.

    Raises RefusedError for a refiner or a model that does not exist, ConfigError for two that do not go together.
    """
    name, named = str(given.get("refiner", DEFAULTS.refiner)), given.get("model")
    refiner = refiners.find(name)
    spec = registry.find(str(named or own_model(refiner)))
    _check_fit(name, refiner, spec)
    iterations = DEFAULTS.iterations if named is None else PUBLISHED_ITERATIONS
    presets = spec.presets.get(preset, {}) if refiner.views else {}
    return {**presets, "model": spec.name, "iterations": iterations, **spec.defaults, **given}


def own_model(refiner: Refiner) -> str:
    """The model that a refiner goes with where none is named."""
    return DEFAULTS.model if refiner.model == PROMPTABLE else refiner.model


def model_of(method: Method, named: str | None = None) -> str:
    """The model to load for a method: the one `named`, else its refiner's own, else the one that the method says.

    Raises RefusedError or ConfigError as `completed` does.
    """
    refiner = refiners.find(method.refiner)
    name = named or (method.model if refiner.model == PROMPTABLE else refiner.model)
    _check_fit(method.refiner, refiner, registry.find(name))
    return name


def _check_fit(name: str, refiner: Refiner, spec: ModelSpec) -> None:
    if refiner.fits(spec):
        return
    if refiner.model != PROMPTABLE:
        raise ConfigError(
            f"method: refiner {name} goes with model {refiner.model}, not {spec.name}: leave the model out"
        )
    fitting = ", ".join(key for key, known in REFINERS.items() if known.fits(spec))
    raise ConfigError(f"method: model {spec.name} is for refiner {fitting or '(none)'}, not {name}")
