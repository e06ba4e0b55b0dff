"""SOURCES: readers of one input format each.

A new source is one file, one line in SOURCES, one test. The file's function

    def scan(given: SourceInput) -> Iterator[PlannedImage]: ...

turns the masks' URI into PlannedImages, one at a time (`types.py`); it reads annotations, never images. What it cannot
make sense of becomes a planned mask or image that fails later with a reason code: nothing is dropped. The line says
what else is special about the format. A format that can be told by its content also gets a case in `detect.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from pipeline.dataset import open_result
from pipeline.errors import RefusedError
from pipeline.registry import look_up
from pipeline.sources import (
    ade20k,
    box_forms,
    cam,
    cityscapes_polygons,
    class_maps,
    coco,
    coco_panoptic,
    coco_results,
    containers,
    cvat,
    image_folder,
    instances,
    label_studio,
    labelme,
    lvis,
    mmdet,
    open_images,
    parquet,
    png,
    result,
    rle_csv,
    sa1b,
    stacks,
    supervisely,
    voc,
    voc_boxes,
    webdataset,
    yolo,
)
from pipeline.sources.containers import Piece
from pipeline.sources.types import PlannedImage, SourceInput
from pipeline.storage import Access
from pipeline.storage.containers import PARQUET, TAR


@dataclass(frozen=True)
class ByFile:
    """A scan of many files, each of which can be read by itself, wherever that is done: there, the input has no listing
    of the images. suffix, beside: as `containers.find` takes them.
    """

    suffix: str
    beside: Collection[str]
    scan: Callable[[SourceInput, Piece], Iterator[PlannedImage]]

    def __call__(self, given: SourceInput) -> Iterator[PlannedImage]:
        """All of them, in order."""
        for piece in self.pieces(given):
            yield from self.scan(given, piece)

    def pieces(self, given: SourceInput) -> list[Piece]:
        """The files, in order; the coverage is told of all others."""
        return containers.pieces(given, self.suffix, self.beside)


@dataclass(frozen=True)
class Source:
    """One format.

    scan          reads it; a `ByFile` for many files each of which can be read by itself
    files_root    `--masks` -> the folder of mask files that are read again when an image is loaded; None: there are
                  none, the annotations hold the masks
    images_root   (`--masks`, access) -> where the images are when `--images` does not say; None: it must
    parse         checks the options in `--source NAME:key=value,...`, and raises RefusedError; None: it takes none
    semantic      whether these are class maps: unless told otherwise, their masks are refined by regions and do not
                  overlap
    """

    scan: Callable[[SourceInput], Iterator[PlannedImage]]
    files_root: Callable[[str], str] | None = None
    images_root: Callable[[str, Access], str] | None = None
    parse: Callable[[Mapping[str, str]], object] | None = None
    semantic: bool = False


def _beside_the_masks(masks_uri: str, _access: Access) -> str:
    return masks_uri


def _of_the_result(masks_uri: str, access: Access) -> str:
    return str(open_result(masks_uri, access).manifest.images_root)


SOURCES: dict[str, Source] = {
    "coco": Source(coco.scan, parse=coco.parse),
    "coco-results": Source(coco_results.scan, parse=coco_results.parse),
    "coco-panoptic": Source(coco_panoptic.scan, files_root=coco_panoptic.root),
    "lvis": Source(lvis.scan, parse=coco.parse),
    "png": Source(png.scan, files_root=str, parse=png.parse),
    "instances": Source(instances.scan, files_root=str, parse=instances.parse),
    "voc": Source(voc.scan, files_root=voc.root),
    "class-maps": Source(class_maps.scan, files_root=str, parse=class_maps.parse, semantic=True),
    "cam": Source(cam.scan, files_root=str, parse=cam.parse, semantic=True),
    "stacks": Source(stacks.scan, parse=stacks.parse),
    "ade20k": Source(ade20k.scan, files_root=str, parse=ade20k.parse),
    "yolo": Source(yolo.scan),
    "labelme": Source(labelme.scan, images_root=_beside_the_masks),
    "voc-boxes": Source(voc_boxes.scan),
    "cvat": Source(cvat.scan),
    "label-studio": Source(label_studio.scan, parse=label_studio.parse),
    "supervisely": Source(supervisely.scan),
    "cityscapes-polygons": Source(cityscapes_polygons.scan),
    "mmdet": Source(mmdet.scan, parse=mmdet.parse),
    "open-images": Source(open_images.scan, files_root=open_images.root),
    "rle-csv": Source(rle_csv.scan, parse=rle_csv.parse),
    "sa-1b": Source(sa1b.scan, images_root=_beside_the_masks),
    "parquet": Source(
        ByFile(PARQUET, parquet.BESIDE, parquet.scan_piece),
        files_root=parquet.files_root,
        images_root=_beside_the_masks,
        parse=parquet.parse,
    ),
    "webdataset": Source(
        ByFile(TAR, webdataset.BESIDE, webdataset.scan_piece),
        images_root=_beside_the_masks,
        parse=box_forms.parse_alone,
    ),
    "image-folder": Source(
        image_folder.scan,
        files_root=image_folder.root,
        images_root=_beside_the_masks,
        parse=box_forms.parse_alone,
    ),
    "result": Source(result.scan, images_root=_of_the_result),
}


def find(source: str) -> Source:
    """The registered source, given as `parse` takes it. Raises RefusedError for one that does not exist."""
    return SOURCES[parse(source)[0]]


def parse(source: str) -> tuple[str, dict[str, str]]:
    """`NAME` or `NAME:key=value,key=value` -> the source's name and its options. Raises RefusedError."""
    name, _, text = source.partition(":")
    check = look_up(SOURCES, name, "source").parse
    pairs = [pair.partition("=") for pair in text.split(",") if pair]
    if any(not equals for _, equals, _ in pairs) or (pairs and check is None):
        with_options = ", ".join(key for key, known in SOURCES.items() if known.parse)
        raise RefusedError(f"source {source!r}: options are key=value, with commas between, of {with_options}")
    options = {key: value for key, _, value in pairs}
    if check is not None:
        check(options)
    return name, options


