"""The two ways through the same masks that `speed.py` compares; each runs in a process of its own.

    python -m tests.benchmarks.speed_lite loop|project --data ../shared/data/dev --images 30 --masks-to FILE.json

prints {"seconds": ..., "images": ..., "masks": ...}, start-up and one warm-up image left out.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.decoding.decode import decode_image
from pipeline.masks import binary
from pipeline.masks.binary import Mask, Rle
from pipeline.masks.frames import Frame, resize_to_input

SIDE, MASK_SIDE = 512, 256
GAMMA, STRENGTH = 4.0, 30.0
MAX_PIXELS = 120_000_000
CHUNK = 4  # images that one thread of `project` takes at a time


class Photo(NamedTuple):
    path: Path
    coarse: list[Rle]


def photos(data: Path, kind: str) -> list[Photo]:
    """The photographs of `data` that have masks of this kind."""
    truth, coarse = (json.loads((data / name).read_text()) for name in ("gt.json", f"coarse_{kind}.json"))
    rows = coarse["annotations"] if isinstance(coarse, dict) else coarse
    by_image: dict[int, list[Rle]] = {}
    for row in rows:
        by_image.setdefault(row["image_id"], []).append(row["segmentation"])
    return [Photo(data / "images" / e["file_name"], by_image[e["id"]]) for e in truth["images"] if e["id"] in by_image]


def loop(iterations: int, threads: int | None) -> Callable[[list[Photo]], list[list[Rle]]]:
    """What a user would write: one image, one mask at a time, scipy on the whole image, torch as it comes."""
    import torch
    from PIL import Image
    from scipy.ndimage import distance_transform_edt

    from pipeline.models.device.transfer import PromptTensors
    from pipeline.models.lite.network import LiteNetwork, load_weights
    from pipeline.models.weights import LITE_WEIGHTS

    if threads:
        torch.set_num_threads(threads)
    network = LiteNetwork()
    load_weights(network, LITE_WEIGHTS.read_bytes())
    network.eval()

    def prompts(mask: Mask, frame: Frame) -> PromptTensors:
        inside = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1]
        rows, columns = np.nonzero(mask)
        x1, y1, x2, y2 = columns.min(), rows.min(), columns.max(), rows.max()
        positive = divmod(int(inside.argmax()), mask.shape[1])[::-1]
        outside = distance_transform_edt(mask == 0)[y1 : y2 + 1, x1 : x2 + 1]
        point, label = (0.0, 0.0), -1
        if outside.max() > 0:
            row, column = divmod(int(outside.argmax()), outside.shape[1])
            point, label = (column + x1, row + y1), 0
        gaussian = np.where(mask > 0, np.exp(-((inside - inside.max()) ** 2) * GAMMA / mask.sum()), 0)
        field = frame.field_to_mask(gaussian, MASK_SIDE)
        return PromptTensors(
            torch.zeros(1, dtype=torch.int64),
            torch.from_numpy(frame.points_to_prompt([positive, point]))[None],
            torch.tensor([[1, label]]),
            torch.from_numpy(frame.box_to_prompt([x1, y1, x2, y2]))[None],
            torch.from_numpy(np.where(field > 0, STRENGTH * field, -STRENGTH).astype(np.float32))[None],
            torch.from_numpy(frame.field_to_mask(mask, MASK_SIDE))[None],
        )

    def run(photos: list[Photo]) -> list[list[Rle]]:
        answers = []
        for photo in photos:
            image = np.asarray(Image.open(photo.path).convert("RGB"))
            frame = Frame((image.shape[0], image.shape[1]), SIDE)
            resized = resize_to_input(image, SIDE)
            square = np.full((SIDE, SIDE, 3), 127, np.float32)
            square[: resized.shape[0], : resized.shape[1]] = resized
            features = network.encoder(torch.from_numpy((square - 127) / 128).permute(2, 0, 1)[None])
            answers.append([])
            for coarse in photo.coarse:
                mask = binary.decode(coarse)
                for _ in range(iterations):
                    if not mask.any():
                        break
                    logits, predicted = network.decoder(features, prompts(mask, frame))
                    best = logits[0, int(predicted[0].argmax())].numpy()
                    mask = (frame.logits_to_image(best) > 0).astype(np.uint8)
                answers[-1].append(binary.encode(mask))
        return answers

    return torch.inference_mode()(run)


def project(iterations: int, threads: int | None, dtype: str = "float32") -> Callable[[list[Photo]], list[list[Rle]]]:
    """This project in one process: a thread for each core, scores included."""
    import torch

    from pipeline.configuration import resolve as resolve_config
    from pipeline.models import load_model
    from pipeline.models.weights import resolve
    from pipeline.refiners import REFINERS, RefineImage
    from pipeline.storage import Access

    overrides = {"method": {"iterations": iterations, "dtype": dtype}}
    method = resolve_config("published-code", None, overrides).method
    model = load_model("lite", resolve("lite", None, Access()), "cpu", 1, dtype)

    def chunk(photos: list[Photo]) -> list[list[Rle]]:
        images = []
        for photo in photos:
            image = decode_image(photo.path.read_bytes(), MAX_PIXELS)
            frame = Frame((image.shape[0], image.shape[1]), SIDE)
            images.append(RefineImage(resize_to_input(image, SIDE), frame, photo.coarse))
        return [[mask.rle for mask in image] for image in REFINERS["samrefiner"].run(model, images, method)]

    def run(photos: list[Photo]) -> list[list[Rle]]:
        chunks = [photos[start : start + CHUNK] for start in range(0, len(photos), CHUNK)]
        with ThreadPoolExecutor(threads or os.cpu_count(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return [answer for answers in pool.map(chunk, chunks) for answer in answers]

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("way", choices=["loop", "project"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kind", default="superpixel")
    parser.add_argument("--images", type=int, default=30)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--threads", type=int, help="default: as torch chooses; a thread for each core")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of project")
    parser.add_argument("--masks-to", type=Path)
    options = parser.parse_args()
    found = photos(options.data, options.kind)
    chosen = found[:: max(1, len(found) // options.images)][: options.images]
    if options.way == "loop":
        run = loop(options.iterations, options.threads)
    else:
        run = project(options.iterations, options.threads, options.dtype)
    run(chosen[:1])
    started, cpu = time.perf_counter(), time.process_time()
    answers = run(chosen)
    result: dict[str, Any] = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - cpu,
        "images": len(answers),
        "masks": sum(map(len, answers)),
    }
    if options.masks_to:
        options.masks_to.write_text(json.dumps(answers))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
