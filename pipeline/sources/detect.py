"""Which source reads the masks at a URI, by what lies there.

What looks alike is told apart by `--source`: class maps, instance ids and binary masks are all images. A folder that
two formats fit is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

from pipeline.errors import RefusedError
from pipeline.sources import ade20k, cityscapes, contents, coverage, foreign, image_folder, stacks, walks, yolo
from pipeline.sources.label_maps import OF_MAPS
from pipeline.sources.types import IMAGE_SUFFIXES
from pipeline.sources.voc import OBJECTS
from pipeline.storage import Access, Store
from schemas import layout

YOLO_FILES = ("data.yaml", "dataset.yaml")
BY_SUFFIX = {
    ".json": None,
    ".xml": None,
    ".jsonl": None,
    ".csv": None,
    ".parquet": "parquet",
    ".tar": "webdataset",
    ".yaml": "yolo",
    ".yml": "yolo",
}
COMPRESSED = re.compile(r"\.(tar\.\w+|tgz|zip|gz|zst|bz2|xz|7z)$", re.IGNORECASE)
PICKLED = re.compile(r"\.(pkl|pickle|pt|pth)$", re.IGNORECASE)
BY_CONTENT = {".parquet": "parquet", ".tar": "webdataset", ".txt": "yolo", ".npy": "cam", ".npz": "cam"}
"""Of folders: what these files are."""
SAMPLED_TEXTS, SAMPLED_LINES = 8, 20
OF_ONE_IMAGE = (("instances", "labels"), ("instance", "semantic"))
"""Folders beside each other: Mapillary's, KITTI's."""


def detect(masks_uri: str, access: Access | None = None, images_uri: str | None = None) -> str:
    """The source for the masks at a URI. Raises RefusedError where no source reads it, or two do.

    images_uri: the image root, whose images are no masks.
    """
    uri = masks_uri.rstrip("/")
    access = access or Access()
    if COMPRESSED.search(uri) or PICKLED.search(uri):
        why = "pickles can run code" if PICKLED.search(uri) else "a compressed archive cannot be read in place"
        raise RefusedError(f"--masks {masks_uri}: {why}")
    suffix = PurePosixPath(uri).suffix.lower()
    if suffix in BY_SUFFIX:
        return BY_SUFFIX[suffix] or contents.of_file(uri, access, suffix)
    if said := foreign.of_name(uri):
        raise RefusedError(f"--masks {uri}: {said}")
    return _folder(uri, access, images_uri)


def holds(paths: Iterable[str]) -> str:
    """What lies in a folder, in words: `12 .json (a.json), 3 .jpg (b.jpg)`."""
    found: dict[str, list[str]] = {}
    for path in paths:
        found.setdefault(coverage.kind_of(path), []).append(path)
    counted = sorted(found.items(), key=lambda pair: (-len(pair[1]), pair[0]))
    return ", ".join(f"{len(names)} {kind} ({min(names)})" for kind, names in counted[:4]) or "nothing"


def _folder(uri: str, access: Access, images_uri: str | None) -> str:
    store = Store(uri, access)
    if store.exists(layout.CURRENT):
        return "result"
    if store.exists(OBJECTS) or uri.endswith(f"/{OBJECTS}"):
        return "voc"
    if any(store.exists(name) for name in YOLO_FILES) or _has_labels(store):
        return "yolo"
    paths = [path for path in walks.some(store, walks.LOOKED_AT) if not coverage.ignored_by_name(path)]
    own = _without_images(paths, uri, images_uri)
    fitting = _fitting(own, store)
    if images_uri is None and fitting.keys() & {*contents.DOCUMENTS, *contents.XML_ROOTS.values()}:
        fitting.pop("png", None)  # the images, beside their documents
    if len(fitting) > 1:
        sides = " and ".join(f"{name} ({example})" for name, example in fitting.items())
        raise RefusedError(f"--masks {uri} fits two formats, {sides}: say which with --source")
    if not fitting and (said := contents.unread(own, store)):
        raise RefusedError(f"no mask at all in --masks {uri} that is read: {said}")
    return next(iter(fitting), "png")


def _has_labels(store: Store) -> bool:
    """Whether a folder has one of YOLO's labels; others (Mapillary's) keep images under that name."""
    if not store.exists(yolo.LABELS):
        return False
    paths = list(walks.some(Store(f"{store.uri.rstrip('/')}/{yolo.LABELS}", store.access), walks.LOOKED_AT))
    return not any(map(_is_image, paths)) or any(path.lower().endswith(".txt") for path in paths)


def _without_images(paths: Sequence[str], uri: str, images_uri: str | None) -> list[str]:
    """The paths that are no images of `--images`."""
    if not images_uri:
        return list(paths)
    masks, images = walks.location(uri), walks.location(images_uri)
    below = f"{images[len(masks) + 1 :]}/" if images.startswith(f"{masks}/") else None
    known = set(paths)
    return [
        path
        for path in paths
        if not (below is not None and path.startswith(below))
        and not (masks == images and _is_image(path) and not walks.is_mask_among(path, known))
    ]


def _fitting(paths: Sequence[str], store: Store) -> dict[str, str]:
    """The sources that files of a folder fit, each with one of them."""
    found: dict[str, str] = {}
    metadata = next((path for path in paths if image_folder.is_metadata(store, path)), None)
    if metadata is not None:
        return {"image-folder": metadata}
    for path in paths:
        source = BY_CONTENT.get(PurePosixPath(path).suffix.lower())
        if source is None and _is_image(path):
            source = "png"
        if source is not None:
            found.setdefault(source, path)
    for source, path in contents.of_documents(paths, store):
        found.setdefault(source, path)
    if "yolo" in found and not _are_labels([path for path in paths if path.lower().endswith(".txt")], store):
        del found["yolo"]
    return _settled(found, paths, store)


def _settled(found: dict[str, str], paths: Sequence[str], store: Store) -> dict[str, str]:
    """What mask files are, by their names and content; without those that belong to another source."""
    if "open-images" in found:
        found.pop("png", None)  # the masks that it names
    if cityscapes.best_kind(paths, cityscapes.KINDS):
        found.pop("cityscapes-polygons", None)  # its PNGs have the same, and ids
    if "cityscapes-polygons" in found and cityscapes.kind_of(found.get("png", "")):
        del found["png"]  # colours for people
    is_stack = "cam" in found and _is_stack(found["cam"], store)
    names = {"png": _of_images(paths) if "png" in found else "", "cam": "stacks" if is_stack else "cam"}
    return {names.get(name, name): path for name, path in found.items()}


def _of_images(paths: Sequence[str]) -> str:
    """Binary masks and instances are told by their values; class maps by Cityscapes' names, or by a label map."""
    if ade20k.looks_like(frozenset(paths)):
        return "ade20k"
    tops = {path.partition("/")[0] for path in paths}
    if several := next((pair for pair in OF_ONE_IMAGE if tops.issuperset(pair)), None):
        raise RefusedError(
            f"the folder has {' and '.join(several)}, each with masks of the same images: name one of them"
        )
    if any(path in OF_MAPS for path in paths):
        return "class-maps"
    kind = cityscapes.best_kind(paths, cityscapes.KINDS)
    return {None: "png", "instanceIds": "instances"}.get(kind, "class-maps")


def _are_labels(paths: Sequence[str], store: Store) -> bool:
    """Whether text files are YOLO's: of those that tell, half or more. A damaged one speaks for the others' format."""
    told = [_is_label(path, store) for path in [path for path in paths if yolo.beside(path) is None][:SAMPLED_TEXTS]]
    known = [is_label for is_label in told if is_label is not None]
    return bool(known) and 2 * sum(known) >= len(known)


def _is_label(path: str, store: Store) -> bool | None:
    """Whether most lines of a text are of numbers, as YOLO's are; None where there is none, or none long enough."""
    try:
        lines = store.read(path)[: 1 << 16].decode("utf-8-sig", "replace").splitlines()[:SAMPLED_LINES]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    found = [line.split() for line in lines if line.strip()]
    numbers = [words for words in found if all(yolo.loose_float(word) is not None for word in words)]
    if 2 * len(numbers) > len(found):
        return True if any(len(words) >= 5 for words in numbers) else None
    return False if found else None


def _is_stack(path: str, store: Store) -> bool:
    try:
        return stacks.is_stack(store.read(path))
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return False


def _is_image(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES
