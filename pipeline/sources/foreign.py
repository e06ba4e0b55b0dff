"""Formats of well-known tools that no source reads: what they are called, and what to do. Pure.

Told where nothing else fits, in place of a list of all that is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pipeline.sources.fields import as_float, as_list

Keys = Mapping[str, Any]
"""Of a JSON document: its keys with their values, of lists the first entry; of a list "" with its first entry."""

AS_COCO = "export or convert it to COCO JSON"
AS_IMAGES = "save the masks as PNG, or as .npy or .npz"


def _has(*names: str) -> Callable[[Keys], bool]:
    return lambda keys: keys.keys() >= {*names}


def _in_list(*names: str) -> Callable[[Keys], bool]:
    return lambda keys: _entry(keys).keys() >= {*names}


def _entry(keys: Keys) -> Keys:
    first = keys.get("")
    return first if isinstance(first, Mapping) else {}


def _is_via(keys: Keys) -> bool:
    return "_via_img_metadata" in keys or any(
        isinstance(value, Mapping) and value.keys() >= {"filename", "regions"} for value in keys.values()
    )


def _is_of_labelbox(keys: Keys) -> bool:
    one = _entry(keys) or keys
    return one.keys() >= {"data_row", "projects"} or one.keys() >= {"Labeled Data", "Label"}


def _is_darwin(keys: Keys) -> bool:
    item = keys.get("item") or keys.get("image")
    return "annotations" in keys and isinstance(item, Mapping) and bool(item.keys() & {"slots", "filename"})


def _is_create_ml(keys: Keys) -> bool:
    inner = [one for one in as_list(_entry(keys).get("annotations")) if isinstance(one, Mapping)]
    return "image" in _entry(keys) and any("coordinates" in one for one in inner)


def _is_of_sam(keys: Keys) -> bool:
    return _in_list("segmentation", "predicted_iou")(keys) and "image_id" not in _entry(keys)


JSON: tuple[tuple[str, Callable[[Keys], bool], str], ...] = (
    ("a project of VGG's VIA", _is_via, AS_COCO),
    ("an export of Labelbox", _is_of_labelbox, AS_COCO),
    ("V7's Darwin JSON", _is_darwin, "export it as COCO"),
    ("CreateML's JSON", _is_create_ml, AS_COCO),
    ("a file of Scalabel or BDD100K", _in_list("name", "labels"), AS_COCO),
    ("a file of Scalabel or BDD100K", _has("frames", "config"), AS_COCO),
    ("SuperAnnotate's JSON", _has("metadata", "instances"), AS_COCO),
    ("a project of VoTT", _has("assets"), AS_COCO),
    ("a dataset of FiftyOne", _has("classes", "labels"), AS_COCO),
    ("a dataset of FiftyOne", _has("samples"), AS_COCO),
    ("Datumaro's JSON", _has("items", "categories"), "export it as COCO"),
    ("a release of Segments.ai", _has("dataset", "name"), "export it as COCO or COCO panoptic"),
    ("an export of Hasty", _has("images", "label_classes"), AS_COCO),
    ("YouTube-VIS JSON of videos", _has("videos", "annotations"), "write each frame's masks as COCO JSON"),
    ("SA-V's masklets of a video", _has("masklet"), "write each frame's masks as COCO JSON"),
    ("ISAT's JSON", _has("info", "objects"), AS_COCO),
    ("EISeg's JSON", _in_list("labelIdx", "points"), AS_COCO),
    ("an export of Kili", _in_list("externalId", "labels"), AS_COCO),
    ("an export of Encord", _in_list("data_title", "data_units"), AS_COCO),
    ("GeoJSON", _has("type", "features"), "draw its polygons in pixels of their images, as COCO JSON"),
    ("a list of detectron2's dataset dicts", _in_list("file_name", "annotations"), AS_COCO),
    (
        "what SAM's automatic mask generator gives for one image",
        _is_of_sam,
        'write it as SA-1B does: {"image": {"file_name": ...}, "annotations": [...]}',
    ),
)
LINES: tuple[tuple[str, Callable[[list[str]], bool], str], ...] = (
    ("labels of KITTI's detection", lambda words: len(words) in (15, 16) and _are_numbers(words[1:]), AS_COCO),
    ("labels of DOTA", lambda words: len(words) in (9, 10) and _are_numbers(words[:8]), AS_COCO),
    ("labels with commas", lambda words: len(words) == 1 and words[0].count(",") >= 4, "YOLO's have spaces"),
)
TABLES = (("a table of VGG's VIA", {"filename", "region_shape_attributes"}, AS_COCO),)
SUFFIXES = (
    ((".ndjson",), "lines of JSON, as Labelbox exports them", AS_COCO),
    (
        (".nii", ".nii.gz", ".nrrd", ".mha", ".dcm"),
        "medical volumes",
        "save each slice's mask as PNG, or as .npy or .npz",
    ),
    ((".mat", ".h5", ".hdf5"), "arrays of MATLAB or HDF5", AS_IMAGES),
    ((".pkl", ".pickle", ".pt", ".pth"), "pickles (they can run code)", f"{AS_IMAGES}, or as COCO JSON"),
    ((".tfrecord", ".tfrecords"), "records of TensorFlow", "write them as WebDataset tars or Parquet"),
    ((".arrow",), "Arrow files of Hugging Face", "write them as Parquet (`dataset.to_parquet`)"),
    ((".mdb",), "an LMDB database", "write it as WebDataset tars or Parquet"),
    ((".zip", ".tar.gz", ".tgz", ".7z"), "compressed archives (they cannot be read in place)", "unpack them"),
    ((".geojson",), "GeoJSON", "draw its polygons in pixels of their images, as COCO JSON"),
)


def of_json(keys: Keys) -> str:
    """What a document is and what to do, "" where it is nothing that is known."""
    return next((_said(what, advice) for what, fits, advice in JSON if fits(keys)), "")


def of_lines(lines: Iterable[str]) -> str:
    """As `of_json`, of a text file's lines."""
    found = (line.split() for line in lines)
    first = next((words for words in found if words and not words[0].startswith(("imagesource:", "gsd:"))), [])
    return next((_said(what, advice) for what, fits, advice in LINES if fits(first)), "")


def of_columns(names: Iterable[str]) -> str:
    """As `of_json`, of a CSV file's columns."""
    known = {name.strip() for name in names}
    return next((_said(what, advice) for what, wanted, advice in TABLES if wanted <= known), "")


def of_name(path: str) -> str:
    """As `of_json`, of a file's name."""
    lower = path.lower()
    return next((_said(what, advice) for suffixes, what, advice in SUFFIXES if lower.endswith(suffixes)), "")


def _are_numbers(words: list[str]) -> bool:
    return all(as_float(word) is not None for word in words)


def _said(what: str, advice: str) -> str:
    return f"{what}, which no source reads: {advice}"
