"""Checkpoints that are folders, as `save_pretrained` writes them: which files count, where they come from, what they
hash to. No torch here.

Only the files that a model is made of are fetched, hashed and shown to the library that loads it, so that nothing else
in a folder can have a say: no pickle, no code. A folder's SHA-256 is that of its manifest: its files' names and hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import RefusedError
from pipeline.extras import require
from pipeline.storage import brief
from pipeline.storage.backoff import retried

CONFIG, INDEX = "config.json", "model.safetensors.index.json"
PRETRAINED = (
    CONFIG,
    "preprocessor_config.json",
    "processor_config.json",
    INDEX,
    "model.safetensors",
    "model-*-of-*.safetensors",
)
"""Names and patterns of the files that a model of transformers is loaded from."""

HUB = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?/?")
MAX_JSON_BYTES = 1 << 26
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack")


def members(folder: Path, names: Sequence[str]) -> list[Path]:
    """The files of a folder that count, by name. names: as PRETRAINED."""
    return [path for path in sorted(folder.iterdir()) if _counts(path.name, names) and path.is_file()]


def hash_folder(folder: Path, names: Sequence[str]) -> str:
    """SHA-256 (hex) of the folder's manifest."""
    manifest = {path.name: _hash(path) for path in members(folder, names)}
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def check_folder(folder: Path, names: Sequence[str], uri: str) -> None:
    """Raise RefusedError for a folder that holds no model, whose weights are pickles, or whose files are not whole."""
    found = [path.name for path in members(folder, names)]
    if CONFIG not in found:
        raise RefusedError(f"{uri} has no {CONFIG}: give a folder as save_pretrained writes it")
    weights = [name for name in found if name.endswith(".safetensors")]
    if not weights:
        pickled = [path.name for path in folder.iterdir() if path.suffix in PICKLES]
        why = f"{pickled[0]} may hold code and is not read" if pickled else "it holds no weights"
        raise RefusedError(f"{uri} has no safetensors ({why}): save the model with safe_serialization=True")
    for name in weights:
        _check_whole(folder / name, uri)
    if INDEX in found:
        missing = _indexed(folder / INDEX, uri) - set(weights)
        if missing:
            raise RefusedError(f"{uri} is not whole: {INDEX} names {min(missing)}, which is not there")


def read_json(path: Path, uri: str) -> dict[str, Any]:
    """A JSON object. Raises RefusedError for any other file. uri: of the folder, for the message."""
    try:
        content = json.loads(path.read_bytes()) if path.stat().st_size <= MAX_JSON_BYTES else None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise RefusedError(f"{path.name} of {uri} is not a JSON object")
    return content


@contextmanager
def alone(folder: Path, names: Sequence[str]) -> Iterator[Path]:
    """A temporary folder that holds the files that count, and nothing else."""
    with tempfile.TemporaryDirectory(prefix="relabel-") as temporary:
        for path in members(folder, names):
            (Path(temporary) / path.name).symlink_to(path.resolve())
        yield Path(temporary)


def download(fs: Any, folder: str, names: Sequence[str], target: Path, tries: int) -> None:
    """The files of a remote folder that count, into `target`, each with its own tries."""
    listed = retried(lambda: fs.ls(folder, detail=False), tries)
    target.mkdir()
    for path in listed:
        name = PurePosixPath(path).name
        if _counts(name, names):
            retried(lambda path=path, name=name: fs.get_file(path, str(target / name)), tries)  # type: ignore[misc]


def download_from_hub(uri: str, names: Sequence[str], target: Path) -> None:
    """The files of a repository that count, `hf://owner/name` or `hf://owner/name@revision`, into `target`.

    HF_TOKEN and HF_ENDPOINT are heeded. Raises RefusedError for what cannot be had.
    """
    named = HUB.fullmatch(uri)
    if named is None:
        raise RefusedError(f"{uri} names no repository: hf://owner/name, or hf://owner/name@revision")
    require(module="huggingface_hub", extra="hf", what=f"the checkpoint {uri}")

    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        snapshot_download(
            named["repository"],
            revision=named["revision"],
            local_dir=target,
            allow_patterns=list(names),
            endpoint=os.environ.get("HF_ENDPOINT"),
        )
    except GatedRepoError:
        raise RefusedError(
            f"{uri} is gated: accept its terms on its page, and set HF_TOKEN to a token of yours"
        ) from None
    except RepositoryNotFoundError:
        raise RefusedError(
            f"{uri} does not exist, or is private: then set HF_TOKEN to a token that may read it"
        ) from None
    except RevisionNotFoundError:
        raise RefusedError(f"{uri}: the repository has no such revision") from None
    except Exception as error:  # of several HTTP libraries, by what is installed
        raise RefusedError(
            f"cannot fetch {uri}: {brief(error)}; without the hub, give the folder of a copy as --checkpoint"
        ) from None
    shutil.rmtree(target / ".cache", ignore_errors=True)


def _counts(name: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in names)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_whole(path: Path, uri: str) -> None:
    """Raise RefusedError unless a safetensors file is as long as its header says."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length)) if length < min(size, MAX_JSON_BYTES) else {}
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = bool(ends) and size == 8 + length + max(ends)
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
        whole = False
    if not whole:
        raise RefusedError(f"{path.name} of {uri} is damaged: it is not a whole safetensors file")


def _indexed(path: Path, uri: str) -> set[str]:
    names = read_json(path, uri).get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise RefusedError(f"{INDEX} of {uri} has no weight_map")
    return set(names.values())
