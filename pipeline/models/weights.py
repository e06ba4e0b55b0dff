"""Weights as files: where they come from, what they hash to, where a node keeps them. No torch here.

A driver resolves a checkpoint once (`resolve`), which yields its SHA-256; workers fetch the same content by that hash
(`local_path`), once per node, into `$RELABEL_CACHE` or `~/.cache/relabel`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.extras import require
from pipeline.models import folders
from pipeline.models.ensemble import hash_together, shared_out
from pipeline.models.registry import MODELS, PACKAGED, find
from pipeline.storage import Access, brief
from pipeline.storage.backoff import STORE_ERRORS, is_failure, retried
from pipeline.storage.file_systems import connect

LITE_WEIGHTS = Path(__file__).parent / "weights" / "lite.safetensors"
BLOCK_BYTES = 1 << 24
ADAPTER_FORMAT = "relabel-iou-adapter-1"
ADAPTER_BYTES = 1 << 26  # of an adapter, at most; those of ViT-H's head are about 30 kB


@dataclass(frozen=True)
class Weights:
    """A checkpoint: its URI (PACKAGED for the one that comes along) and the SHA-256 of its content.

    adapter: of the IoU head (adapter.py), to be merged into the model when it is loaded. folder: see Checkpoint.
    members: of models that refine together, each one's; `uri` is empty then.
    """

    uri: str
    sha256: str
    access: Access
    adapter: Weights | None = None
    folder: tuple[str, ...] = ()
    members: tuple[Weights, ...] = ()

    @property
    def readable(self) -> str | tuple[str, ...]:
        """Where a folder's small files can be read: this node's copy if it has one, else the URI. Of members, all."""
        if self.members:
            return tuple(str(one.readable) for one in self.members)
        copy = _cached(self.sha256, self.uri, self.folder)
        return str(copy) if self.folder and copy.exists() else self.uri


def resolve(model: str, checkpoint: str | Sequence[str] | None, access: Access) -> Weights:
    """The weights of a model, fetched and hashed. Raises RefusedError for an unknown model or unusable checkpoint.

    Of models that refine together (`a+b`), each one's: `checkpoint` has them in that order.

    A file that bears an official name must have the published hash; other files (fine-tuned ones) are taken as such.
    """
    spec, given = find(model), [checkpoint] if isinstance(checkpoint, str) else list(checkpoint or ())
    shared = shared_out(spec.members or [spec], given) if given else [None] * max(1, len(spec.members))
    if spec.members:
        each = [resolve(member.name, uri, access) for member, uri in zip(spec.members, shared, strict=True)]
        return Weights("", hash_together([one.sha256 for one in each]), access, members=tuple(each))
    [checkpoint] = shared
    wants = spec.checkpoint
    if wants is None:
        return Weights("", "", access)
    if spec.extra:
        require(module=spec.extra[1], extra=spec.extra[0], what=f"model {model}")
    checkpoint = checkpoint or wants.packaged
    if not checkpoint:
        raise RefusedError(f"model {model} needs --checkpoint: {wants.wanted}")
    fetched = _fetch(checkpoint, access, wants.folder)
    sha256 = hash_weights(fetched, wants.folder)
    _check_published(checkpoint, sha256)
    _keep(fetched, sha256, checkpoint, wants.folder)
    return Weights(checkpoint, sha256, access, folder=wants.folder)


def _check_published(uri: str, sha256: str) -> None:
    """Raise RefusedError where a file bears the name of a published one and is not that file."""
    for file in (spec.checkpoint for spec in MODELS.values() if spec.checkpoint):
        if file.sha256 and file.file_name == PurePosixPath(uri).name and file.sha256 != sha256:
            raise RefusedError(f"{uri} is damaged: its SHA-256 is {sha256}, the published one {file.sha256}")


def with_adapter(weights: Weights, uri: str) -> Weights:
    """`weights` with the adapter at `uri`, fetched and hashed. Raises RefusedError when it was made for others."""
    fetched = _fetch(uri, weights.access)
    sha256 = hash_file(fetched)
    check_adapter(fetched.read_bytes() if fetched.stat().st_size <= ADAPTER_BYTES else b"", weights.sha256, uri)
    _keep(fetched, sha256, uri)
    return replace(weights, adapter=Weights(uri, sha256, weights.access))


def check_adapter(data: bytes, base_sha256: str, name: str) -> None:
    """Raise RefusedError unless a file's content is an adapter of the weights with that hash."""
    metadata = adapter_metadata(data)
    if metadata.get("format") != ADAPTER_FORMAT:
        raise RefusedError(f"{name} is not an adapter; `relabel adapt` makes one")
    if metadata.get("base_sha256") != base_sha256:
        made_for = f"{metadata.get('model')} with weights {str(metadata.get('base_sha256'))[:12]}"
        raise RefusedError(f"the adapter {name} was made for {made_for}, not for weights {base_sha256[:12]}")


