"""A sealed output without a model, its export for an annotation tool, and edits as people make them there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np
from typer.testing import CliRunner

from jobs.cli import app
from pipeline.corrections.bring import Brought, Given, bring
from pipeline.dataset import Result, open_result
from pipeline.exports.driver import export
from pipeline.exports.label_studio import brush_rle
from pipeline.exports.types import Options
from pipeline.masks import binary
from pipeline.storage import Access, Store
from pipeline.storage.lease import unguarded
from tests.pipeline.outputs import SIZE_HW, Output

CORPUS = {0: (4, "a"), 1: (2, "b"), 2: (3, "c"), 3: (1, "d")}
RING = [2, 3, 14, 3, 14, 12, 2, 12]
DRAWN = binary.from_polygons([[float(value) for value in RING]], SIZE_HW)
MOVED, GONE, CROWD, LEFT = "0-0", "0-1", "0-2", "0-3"

Row = dict[str, Any]
Edit = Callable[[Element], None]


def sealed(folder: Path) -> Output:
    """Four images with ten masks, in two chunks that are shards of their own."""
    output = Output(folder / "out", chunk_images=2)
    output.plan({number: (count, ord(salt)) for number, (count, salt) in CORPUS.items()})
    output.refine(output.pending())
    output.seal(shard_bytes=1)
    return output


def exported(output: Output, to: Path, form: str, options: Options | None = None) -> Path:
    """The export's file."""
    export(result(output), Store(str(to)), Store("/photos"), form, options or Options())
    return to / {"cvat": "annotations.xml", "label-studio": "tasks.json", "coco": "instances.json"}[form]


def result(output: Output) -> Result:
    return open_result(output.store.uri)


def rows(output: Output) -> dict[str, Row]:
    """Mask rows by source id."""
    return {row["source_mask_id"]: row for row in result(output).masks().to_pylist()}


def edited(path: Path, edit: Edit) -> Path:
    """The XML, changed."""
    tree = ElementTree.parse(path)
    edit(tree.getroot())
    to = path.with_name("back.xml")
    tree.write(to, encoding="utf-8")
    return to


def of_mask(root: Element, mask_id: str) -> tuple[Element, Element]:
    """The element of a mask, and the image that it is in."""
    for image in root.iter("image"):
        for mask in image:
            if attribute(mask, "mask_id").text == mask_id:
                return mask, image
    raise AssertionError(mask_id)


def attribute(mask: Element, name: str) -> Element:
    return next(one for one in mask.iter("attribute") if one.attrib["name"] == name)


def as_polygon(mask: Element, ring: list[int], **more: str) -> None:
    """Make a mask's element a polygon."""
    points = ";".join(f"{x}.00,{y}.00" for x, y in zip(ring[::2], ring[1::2], strict=True))
    mask.tag = "polygon"
    mask.attrib = {"label": mask.attrib["label"], "source": "manual", "occluded": "0", "points": points, **more}


def polygon(image: Element, label: str, ring: list[int]) -> Element:
    """A new shape, with the empty attributes that CVAT gives it."""
    shape = ElementTree.SubElement(image, "polygon", {"label": label})
    as_polygon(shape, ring)
    for name in ("mask_id", "decision", "quality"):
        ElementTree.SubElement(shape, "attribute", {"name": name}).text = ""
    ElementTree.SubElement(shape, "attribute", {"name": "is_crowd"}).text = "false"
    return shape


AGAIN = re.compile(r"-\d+\.parquet")


def files(output: Output) -> dict[str, bytes]:
    """Shards by path; and the manifest without what tells one generation from another, and without the numbers that
    names have got because they were given up before.
    """
    found = result(output)
    paths = [*found.files("masks"), *found.files("images")]
    content = {AGAIN.sub(".parquet", path): output.store.read(path) for path in paths}
    manifest = {**found.manifest.as_dict(), "generation": None}
    return {**content, "manifest": AGAIN.sub(".parquet", json.dumps(manifest, sort_keys=True)).encode()}


def relabel(*words: str | Path) -> Any:
    return CliRunner().invoke(app, [str(word) for word in words])


def back(output: Output, path: Path, **more: Any) -> Brought:
    return bring(output.store.uri, Given(str(path), **more), Access(), unguarded)


def ids(output: Output) -> dict[str, str]:
    return {source_id: row["mask_id"] for source_id, row in rows(output).items()}


def edit(output: Output, root: Element) -> None:
    """One mask redrawn as a polygon, one deleted, one added, one a crowd."""
    own = ids(output)
    mask, image = of_mask(root, own[MOVED])
    as_polygon(mask, RING)
    image.remove(of_mask(root, own[GONE])[0])
    attribute(of_mask(root, own[CROWD])[0], "is_crowd").text = "true"
    polygon(image, "thing", [20, 2, 28, 2, 28, 9, 20, 9])


def edit_regions(output: Output, given: list[Row]) -> list[Row]:
    """The same edits in the regions of a Label Studio task; the added one is drawn by brush."""
    regions, own = {one["id"]: one for one in given}, ids(output)
    height, width = SIZE_HW
    points = [[100 * x / width, 100 * y / height] for x, y in zip(RING[::2], RING[1::2], strict=True)]
    regions[own[MOVED]] |= {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["thing"]}}
    names = ("original_width", "original_height", "image_rotation", "to_name")
    shared = {key: regions[own[CROWD]][key] for key in names}
    pixels = np.zeros(SIZE_HW, np.uint8)
    pixels[2:9, 20:28] = 1
    new = {"format": "rle", "rle": brush_rle(pixels), "brushlabels": ["thing"]}
    more: list[Row] = [
        {**shared, "id": own[CROWD], "type": "choices", "from_name": "crowd", "value": {"choices": ["crowd"]}},
        {**shared, "id": "x1Yz", "type": "brushlabels", "from_name": "label", "value": new},
    ]
    return [*(one for key, one in regions.items() if key != own[GONE]), *more]


def corrected_once(output: Output, folder: Path) -> tuple[dict[str, str], Path]:
    """After `edit`'s corrections have come home and were sealed: ids from before, and the export that was corrected."""
    own, sent = ids(output), exported(output, folder / "sent", "cvat")
    back(output, edited(sent, lambda root: edit(output, root)), name="one")
    output.seal(shard_bytes=1)
    return own, sent
