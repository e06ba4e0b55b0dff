"""The folder that travels to a GPU: training data, start weights, wheels of what a bare machine lacks.

    python -m tests.benchmarks.gpu_pack ../shared/data/train ../shared/data/train2 [--output build/gpu-pack]
    python -m tests.benchmarks.gpu_pack --check-returned build/gpu

The pack is a DATA folder of `relabel train-lite`: images (WebP) balanced by source, masks as RLE, and with each mask
four coarse ones: a network's out-of-fold answer, one by colour, one by regions of the image, one drawn. Exit code 1
where a limit is passed: 48 MB for the pack, 64 MiB with the repository, and for what comes back 8 files of 16 MiB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from pipeline.masks.binary import Mask, decode, encode, iou
from pipeline.masks.frames import resize_to_input
from pipeline.models.lite.training.damage import hull, leak, majority, polygon, superpixels
from pipeline.models.lite.training.data import Photo, load_all, part_of, photo_chances
from pipeline.models.lite.training.real_damage import grabcut, two_colours
from tests.benchmarks.gpu_pack_network import out_of_fold

QUALITIES = (75, 65, 55, 45, 35)  # the first that fits
SAMPLED = 16  # every so many images tell how much all will take
MASKS_PER_IMAGE = 4
MIN_MASK_PX, MIN_IOU = 60, 0.35
PACK_BYTES, TRAVEL_BYTES = 48_000_000, 64 << 20  # files travel with headers of their own
RETURNED_FILES, RETURNED_BYTES = 8, 16 << 20
LACKING = ("segment-anything", "pycocotools", "fsspec", "pyyaml")  # on a machine that has torch and its like
WITH_THEIR_NEEDS = ("pydantic",)
PYTHON = "3.12"
WEIGHTS = Path("pipeline/models/weights/lite.safetensors")


class Choice(NamedTuple):
    """`images` photographs of some sources (None: of all), their long side, how many of a fold train the network whose
    answers are carried, and how much more often than others of its size a source is drawn in training.
    """

    images: int = 2600
    side: int = 384
    sources: Sequence[str] | None = None
    network_images: int = 400
    weights: Mapping[str, float] = {}


def make(folders: Sequence[Path], output: Path, choice: Choice, python: str, cache: Path | None) -> None:
    """Write the pack."""
    known = load_all(folders, {"fit", "val"}, cache=cache)
    if unknown := set(choice.sources or ()) - {photo.source for photo in known}:
        sys.exit(f"no photograph is of {', '.join(sorted(unknown))}")
    wanted = [photo for photo in known if choice.sources is None or photo.source in choice.sources]
    photos = [small(photo, choice.side) for photo in balanced(wanted, choice.images)]
    photos = [photo for photo in photos if photo.masks]
    answers = out_of_fold(photos, choice.network_images)
    shutil.rmtree(output, ignore_errors=True)
    (output / "images").mkdir(parents=True)
    truth: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": []}
    for number, (photo, of_photo) in enumerate(zip(photos, answers, strict=True), 1):
        height, width = photo.image.shape[:2]
        part = part_of(photo.name)
        entry = {"id": number, "file_name": f"{number}.webp", "source": photo.source, "part": part}
        weight = choice.weights.get(photo.source, 1.0)
        truth["images"].append({**entry, "height": height, "width": width, "weight": weight})
        rng = np.random.default_rng(number)
        for rle, answer in zip(photo.masks, of_photo, strict=True):
            mask = decode(rle)
            coarse = [encode(kind)["counts"] for kind in four(photo.image, mask, answer, rng)]
            truth["annotations"].append(
                {"id": len(truth["annotations"]) + 1, "image_id": number, "segmentation": rle, "coarse": coarse}
            )
    compact = json.dumps(truth, separators=(",", ":")).encode()
    (output / "gt.json.gz").write_bytes(gzip.compress(compact, mtime=0))
    shutil.copyfile(WEIGHTS, output / "lite.safetensors")
    wheels(output / "wheels", python)
    write_images(photos, output / "images", PACK_BYTES - size_of(output))
    counted = Counter(photo.source for photo in photos)
    print(json.dumps({"images": len(photos), "masks": len(truth["annotations"]), "sources": counted}))


def balanced(photos: list[Photo], images: int) -> list[Photo]:
    """`images` of them, each source by the square root of its size, in an order that repeats."""
    chances = photo_chances(photos)
    chosen = np.random.default_rng(0).choice(len(photos), min(images, len(photos)), replace=False, p=chances)
    return [photos[index] for index in chosen]


def small(photo: Photo, side: int) -> Photo:
    """At a long side of `side` at most, with MASKS_PER_IMAGE, drawn alike, of its masks of at least MIN_MASK_PX."""
    image = photo.image if max(photo.image.shape[:2]) <= side else resize_to_input(photo.image, side)
    size = image.shape[1], image.shape[0]
    masks = [cv2.resize(decode(rle) * np.uint8(255), size, interpolation=cv2.INTER_AREA) > 127 for rle in photo.masks]
    masks = [mask for mask in masks if MIN_MASK_PX <= mask.sum() < 0.95 * mask.size]
    drawn = np.random.default_rng(zlib.crc32(photo.name.encode())).permutation(len(masks))[:MASKS_PER_IMAGE]
    return Photo(photo.name, photo.source, image, tuple(encode(masks[index]) for index in sorted(drawn)))


def four(image: np.ndarray, mask: Mask, answer: Mask, rng: np.random.Generator) -> Iterator[Mask]:
    """A network's answer, one by colour, one by regions, one drawn; the mask itself where none came near it."""
    coloured = [grabcut, two_colours, leak][rng.integers(3)](image, mask, rng)
    regional = [superpixels, superpixels, majority][rng.integers(3)](image, mask, rng)
    drawn = [polygon, hull][rng.integers(2)](mask, rng)
    for coarse in (answer, coloured, regional, drawn):
        yield coarse if iou(coarse, mask) >= MIN_IOU else mask


