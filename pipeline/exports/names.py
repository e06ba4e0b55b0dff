"""Names of the files that an export writes for its images: never the same for two, on any file system.

A file is called as its image is, with another suffix. It is renamed where that cannot be: control characters and
backslashes become `_`, a part `..` becomes `__`, what is too long is cut; and where two images would have one file
(`a.jpg` and `a.png`, `./a.jpg` and `a.jpg`, `A.jpg` and `a.jpg` where a file system takes these for one), each of them
gets a part of the hash of its id at its end. `renamed.jsonl` names every file that was renamed.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipeline.decoding.raster import SUFFIXES
from pipeline.storage.containers import MARK, split_member

MAX_PART_BYTES = 200  # file systems take 255; suffix, hash and a temporary name go on top
MAX_PATH_BYTES = 800  # S3 takes 1024
HASH_CHARACTERS = 12

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\\\ud800-\udfff]")


@dataclass(frozen=True)
class Names:
    """The file names of one export.

    shared: keys of stems that do not belong to one image alone; salt: makes the renamed files differ from all others.
    """

    shared: frozenset[int] = frozenset()
    salt: int = 0

    def stem(self, path: str, image_id: str) -> str:
        """The name, without a suffix, of what an image of this path has in the export; relative, with folders."""
        stem = split_suffix(clean(path, image_id))[0]
        return f"{stem}-{_hash(f'{self.salt}:{image_id}')}" if key(stem) in self.shared else stem


def in_folders(uri: str) -> str:
    """The path of an image; a container is a folder."""
    return uri.replace(MARK, "/") if split_member(uri) else uri


def split_suffix(path: str) -> tuple[str, str]:
    """`folder/IMG.1` and `.jpg` for `folder/IMG.1.jpg`; only suffixes of images are one."""
    suffix = PurePosixPath(path).suffix
    return (path.removesuffix(suffix), suffix) if suffix.lower() in SUFFIXES else (path, "")


def clean(path: str, image_id: str) -> str:
    """A relative path that every store takes: the same path, but for what the module's docstring names."""
    parts = [_part(part) for part in path.split("/") if part not in ("", ".")]
    cleaned = "/".join(parts)
    if not parts or len(cleaned.encode()) > MAX_PATH_BYTES:
        return f"image-{_hash(image_id)}{split_suffix(path)[1]}"
    return cleaned


def key(stem: str) -> int:
    """64 bits, the same for stems that some file system or format takes for one.

    Folders called `images` count as `images_`, as which YOLO has them.
    """
    folders = in_folders(stem).split("/")
    plain = "/".join("images_" if part == "images" else part for part in folders)
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFD", plain).casefold())
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "big", signed=True)


def folders_like_files(path: str) -> Iterable[str]:
    """Stems of the folders of a path that are called as a file might be: `a.jpg` beside `a.jpg/b.jpg`."""
    parts = path.split("/")[:-1]
    for depth, part in enumerate(parts, 1):
        stem, suffix = split_suffix(part) if "." in part else (part, "")
        if suffix:
            yield "/".join([*parts[: depth - 1], stem])


def _part(part: str) -> str:
    safe = "__" if part == ".." else _UNSAFE.sub("_", part)
    if len(safe.encode()) <= MAX_PART_BYTES:
        return safe
    stem, suffix = split_suffix(safe)
    kept = stem.encode()[: MAX_PART_BYTES - HASH_CHARACTERS - len(suffix) - 1].decode(errors="ignore")
    return f"{kept}-{_hash(part)}{suffix}"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:HASH_CHARACTERS]
