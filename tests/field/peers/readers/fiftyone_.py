"""FiftyOne: its COCO importer, without its database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from decoded import Decoded, main
from fiftyone.utils import coco


def read(images: str, path: str) -> Iterator[Decoded]:
    importer = coco.COCODetectionDatasetImporter(data_path=images, labels_path=path, label_types="segmentations")
    with importer:
        for image, metadata, found in importer:
            for detection in found.detections if found else ():
                mask = np.zeros((metadata.height, metadata.width), bool)
                x, y = (
                    round(detection.bounding_box[0] * metadata.width),
                    round(detection.bounding_box[1] * metadata.height),
                )
                height, width = detection.mask.shape
                mask[y : y + height, x : x + width] = detection.mask
                yield Path(image).relative_to(images).as_posix(), detection.label, mask


if __name__ == "__main__":
    main(read)
