"""The lvis package."""

from __future__ import annotations

from collections.abc import Iterator

from decoded import Decoded, main
from lvis import LVIS


def read(path: str) -> Iterator[Decoded]:
    api = LVIS(path)
    for annotation in api.load_anns(api.get_ann_ids()):
        [image], [category] = api.load_imgs([annotation["image_id"]]), api.load_cats([annotation["category_id"]])
        yield image["coco_url"], category["name"], api.ann_to_mask(annotation)


if __name__ == "__main__":
    main(read)
