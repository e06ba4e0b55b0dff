"""pycocotools: instances, in RLE or polygons."""

from __future__ import annotations

from collections.abc import Iterator

from decoded import Decoded, main
from pycocotools.coco import COCO


def read(path: str) -> Iterator[Decoded]:
    coco = COCO(path)
    for annotation in coco.loadAnns(coco.getAnnIds()):
        [image], [category] = coco.loadImgs(annotation["image_id"]), coco.loadCats(annotation["category_id"])
        yield image["file_name"], category["name"], coco.annToMask(annotation)


if __name__ == "__main__":
    main(read)
