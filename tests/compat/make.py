"""Make the stored results again: `python -m tests.compat.make FOLDER`, with the code whose results are to be kept.

FOLDER, where inputs and outputs are made, is theirs for good: it stands in their manifests as the root of the images.
Run by hand, and only to keep the results of another commit: these tests are of no use once the code under test has made
what it is tested on.
"""

from __future__ import annotations

import filecmp
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

import pipeline
from pipeline.configuration import resolve
from pipeline.models import MODELS
from schemas.config import ConfigError, fingerprint
from schemas.presets import PRESETS
from tests.compat import inputs
from tests.compat.photos import BASE, GROWN, Photo, Write
from tests.compat.stored import DATA, command, image_rows, increments, mask_rows, pack, planned_ids, words
from tests.conftest import ROOT, ray_head


class Source(NamedTuple):
    """A source's input, and the options that name it; `{input}` stands for the folder that it was written to."""

    write: Write
    masks: str
    images: str | None = "{input}/images"
    source: str | None = None
    refiner: str | None = "none"

    @property
    def made(self) -> dict[str, str | None]:
        """As `words` takes it."""
        return {name: getattr(self, name) for name in ("masks", "images", "source", "refiner")}


SOURCES = {
    "coco": Source(inputs.write_coco, "{input}/coarse.json"),
    "coco-results": Source(
        inputs.write_coco_results,
        "{input}/results.json",
        source="coco-results:images={input}/index.json,min_score=0.2",
    ),
    "coco-panoptic": Source(inputs.write_coco_panoptic, "{input}/panoptic.json"),
    "lvis": Source(inputs.write_lvis, "{input}/lvis.json"),
    "png": Source(inputs.write_png, "{input}/masks"),
    "instances": Source(inputs.write_instances, "{input}/ids", source="instances"),
    "voc": Source(inputs.write_voc, "{input}/VOC", "{input}/VOC/JPEGImages"),
    "class-maps": Source(inputs.write_class_maps, "{input}/maps", source="class-maps"),
    "cam": Source(inputs.write_cam, "{input}/cams", source="cam:alpha=2"),
    "yolo": Source(inputs.write_yolo, "{input}"),
    "parquet": Source(inputs.write_parquet, "{input}", None),
    "webdataset": Source(inputs.write_webdataset, "{input}", None),
}
RESULT = Source(inputs.write_coco, "{input}/result")
COCO = SOURCES["coco"]


