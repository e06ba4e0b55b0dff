"""Configuration: three frozen parts with different consequences.

    method     what is computed. Hashed, with METHOD_VERSION, into the fingerprint that names a result's folder.
    gate       which mask is kept. Enters the generation: a change needs a new seal, not a new run of the model.
    operation  how the work is carried out (actors, retries, endpoints). Never hashed, never changes a result.

A YAML file (`relabel run --config`) holds any subset of the three; command-line options win over it. Units stand in
the names, unknown keys are rejected. No credentials live here: they come from the environment or workload identity.

Not here: which models and refiners there are, what goes with what, and where a model's defaults come from
(`pipeline/configuration.py`, which is what commands resolve a configuration with).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from schemas import secrets
from schemas.presets import PRESETS
from schemas.readable import readable
from schemas.recipes import Recipe

METHOD_VERSION = 5
"""Bumped whenever the same configuration computes something else; golden outputs in tests force it."""

UNCHANGED_SINCE = {"none": 3, "grabcut": 3, "dense-crf": 3, "cascadepsp": 3, "torchscript": 3}
"""Refiners that a later METHOD_VERSION did not change, by the version that their results still bear."""


LATER = ("min_region_px", "per_category", "box_trials", "crop_below", "crop_sides")
"""Keys of a method that are hashed and written where they are given alone: others are called what they always were."""


class ConfigError(ValueError):
    """The configuration is wrong; the text names the key, what was given and what is allowed."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Method(_Frozen):
    """What is computed. The hashes are filled in from the files themselves before it is hashed."""

    model: str = Field(default="lite", description="which model refines: a registered name")
    weights_sha256: str = Field(default="", description="of the model's weights; filled in from the file")
    adapter_sha256: str = Field(default="", description="of the adapter; filled in from the file, empty without one")
    refiner: str = Field(default="samrefiner", description="how masks are refined: a registered name")
    use_points: bool = Field(default=True, description="prompt with points inside and outside the coarse mask")
    use_box: bool = Field(default=True, description="prompt with the coarse mask's box")
    use_mask: bool = Field(default=True, description="prompt with the coarse mask under a Gaussian")
    gaussian_form: Literal["code", "paper"] = Field(
        default="code", description="of the mask prompt: as SAMRefiner's code has it, or as its paper does"
    )
    gaussian_gamma: float = Field(default=4.0, gt=0, description="spread of the mask prompt's Gaussian")
    gaussian_strength: float = Field(default=30.0, gt=0, description="omega: logit of the mask prompt at its peak")
    elastic_threshold: float = Field(
        default=0.0, ge=0, lt=1, description="lambda: similarity at which the box grows; 0 keeps the tight box"
    )
    iterations: int = Field(default=1, ge=1, le=100, description="rounds of prompting; a named vit_*: 5")
    crop_ratio: float = Field(
        default=0.0, ge=0, le=10, description="one more look at a crop, so much larger than the mask's box; 0: none"
    )
    crop_below: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="crops only of masks smaller than this share of the image's longer side; 0: all",
    )
    crop_sides: int = Field(
        default=0, ge=0, le=64, description="crops of images of so many of the model's sides, at most; 0: as they are"
    )
    mirror: bool = Field(default=False, description="one more look, at the image's mirror image")
    colour_vote: float = Field(
        default=0.0, ge=0, description="logits that colours add or take (for small objects: the coarse mask); 0: none"
    )
    box_trials: int = Field(
        default=0, ge=0, le=100, description="further answers, to boxes pushed outward at random, that vote; 0: none"
    )
    split_regions: bool = Field(default=False, description="refine each region of a mask by itself, then merge them")
    exclusive: bool = Field(default=False, description="masks of an image do not overlap: the highest logit wins")
    encode_batch: int = Field(default=4, ge=1, description="images per encoder pass; vit_*: 8")
    decode_batch: int = Field(default=32, ge=1, description="prompts per decoder pass, at most; vit_*: 64")
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32",
        description="of the encoder's matrix products (vit_*: bfloat16), or of all of lite",
    )
    max_image_pixels: int = Field(default=120_000_000, gt=0, description="a larger image fails, undecoded")
    min_region_px: int = Field(
        default=0, ge=0, description="islands and holes below it are removed from masks ten times as large; 0: none"
    )
    per_category: dict[str, Recipe] = Field(
        default={}, description="by a category's name what is other for it: keep_coarse, use_points, split_regions, ..."
    )

    @model_validator(mode="after")
    def _some_prompt(self) -> Method:
        for recipe in (Recipe(), *self.per_category.values()):
            own = {"use_points": self.use_points, "use_box": self.use_box, "use_mask": self.use_mask}
            own |= {"box_trials": self.box_trials} | recipe.of_method()
            if not (own["use_points"] or own["use_box"] or own["use_mask"]):
                raise ValueError("at least one of use_points, use_box and use_mask must be true")
            if own["box_trials"] and not own["use_box"]:
                raise ValueError("box_trials push the box that a mask is prompted with: they need use_box")
        if self.exclusive and (self.per_category or self.min_region_px):
            raise ValueError("exclusive masks are refined together: no per_category, and no min_region_px")
        return self

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if value or key not in LATER}