def write_images(photos: Sequence[Photo], folder: Path, room: int) -> None:
    """All at one quality: the best of QUALITIES that fits into `room` bytes, tried on a sample first."""
    for quality in QUALITIES:
        sample = sum(len(webp(photo, quality)) for photo in photos[::SAMPLED]) * SAMPLED
        if len(photos) > SAMPLED and sample > room * 1.05:
            continue
        encoded = [webp(photo, quality) for photo in photos]
        if sum(map(len, encoded)) <= room:
            for number, data in enumerate(encoded, 1):
                (folder / f"{number}.webp").write_bytes(data)
            return
    sys.exit(f"{len(photos)} images do not fit into {room} bytes at quality {QUALITIES[-1]}: take fewer (--images)")


def webp(photo: Photo, quality: int) -> bytes:
    """The photograph as a file."""
    return cv2.imencode(".webp", photo.image[:, :, ::-1], [cv2.IMWRITE_WEBP_QUALITY, quality])[1].tobytes()


def wheels(folder: Path, python: str) -> None:
    """Of a Python of version `python`, on Linux and x86-64."""
    target = ["--python-version", python, "--platform", "manylinux2014_x86_64", "--dest", str(folder)]
    for words in (["--no-deps", *LACKING], WITH_THEIR_NEEDS):
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:", *target, *words]
        subprocess.run(command, check=True)


def size_of(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def too_large(pack: Path) -> list[str]:
    """Limits that what travels passes."""
    listed = subprocess.run(["git", "ls-files", "-z"], check=True, capture_output=True, text=True).stdout
    repository = sum(Path(name).stat().st_size for name in listed.split("\0") if name and Path(name).exists())
    own = size_of(pack)
    found = []
    if own > PACK_BYTES:
        found.append(f"the pack has {own} bytes, the limit is {PACK_BYTES}")
    if own + repository > TRAVEL_BYTES:
        found.append(f"pack and repository have {own + repository} bytes, the limit is {TRAVEL_BYTES}")
    return found


def too_much_returned(folder: Path) -> list[str]:
    """Limits that what comes back passes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    found = [f"{path} has 16 MiB or more" for path in files if path.stat().st_size >= RETURNED_BYTES]
    if len(files) > RETURNED_FILES:
        found.append(f"{folder} has {len(files)} files, the limit is {RETURNED_FILES}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="*", help="folders with gt.json and images/")
    parser.add_argument("--output", type=Path, default=Path("build/gpu-pack"))
    usual = Choice()
    parser.add_argument("--images", type=int, default=usual.images)
    parser.add_argument("--side", type=int, default=usual.side, help="long side of images, pixels")
    parser.add_argument("--sources", nargs="+", help="only photographs of these (default: all)")
    parser.add_argument("--weights", nargs="+", default=[], metavar="SOURCE=FACTOR", help="drawn more or less often")
    parser.add_argument("--network-images", type=int, default=usual.network_images, help="of a fold, for the network")
    parser.add_argument("--python", default=PYTHON, help=f"version of the machine's (default: {PYTHON})")
    parser.add_argument("--cache", type=Path, help="folder for decoded images")
    parser.add_argument("--check-returned", type=Path, metavar="FOLDER", help="only check what came back")
    options = parser.parse_args()
    if options.check_returned:
        problems = too_much_returned(options.check_returned)
    else:
        if options.data:
            pairs = (pair.split("=") for pair in options.weights)
            weights = {source: float(factor) for source, factor in pairs}
            choice = Choice(options.images, options.side, options.sources, options.network_images, weights)
            make(options.data, options.output, choice, options.python, options.cache)
        problems = too_large(options.output)
        print(json.dumps({"pack_bytes": size_of(options.output)}))
    if problems:
        sys.exit("; ".join(problems))


if __name__ == "__main__":
    main()
