"""The JSON files of an output, as frozen models: pointer, manifest, an increment's marker, a retry round.

    Pointer      current.json             which manifest counts, by its hash
    Manifest     manifest.json            a generation: shards, parts and increments by their hashes, the counts
    Marker       marker.json              an increment: counts, and the hashes of its files
    Choice       _COMMITTED, _SUCCESS     which attempt counts
    RetryRound   retries/<k>.json         the images of a retry round

Where they are is `layout.py`'s. What is written here is read by other versions of this code: keys are added, never
renamed; keys that this code does not know are kept. `VERSION` is raised where code that does not know it would misread
an output, and such code refuses it.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.records import SCHEMA_VERSION

VERSION = 4
"""Of the contract, as the pointer has it. 1 had no version in the pointer; 2 had no attempts; 3 had plans of no more
than RANGES hash ranges, and is still written for those.
"""
PLAIN_VERSION = 3

Model = TypeVar("Model", bound="Document")


class ContractError(ValueError):
    """The file is not what it should be; the text says why, in one line."""


class NewerError(ContractError):
    """The file was written by a newer version of this code."""


class Document(BaseModel):
    """A frozen JSON object. Keys that this code does not know are kept.

    newest: the key that holds its version, and the highest that this code knows; None where it has none of its own.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    newest: ClassVar[tuple[str, int] | None] = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return self.model_dump(mode="json")


class Pointer(Document):
    """The only switch: the generation that readers see.

    attempt: of the generation. given_up: shards, and folders of methods, that have been or are about to be removed, and
    whose names are never used again; removals: how often anything was. Paths are relative to the output.
    """

    newest = ("version", VERSION)

    fingerprint: str
    generation: int
    manifest_sha256: str
    version: int = 1
    attempt: str = ""
    given_up: list[str] = []
    removals: int = 0


class Shard(Document):
    """A Parquet file of masks or images. path: relative to the output."""

    path: str
    rows: int
    bytes: int
    sha256: str


class Counts(Document):
    """Images by status, masks by decision, rows of both by reason, masks by tenths of quality ("0.1" to "1.0")."""

    images: dict[str, int] = {}
    decisions: dict[str, int] = {}
    image_reasons: dict[str, int] = {}
    mask_reasons: dict[str, int] = {}
    quality: dict[str, int] = {}

    @property
    def failed(self) -> int:
        """Failed rows: images and masks."""
        return self.images.get("failed", 0) + self.decisions.get("failed", 0)

    @property
    def rows(self) -> int:
        """Images and masks."""
        return sum(self.images.values()) + sum(self.decisions.values())


class ShardGroup(Document):
    """What one shard of masks and one of images were made of. key: a hash of all that they depend on; files: parts."""

    key: str
    execution_classes: list[str]
    counts: Counts
    drift: dict[str, list[int]]
    files: int


class PlannedTotals(Document):
    """The plan at the time of the seal."""

    images: int
    chunks: int


class SealedTotals(Document):
    """What of the plan the generation holds."""

    images: int
    masks: int
    chunks: int


class IncrementHash(Document):
    """An increment that was sealed, and the SHA-256 of its marker."""

    increment: int
    sha256: str


class PartsListing(Document):
    """parts.parquet: how many parts it lists, its own bytes and SHA-256."""

    files: int
    bytes: int
    sha256: str


class Retries(Document):
    """The last retry round of which every part is sealed, and the SHA-256 of every committed round's file."""

    done: int
    sha256: list[str]


class Scanned(Document):
    """The planning pass before the seal. unread: files and entries of the input that it could not use."""

    path: str
    sha256: str
    unread: int


class AppliedOverlay(Document):
    """An overlay that a generation was sealed with. changes: masks that it states."""

    name: str
    path: str
    sha256: str
    changes: int


class Manifest(Document):
    """One generation of one method's results.

    gate: the fields of `config.Gate` as they were then. drift: stability indices of the scores that have drifted from
    what the calibration was fitted to. images_root: where the run found the images.
    """

    newest = ("schema_version", SCHEMA_VERSION)

    schema_version: int
    fingerprint: str
    generation: int
    gate: dict[str, Any]
    gate_digest: str
    calibration_id: str
    calibration_digest: str | None
    drift: dict[str, float]
    images_root: str
    increments: int
    plan: list[IncrementHash]
    execution_classes: list[str]
    planned: PlannedTotals
    sealed: SealedTotals
    counts: Counts
    masks: list[Shard]
    images: list[Shard]
    groups: list[ShardGroup]
    parts: PartsListing
    retries: Retries
    scan: Scanned | None = None  # of outputs that were planned before there was one
    overlays: list[AppliedOverlay] = []
    ranges: int = 0  # the most hash ranges that a file of the plan is one of, where those are more than RANGES

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; without a scan, overlays or finer ranges, there is no such key."""
        absent = ("scan", "overlays", "ranges")
        return {key: value for key, value in super().as_dict().items() if value or key not in absent}

    @property
    def version(self) -> int:
        """The version of the pointer to it."""
        return VERSION if self.ranges else PLAIN_VERSION

    def shards(self, kind: str) -> list[Shard]:
        """kind: masks or images."""
        return {"masks": self.masks, "images": self.images}[kind]

    def says_the_same(self, other: Manifest) -> bool:
        """Whether both are of the same result: keys of groups change when a result is copied."""
        unseen = {"generation": None, "groups": None}
        return {**self.as_dict(), **unseen} == {**other.as_dict(), **unseen}

    def to_json(self) -> bytes:
        """The file: the same manifest gives the same bytes."""
        return json.dumps(self.as_dict(), indent=1, sort_keys=True).encode()


class Marker(Document):
    """A committed increment. sha256: of each of its files, by name. span: the image ids that it is about, hashes from
    the first number up to the second; None for all of them.
    """

    increment: int
    images: int
    masks: int
    chunks: int
    superseded: int
    unchanged: int
    sha256: dict[str, str]
    span: tuple[int, int] | None = None

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; an increment about all images has no such key."""
        return {key: value for key, value in super().as_dict().items() if key != "span" or value}


class Choice(Document):
    """Which attempt counts: created once, beside the attempts. attempt: "" for files of an earlier version, None where
    all were discarded.
    """

    attempt: str | None = ""


class RetryRound(Document):
    """Retry round `round` (from 1): image ids by chunk, in plan order. reasons: what it was restricted to."""

    round: int
    reasons: list[str] | None
    images: dict[str, list[str]]


def sha256(data: bytes) -> str:
    """What files vouch for each other by."""
    return hashlib.sha256(data).hexdigest()


def to_json(document: Document) -> bytes:
    """The file of a pointer, a marker or a retry round."""
    return json.dumps(document.as_dict()).encode()


def parse(model: type[Model], data: bytes) -> Model:
    """A file -> its model. Raises NewerError for a version that this code does not know, else ContractError."""
    try:
        content = json.loads(data)
        _check_version(model, content)
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(step) for step in first["loc"])
        raise ContractError(f"{key}: {first['msg']}" if key else str(first["msg"])) from None
    except ContractError:
        raise
    except (ValueError, RecursionError) as error:
        raise ContractError(f"not valid JSON: {error}") from None


def _check_version(model: type[Document], content: Any) -> None:
    """Before anything else is looked at: a newer version may have other keys."""
    if model.newest is None or not isinstance(content, dict):
        return
    key, known = model.newest
    found = content.get(key, 1)
    if isinstance(found, int) and found > known:
        raise NewerError(f"was written by a newer relabel (its {key} is {found}, this one knows {known}): update it")