@dataclass(frozen=True)
class Workshop:
    """Where results are made, and the Ray cluster that makes them."""

    folder: Path
    address: str

    def start(self, name: str, source: Source, photos: Sequence[Photo] = BASE) -> Path:
        """An empty place for a result, with the input."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        source.write(folder / "input", photos)
        return folder

    def grown(self, source: Source) -> Path:
        """The input of the next night."""
        return self.start("grown", source, GROWN) / "input"

    def run(self, made: Source, folder: Path, output: Path, *more: str) -> None:
        """`relabel run` over the input in `folder`, as a user would."""
        line = [*words(made.made, folder, output), "--address", self.address]
        line += ["--actors", "1", "--max-failed-share", "1", *more]
        subprocess.run([sys.executable, "-m", "jobs.cli", "run", *line], cwd=ROOT, check=True, capture_output=True)


def make_source(shop: Workshop, name: str, source: Source) -> None:
    """A whole run, and one image more."""
    folder = shop.start(name, source)
    shop.run(source, folder / "input", folder / "out")
    keep(folder, name, source, shop.grown(source))


def make_result(shop: Workshop) -> None:
    """A run whose input is the output of another one, which has grown by a run of its own."""
    folder = shop.start("result", RESULT)
    shop.run(COCO, folder / "input", folder / "input" / "result")
    shop.run(RESULT, folder / "input", folder / "out")
    grown = shop.grown(RESULT)
    shutil.copytree(folder / "input" / "result", grown / "result")
    shop.run(COCO, grown, grown / "result")
    keep(folder, "result", RESULT, grown)


def make_half_done(shop: Workshop) -> None:
    """Planned, two of three parts there, never sealed: what a run leaves that is killed while it refines."""
    folder = shop.start("half-done", COCO)
    shop.run(COCO, folder / "input", folder / "out", "--chunk-images", "2")
    whole = describe(folder / "out")
    [run] = (folder / "out" / "runs").iterdir()
    for name in ("masks", "images", "seals"):
        shutil.rmtree(run / name)
    sorted((run / "parts").iterdir())[-1].unlink()
    (folder / "out" / "current.json").unlink()
    keep(folder, "half-done", COCO, whole=whole)


def make_limited(shop: Workshop) -> None:
    """Sealed after the first three images of the plan: a chunk is cut, and one was not begun."""
    folder = shop.start("limited", COCO)
    shop.run(COCO, folder / "input", folder / "out", "--chunk-images", "2")
    whole = describe(folder / "out")
    shutil.rmtree(folder / "out")
    shop.run(COCO, folder / "input", folder / "out", "--chunk-images", "2", "--limit", "3")
    keep(folder, "limited", COCO, shop.grown(COCO), whole=whole)


def make_retried(shop: Workshop) -> None:
    """An image that could not be read was mended (in as many bytes: it is not planned again), and tried once more."""
    folder = shop.start("retried", COCO)
    place = folder / "input" / "images" / "a.jpg"
    sound = place.read_bytes()
    place.write_bytes(b"\0" * len(sound))
    shop.run(COCO, folder / "input", folder / "out")
    place.write_bytes(sound)
    shop.run(COCO, folder / "input", folder / "out", "--retry-failed")
    keep(folder, "retried", COCO)


def make_two_generations(shop: Workshop) -> None:
    """Sealed with one gate, then with another; the shards of both are kept. By the default method: it has scores."""
    made = COCO._replace(refiner=None)
    folder = shop.start("two-generations", made)
    shop.run(made, folder / "input", folder / "out", "--keep-generations", "2")
    first = describe(folder / "out")
    command("seal", folder / "out", "--review-below", "1")
    keep(folder, "two-generations", made, first=first)


def make_changed(shop: Workshop) -> None:
    """Two increments: in the second, one image is new and the masks of another have changed."""
    folder = shop.start("changed", COCO)
    shop.run(COCO, folder / "input", folder / "out")
    changed = [photo._replace(masks=photo.masks[:1]) if photo.number == 1 else photo for photo in GROWN]
    inputs.write_coco(folder / "input", changed)
    shop.run(COCO, folder / "input", folder / "out")
    keep(folder, "changed", COCO)


def keep(folder: Path, name: str, made: Source, grown: Path | None = None, **more: dict[str, Any]) -> None:
    """Write what to expect, and pack. grown: the input of the next night, of which the differences are kept."""
    output = folder / "out"
    _forget_this_machine(folder)
    expected: dict[str, Any] = {
        "code": _code(),
        "pyarrow": pa.__version__,
        "made": made.made,
        "increments": increments(output),
        "planned": planned_ids(output),
        **({"result": describe(output)} if (output / "current.json").exists() else {}),
        **more,
    }
    if grown is not None:
        _forget_this_machine(grown)
        _lay_apart(folder / "input", grown, folder / "grow")
        expected["grown"] = _new_ids(made, grown, folder.parent / "plan", set(expected["planned"]))
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "expected.json").write_text(text, encoding="utf-8")
    pack(folder, DATA / f"{name}.tar.gz")


def describe(output: Path) -> dict[str, Any]:
    """What stands in a result: rows, and the hashes of its shards in the order of the manifest."""
    result = pipeline.open(str(output))
    return {
        "masks": mask_rows(output),
        "images": image_rows(output),
        "shards": {
            kind: [hashlib.sha256((output / path).read_bytes()).hexdigest() for path in result.files(kind)]
            for kind in ("masks", "images")
        },
    }


BEFORE: dict[str, tuple[str, dict[str, Any]]] = {"best-before": ("best", {"crop_below": 0.0, "crop_sides": 0})}
"""Presets that were changed, and the keys by which one has them as they were: their results go on."""


def fingerprints() -> dict[str, str]:
    """Of each preset with each model and each refiner that does without one: `preset model refiner` -> fingerprint.

    With weights of no hash: the fingerprint of the method's fields alone.
    """
    found = {}
    for name, (preset, given) in {**{name: (name, {}) for name in PRESETS}, **BEFORE}.items():
        for model in MODELS:
            for refiner in ("samrefiner", "sam-box", "none", "grabcut", "dense-crf", "cascadepsp", "torchscript"):
                try:
                    method = resolve(preset, None, {"method": {**given, "model": model, "refiner": refiner}}).method
                except ConfigError:
                    continue  # these two do not go together
                found[f"{name} {model} {refiner}"] = fingerprint(method)
    return found


def _new_ids(made: Source, grown: Path, output: Path, known: set[str]) -> dict[str, list[str]]:
    """Ids of the masks of the images that only the grown input has."""
    shutil.rmtree(output, ignore_errors=True)
    command("plan", *words(made.made, grown, output))
    return {image: ids for image, ids in planned_ids(output).items() if image not in known}


def _lay_apart(before: Path, after: Path, difference: Path) -> None:
    """Copy the files of `after` that `before` lacks or has otherwise."""
    for file in (file for file in after.rglob("*") if file.is_file()):
        name = file.relative_to(after)
        if not ((before / name).exists() and filecmp.cmp(before / name, file, shallow=False)):
            (difference / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, difference / name)


def _forget_this_machine(folder: Path) -> None:
    """Leases were released, and who held them is nobody's business."""
    for path in folder.rglob("leases/*.json"):
        held = json.loads(path.read_text())
        path.write_text(json.dumps({**held, "host": "another machine", "name": "another"}))


def _code() -> str:
    """The commit that last changed the code."""
    line = ["git", "log", "-1", "--format=%h", "--", "pipeline", "jobs", "schemas"]
    return subprocess.run(line, cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main(folder: Path) -> None:
    DATA.mkdir(exist_ok=True)
    text = json.dumps(fingerprints(), indent=1, sort_keys=True)
    (DATA / "fingerprints.json").write_text(f"{text}\n")
    with ray_head() as head:
        shop = Workshop(folder.resolve(), head.address)
        for name, source in SOURCES.items():
            make_source(shop, name, source)
        for make in (make_result, make_half_done, make_limited, make_retried, make_two_generations, make_changed):
            make(shop)
    for path in sorted(DATA.iterdir()):
        print(f"{path.stat().st_size:8d} {path.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