class Gate(_Frozen):
    """When the coarse mask is kept. Every threshold is compared with a score component of the same row."""

    enabled: bool = Field(default=True, description="false: every refined mask is kept, whatever its scores")
    min_coarse_iou: float = Field(default=0.3, ge=0, le=1, description="below it the refined mask has run away")
    max_area_ratio: float = Field(
        default=3.0, gt=1, description="of refined / coarse, or its inverse; above it: ran away"
    )
    min_main_share: float = Field(default=0.8, ge=0, le=1, description="main_share below it: shattered")
    calibration: str = Field(default="packaged", description="packaged, none, or the URI of a calibration file")
    min_quality_gain: float | None = Field(
        default=None, ge=-1, le=1, description="of refined over coarse, to be reached; None: as the calibration says"
    )
    review_below: float = Field(default=0.5, ge=0, le=1, description="estimated quality that a person should look at")


class Operation(_Frozen):
    """How the work is carried out."""

    chunk_images: int = Field(default=64, ge=1, le=4096, description="images per chunk, the unit of retry and commit")
    chunk_images_most: int = Field(
        default=512, ge=1, le=4096, description="images per chunk of an increment of millions, where they are small"
    )
    chunk_decoded_mb: int = Field(
        default=160, ge=1, description="cap of a chunk's pixels, at the size at which they travel to the model"
    )
    actors_min: int | None = Field(default=None, ge=1, description="fewest model actors; by default what fits")
    actors_max: int | None = Field(default=None, ge=1, description="most model actors; by default what fits")
    gpus_per_actor: float | None = Field(
        default=None, ge=0, description="share of a GPU; by default what suits the model and the CPUs, 1 at most"
    )
    threads_per_actor: int = Field(default=1, ge=1, description="CPU threads of torch; part of the execution class")
    compile: bool = Field(
        default=False, description="torch.compile the official encoders, on GPUs; part of the execution class"
    )
    chunks_per_actor: int | None = Field(
        default=None, ge=1, le=64, description="at once; default 2, with a whole GPU 4, with worker_memory_mb 1"
    )
    worker_memory_mb: int | None = Field(
        default=None, ge=256, description="a worker's own memory, at most; an image that needs more fails"
    )
    segment_chunks: int = Field(default=10_000, ge=1, description="chunks that are handed to Ray Data at a time")
    shard_mb: int = Field(default=256, ge=1, description="size of a sealed Parquet shard, about")
    storage_tries: int = Field(default=8, ge=1, description="how often a request to the store is tried")
    storage_timeout_s: float = Field(default=60.0, gt=0, description="of one request to the store")
    endpoint_url: str | None = Field(default=None, description="S3 endpoint of a store other than AWS")
    fetch_threads: int = Field(default=8, ge=1, description="files that a worker fetches at once")
    max_failed_share: float = Field(default=0.0, ge=0, le=1, description="of all rows; above it the exit code is 3")
    max_unread: int = Field(default=0, ge=0, description="files and entries of the input that may be left unread")
    ignore: tuple[str, ...] = Field(default=(), description="patterns of files that are meant to be left unread")
    log_format: Literal["text", "json"] = Field(default="text", description="of what is told on stderr")
    metrics_port: int | None = Field(default=None, ge=1, le=65535, description="serve Prometheus metrics there")
    metrics_linger_s: float = Field(default=60.0, ge=0, description="wait at the end for one more scrape, this long")
    keep_generations: int = Field(
        default=1, ge=1, description="results that keep their shards, the current one included"
    )
    grace_s: float = Field(default=0.0, ge=0, description="how long a replaced result keeps its shards beyond that")
    assume_exclusive: bool = Field(default=False, description="no leases: nothing else writes to the output")
    lease_wait_s: float = Field(default=900.0, ge=0, description="how long to wait for another run on the same output")
    attempt_log: str | None = Field(default=None, description="local file; each chunk started and finished adds a line")

    @model_validator(mode="after")
    def _actors_in_order(self) -> Operation:
        if self.actors_min and self.actors_max and self.actors_min > self.actors_max:
            raise ValueError(f"actors: the minimum {self.actors_min} is above the maximum {self.actors_max}")
        return self