def adapter_metadata(data: bytes) -> dict[str, str]:
    """What a safetensors file says of itself; empty for any other file."""
    try:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length]) if 0 < length <= len(data) - 8 else {}
        metadata = header.get("__metadata__") or {}
        return {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, RecursionError, AttributeError):
        return {}


def local_path(weights: Weights) -> Path:
    """The weights as a file, or folder, on this node, the content checked. Raises RefusedError when it is not what was
    resolved.
    """
    cached = _cached(weights.sha256, weights.uri, weights.folder)
    if cached.exists():
        return cached
    fetched = _fetch(weights.uri, weights.access, weights.folder)
    found = hash_weights(fetched, weights.folder)
    if found != weights.sha256:
        raise RefusedError(f"{weights.uri} changed: its SHA-256 is {found}, the run began with {weights.sha256}")
    return _keep(fetched, found, weights.uri, weights.folder)


def hash_weights(path: Path, folder: tuple[str, ...] = ()) -> str:
    """SHA-256 (hex) of the weights at `path`; of a folder, its manifest's."""
    return folders.hash_folder(path, folder) if folder else hash_file(path)


def hash_file(path: Path) -> str:
    """SHA-256 (hex) of the file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def cache_folder() -> Path:
    """Where this node keeps weights."""
    return Path(os.environ.get("RELABEL_CACHE") or Path.home() / ".cache" / "relabel")


def _fetch(uri: str, access: Access, folder: tuple[str, ...] = ()) -> Path:
    """A local path with the content of `uri`: the file or folder itself, or a temporary copy in the cache."""
    uri = str(LITE_WEIGHTS) if uri == PACKAGED else uri
    found = _fetch_any(uri, access, folder)
    if folder:
        folders.check_folder(found, folder, uri)
    return found


def _fetch_any(uri: str, access: Access, folder: tuple[str, ...]) -> Path:
    temporary = cache_folder() / f".tmp-{uuid.uuid4().hex}"
    try:
        if folder and uri.startswith("hf://"):
            folders.download_from_hub(uri, folder, temporary)
            return temporary
        fs, path = connect(uri, access.endpoint_url, access.timeout_s)
        if _is_local(fs):
            if not (Path(path).is_dir() if folder else Path(path).is_file()):
                raise RefusedError(f"the checkpoint {uri} does not exist{', or is no folder' if folder else ''}")
            return Path(path)
        temporary.parent.mkdir(parents=True, exist_ok=True)
        if folder:
            folders.download(fs, path, folder, temporary, access.tries)
        else:
            retried(lambda: _download(fs, path, temporary), access.tries)
    except RefusedError:
        raise
    except FileNotFoundError:
        raise RefusedError(f"the checkpoint {uri} does not exist") from None
    except Exception as error:
        if not is_failure(error) and not isinstance(error, STORE_ERRORS):
            raise
        raise RefusedError(f"cannot read the checkpoint {uri}: {brief(error)}") from None
    return temporary


def _download(fs: Any, path: str, target: Path) -> None:
    with fs.open(path, "rb") as source, target.open("wb") as sink:
        shutil.copyfileobj(source, sink, BLOCK_BYTES)


def _keep(fetched: Path, sha256: str, uri: str, folder: tuple[str, ...] = ()) -> Path:
    """Move a download to its place in the cache; a local file, or folder, stays where it is."""
    if fetched.parent != cache_folder() or not fetched.name.startswith(".tmp-"):
        return fetched
    place = _cached(sha256, uri, folder)
    if folder and place.exists():  # another process of this node was faster
        shutil.rmtree(fetched)
        return place
    return fetched.replace(place)


def _cached(sha256: str, uri: str, folder: tuple[str, ...] = ()) -> Path:
    return cache_folder() / (sha256 if folder else f"{sha256}{PurePosixPath(uri).suffix}")


def _is_local(fs: Any) -> bool:
    return "file" in ((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)
