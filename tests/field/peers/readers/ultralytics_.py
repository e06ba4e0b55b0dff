"""Ultralytics: reads data.yaml from another folder, draws what it read at each image's own size, and trains a step.

Its code is AGPL: it is run here, and nothing of it is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from decoded import Decoded, main
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, polygon2mask
from ultralytics.utils.ops import resample_segments


def read(data_yaml: str, train: str = "") -> Iterator[Decoded]:
    """train: the folder for a training of one epoch, from random weights."""
    data = check_det_dataset(data_yaml, autodownload=False)
    assert Path(data["val"]).is_dir()
    dataset = YOLODataset(img_path=data["train"], data=data, task="segment", imgsz=64, augment=False, rect=False)
    for label in dataset.labels:
        height, width = label["shape"]
        rings = resample_segments([segment.copy() for segment in label["segments"]])  # as its loader does
        for ring, (number,) in zip(rings, label["cls"].astype(int), strict=True):
            mask = polygon2mask((height, width), [(ring * [width, height]).reshape(-1)])
            yield Path(label["im_file"]).relative_to(data["train"]).as_posix(), data["names"][number], mask
    if train:
        options = {"epochs": 1, "imgsz": 64, "batch": 2, "workers": 0, "device": "cpu", "plots": False, "amp": False}
        YOLO("yolo11n-seg.yaml").train(data=data_yaml, project=train, exist_ok=True, verbose=False, **options)


if __name__ == "__main__":
    main(read)