class Config(_Frozen):
    """The whole configuration of a run."""

    method: Method = Method()
    gate: Gate = Gate()
    operation: Operation = Operation()


PARTS: dict[str, type[BaseModel]] = {"method": Method, "gate": Gate, "operation": Operation}

Parts = dict[str, dict[str, Any]]
"""The keys that are given for each of the parts; the others are at their defaults."""


def merged(
    preset: str = "default",
    text: str | None = None,
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    base: Mapping[str, Any] | None = None,
) -> Parts:
    """Base of the method, preset, YAML text, overrides ({"method": {...}, ...}; None values are ignored) -> one.

    Each wins over the ones before it.

    Raises ConfigError with one readable line.
    """
    if preset not in PRESETS:
        raise ConfigError(f"unknown preset {preset!r}; there are {', '.join(PRESETS)}")
    parts: Parts = {"method": {**(base or {}), **PRESETS[preset]}, "gate": {}, "operation": {}}
    for source in (_parse(text), overrides or {}):
        for part, values in source.items():
            if part not in parts:
                raise ConfigError(f"unknown part {part!r}; a configuration has {', '.join(parts)}")
            if not isinstance(values, Mapping):
                raise ConfigError(f"{part}: expected keys and values, found {type(values).__name__}")
            parts[part].update({key: value for key, value in values.items() if value is not None})
    return parts


def validated(parts: Mapping[str, Any]) -> Config:
    """The configuration, its ranges checked. Raises ConfigError with a readable line for each thing that is wrong."""
    if why := secrets.refusal(json.dumps(parts, default=str), "the configuration"):
        raise ConfigError(why)
    try:
        return Config.model_validate(parts)
    except ValidationError as error:
        raise ConfigError(readable(error, PARTS)) from None


def fingerprint(method: Method) -> str:
    """12 hex digits that stand for what is computed."""
    return _fingerprint(method, UNCHANGED_SINCE.get(method.refiner, METHOD_VERSION))


def fingerprints(method: Method) -> set[str]:
    """What this code and all before it call a method: results of theirs lie in folders of these names."""
    return {_fingerprint(method, version) for version in range(1, METHOD_VERSION + 1)}


def _fingerprint(method: Method, version: int) -> str:
    return digest({"method_version": version, **method.model_dump(mode="json")})[:12]


def digest(content: Any) -> str:
    """SHA-256 (hex) of the canonical JSON of `content`."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def parse_config(text: str) -> Config:
    """YAML as `to_yaml` writes it -> Config. Raises ConfigError with one readable line."""
    return validated(_parse(text))


def to_yaml(config: Config) -> str:
    """The resolved configuration as `--config` takes it; `is_whole` tells a damaged copy by its last line."""
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    return text + _checksum_line(text)


def is_whole(text: str) -> bool:
    """Whether the text of `to_yaml` is as it was written."""
    body = text[: text.rfind("\n", 0, -1) + 1]
    return text == body + _checksum_line(body)


def _checksum_line(text: str) -> str:
    return f"# SHA-256 of the lines above: {hashlib.sha256(text.encode()).hexdigest()}\n"


def _parse(text: str | None) -> Mapping[str, Any]:
    if not text:
        return {}
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise ConfigError("aliases (*name) are not read: a few lines of them stand for more than memory holds")
        content = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"not valid YAML: {_where(error)}") from None
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ConfigError(f"expected the keys method, gate, operation; found {type(content).__name__}")
    return content


def _where(error: Exception) -> str:
    """What a parser says, without the name that it has for a text."""
    return " ".join(str(error).replace('in "<unicode string>", ', "at ").split())
