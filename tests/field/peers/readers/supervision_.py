"""supervision: COCO and YOLO."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import supervision
from decoded import Decoded, main


def read(form: str, images: str, annotations: str, data_yaml: str = "") -> Iterator[Decoded]:
    if form == "coco":
        found = supervision.DetectionDataset.from_coco(images, annotations, force_masks=True)
    else:
        found = supervision.DetectionDataset.from_yolo(images, annotations, data_yaml, force_masks=True)
    for path, _, detections in found:
        for mask, number in zip([] if detections.mask is None else detections.mask, detections.class_id, strict=True):
            yield Path(path).relative_to(images).as_posix(), found.classes[number], mask


if __name__ == "__main__":
    main(read)
