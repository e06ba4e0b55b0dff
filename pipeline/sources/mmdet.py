"""mmdetection's predictions: `preds/cat.json` for `cat.jpg`, as its DetInferencer writes them (no pickle).

Lists of the same length: `labels` (numbers from 0), `scores`, `bboxes` [x1, y1, x2, y2], `masks` (COCO RLE). Where
there are no masks, boxes are prompts. Class 0 is a class: category ids are the labels. A mask's source id is its place
in the lists, from 0; its score is carried. Option of this source:
    min_score=S      only predictions of at least this score (all)
mmdetection's `results.segm.json` and detectron2's `coco_instances_results.json` are COCO results (`coco_results.py`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.errors import RefusedError
from pipeline.sources import coco, documents, shapes
from pipeline.sources.annotated import Annotated, Shape
from pipeline.sources.documents import Form
from pipeline.sources.fields import as_float, as_int, as_list, brief_value
from pipeline.sources.pairs import stem
from pipeline.sources.types import PlannedImage, SourceInput

KEYS = ("labels", "scores", "bboxes")


def scan(given: SourceInput) -> Iterator[PlannedImage]:
    """Every image that has a document."""
    lowest = parse(given.options)

    def read(path: str, content: dict[str, Any], given: SourceInput) -> Annotated | None:
        return _read(path, content, given, lowest)

    yield from documents.scan(given, Form("mmdetection", read))


def parse(options: Mapping[str, str]) -> float | None:
    """The lowest score that is taken, None for all. Raises RefusedError."""
    lowest = as_float(options.get("min_score", 0))
    if lowest is None or not options.keys() <= {"min_score"}:
        raise RefusedError(f"source mmdet takes min_score=NUMBER, not {dict(options)}")
    return lowest if options else None


def fits(keys: Mapping[str, Any]) -> bool:
    """Whether a document with these keys is a prediction of mmdetection."""
    return all(name in keys for name in KEYS)


def _read(path: str, content: dict[str, Any], given: SourceInput, lowest: float | None) -> Annotated | None:
    if not all(isinstance(content.get(name), list) for name in KEYS):
        return None
    shapes_of = list(_shapes(path, content, given, lowest))
    return Annotated(
        f"{stem(path)}.jpg", stem(path), None, None, shapes_of, documents.names_of(path, "", given), where=path
    )


def _shapes(path: str, content: Mapping[str, Any], given: SourceInput, lowest: float | None) -> Iterator[Shape]:
    labels, scores, boxes = (content[name] for name in KEYS)
    masks = as_list(content.get("masks"))
    for place in range(max(len(labels), len(scores), len(boxes), len(masks))):
        score, number = as_float(_at(scores, place)), as_int(_at(labels, place))
        if lowest is not None and not (score is not None and score >= lowest):
            given.coverage.ignore(f"{path}, prediction {place}", "a score below min_score", kind="prediction")
            continue
        text, detail = _geometry(_at(masks, place), _at(boxes, place))
        if number is None:
            detail = detail or f"category: {brief_value(_at(labels, place))} is no category id"
        extra = json.dumps({"score": score}) if score is not None else ""
        yield Shape(f"{stem(path)}#{place}", "", text, detail, extra=extra, number=-1 if number is None else number)


def _at(values: list[Any], place: int) -> Any:
    return values[place] if place < len(values) else None


def _geometry(mask: Any, box: Any) -> tuple[str, str]:
    corners = shapes.numbers(as_list(box))
    if mask is None and corners is not None and len(corners) == 4:
        x1, y1, x2, y2 = corners
        return coco.geometry({"bbox": [x1, y1, x2 - x1, y2 - y1]})
    return coco.geometry({"segmentation": mask})
