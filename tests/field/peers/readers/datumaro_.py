"""datumaro: COCO, COCO panoptic and CVAT."""

from __future__ import annotations

from collections.abc import Iterator

from datumaro import Dataset
from decoded import Decoded, main


def read(path: str, form: str) -> Iterator[Decoded]:
    dataset = Dataset.import_from(path, form)
    labels = dataset.categories()[next(key for key in dataset.categories() if key.name == "label")]
    for item in dataset:
        for annotation in item.annotations:
            if annotation.type.name == "mask":
                yield item.id, labels[annotation.label].name, annotation.image


if __name__ == "__main__":
    main(read)