def files_root(source: str, masks_uri: str) -> str | None:
    """The folder of the mask files of a source, given as `parse` takes it; None where it has none."""
    root = find(source).files_root
    return None if root is None else root(masks_uri)


def images_root(source: str, images: str | None, masks_uri: str, access: Access) -> str:
    """The image root: what `--images` says, else where the source itself has the images; of a container its folder.

    Raises RefusedError where nothing says.
    """
    own = find(source).images_root
    if images is None and own is not None:
        images = own(masks_uri, access)
    if images is None:
        name, _ = parse(source)
        raise RefusedError(f"--images is missing: masks of the source {name} do not say where their images are")
    return images.rpartition("/")[0] or "." if images.endswith((TAR, PARQUET, *image_folder.METADATA)) else images


def scan(source: str, given: SourceInput) -> Iterator[PlannedImage]:
    """The planned images of one source, given as `parse` takes it. Raises RefusedError for an unknown one."""
    name, options = parse(source)
    return SOURCES[name].scan(replace(given, options=options))


def is_by_file(source: str) -> bool:
    """Whether the files of a source, given as `parse` takes it, can be read by themselves."""
    return isinstance(find(source).scan, ByFile)


def pieces(source: str, given: SourceInput) -> list[Piece] | None:
    """The files of a source that is read file by file, None of another one."""
    name, options = parse(source)
    scans = SOURCES[name].scan
    return scans.pieces(replace(given, options=options)) if isinstance(scans, ByFile) else None


def scan_piece(source: str, given: SourceInput, piece: Piece) -> Iterator[PlannedImage]:
    """The planned images of one of the files of a source that has `pieces`."""
    name, options = parse(source)
    scans = SOURCES[name].scan
    if not isinstance(scans, ByFile):
        raise RefusedError(f"source {name} is read as a whole, not file by file")
    return scans.scan(replace(given, options=options), piece)


def mask_id(image_id: str, source_mask_id: str, occurrence: int) -> str:
    """Stable id of a mask: 32 hex digits; `occurrence` tells apart masks that share a source id in one image."""
    text = f"{image_id}\0{source_mask_id}\0{occurrence}"
    if text.count("\0") > 2:  # else the two could be parted in another place
        text = json.dumps([image_id, source_mask_id, occurrence])
    return hashlib.sha256(text.encode()).hexdigest()[:32]
