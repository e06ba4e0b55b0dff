"""Quality and speed of `lite` on the development photographs: everything that RESULTS.md says about it.

    python -m tests.benchmarks.lite_quality --data ../shared/data/dev --output lite_quality.json

One plain pass for every mask (points, box, Gaussian, coarse mask; best of three by predicted IoU), no gate. IoU and
boundary IoU at full resolution; COCO and Penn-Fudan apart and their mean; paired 95 % bootstrap by image.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch

from pipeline.masks.binary import Mask, boundary_iou, iou
from pipeline.masks.frames import Frame, resize_to_input
from pipeline.models.lite.model import LiteModel
from tests.benchmarks.lite_dev import (
    DEV_KINDS,
    UNSEEN,
    Image,
    Photo,
    from_boxes,
    load_dev,
    prompt_batch,
    refine,
    refine_crop,
)
from tests.benchmarks.lite_tables import tables

GREY = 127


class Row(NamedTuple):
    """One refined mask. `kind` is a dev kind, an unseen one, or a control such as `grey:poly` or `crop:poly`."""

    kind: str
    source: str
    image: str
    area: int  # of the true mask, pixels
    coarse_iou: float
    refined_iou: float
    coarse_boundary: float
    refined_boundary: float
    predicted_iou: float


def measure(model: LiteModel, photos: list[Photo], control_every: int, say: Callable[[str], None]) -> list[Row]:
    """All rows. Controls and the crop pass run on every `control_every`-th photograph."""
    rows: list[Row] = []
    for index, photo in enumerate(photos):
        other = photos[(index + len(photos) // 2) % len(photos)].image
        rows += plain_rows(model, photo)
        if index % control_every == 0:
            rows += control_rows(model, photo, other)
        if index % 20 == 0:
            say(f"{index + 1} of {len(photos)} photographs")
    return rows


def plain_rows(model: LiteModel, photo: Photo) -> list[Row]:
    """The five kinds, the two unseen ones, the true mask, and its box alone."""
    truth = list(photo.truth)
    given = {kind: list(enumerate(photo.coarse[kind])) for kind in DEV_KINDS}
    for kind, make in UNSEEN.items():
        made = [(i, make(photo.image, mask, photo.ids[i])) for i, mask in enumerate(truth)]
        given[kind] = [(i, mask) for i, mask in made if mask is not None]
    given["true"] = list(enumerate(truth))
    flat = [(kind, i, mask) for kind, pairs in given.items() for i, mask in pairs]
    answers, scores = refine(model, photo.image, [mask for _, _, mask in flat])
    rows = [
        _row(kind, photo, i, (mask, answer), score)
        for (kind, i, mask), answer, score in zip(flat, answers, scores, strict=True)
    ]
    answers, scores = from_boxes(model, photo.image, truth)
    return rows + [_row("box", photo, i, (truth[i], answers[i]), scores[i]) for i in range(len(truth))]


def control_rows(model: LiteModel, photo: Photo, other: Image) -> list[Row]:
    """The five kinds again: plain, without the photograph, with another one, and with a second pass on a crop."""
    flat = [(kind, i, mask) for kind in DEV_KINDS for i, mask in enumerate(photo.coarse[kind])]
    masks = [mask for _, _, mask in flat]
    grey = np.full_like(photo.image, GREY)
    fitted = cv2.resize(other, photo.image.shape[1::-1], interpolation=cv2.INTER_AREA)
    first, first_scores = refine(model, photo.image, masks)
    rows = []
    for name, seen in (("grey", grey), ("other", fitted)):
        answers, scores = refine(model, photo.image, masks, seen)
        rows += [
            _row(f"{name}:{k}", photo, i, (m, a), s) for (k, i, m), a, s in zip(flat, answers, scores, strict=True)
        ]
    for (kind, i, mask), answer, score in zip(flat, first, first_scores, strict=True):
        rows.append(_row(f"photo:{kind}", photo, i, (mask, answer), score))
        closer, closer_score = refine_crop(model, photo.image, answer) if answer.any() else (answer, score)
        rows.append(_row(f"crop:{kind}", photo, i, (mask, closer), closer_score))
    return rows


def _row(kind: str, photo: Photo, index: int, masks: tuple[Mask, Mask], predicted: float) -> Row:
    truth, (coarse, refined) = photo.truth[index], masks
    return Row(
        kind,
        photo.source,
        photo.name,
        int(truth.sum()),
        iou(coarse, truth),
        iou(refined, truth),
        boundary_iou(coarse, truth),
        boundary_iou(refined, truth),
        predicted,
    )


def speed(model: LiteModel, photo: Photo, repeats: int = 9) -> dict[str, float]:
    """Median CPU seconds on one thread (other processes do not count): encode one image, decode 8 masks."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    frame = Frame((photo.image.shape[0], photo.image.shape[1]), model.input_side)
    pixels = resize_to_input(photo.image, model.input_side)
    batch = prompt_batch(model, frame, [photo.truth[0]] * 8)
    embedding = model.encode([pixels])
    encode = _median_seconds(lambda: model.encode([pixels]), repeats)
    decode = _median_seconds(lambda: model.predict(embedding, batch), repeats)
    torch.set_num_threads(threads)
    return {"encode_1_s": encode, "decode_8_s": decode}


def _median_seconds(work: Callable[[], object], repeats: int) -> float:
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return float(np.median(seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/dev"))
    parser.add_argument("--weights", type=Path, default=None, help="default: the packaged weights")
    parser.add_argument("--output", type=Path, default=None, help="JSON of all rows and timings")
    parser.add_argument("--every", type=int, default=1, help="use every n-th photograph")
    parser.add_argument("--control-every", type=int, default=3, help="controls and crop pass on every n-th of those")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    model, photos = LiteModel(arguments.weights), load_dev(arguments.data, arguments.every)
    rows = measure(model, photos, arguments.control_every, lambda text: print(text, flush=True))
    seconds = speed(model, photos[0])
    if arguments.output:
        columns: dict[str, list[Any]] = defaultdict(list)
        for row in rows:
            for name, value in row._asdict().items():
                columns[name].append(round(value, 5) if isinstance(value, float) else value)
        arguments.output.write_text(json.dumps({"weights_sha256": model.weights_sha256, **seconds, "rows": columns}))
    print(f"weights {model.weights_sha256}\n\n{tables(rows, seconds)}")


if __name__ == "__main__":
    main()
