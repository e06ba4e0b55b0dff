"""What device this is, and whether every model path gives there what float32 on the CPU gives, twice the same bytes."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from pipeline.masks.binary import decode
from pipeline.masks.frames import Frame
from pipeline.models import Candidates, PromptBatch, execution_class, prepare
from pipeline.models.ceiling import matmul_tflops
from pipeline.models.device import verdict
from pipeline.models.lite.training.data import prompt_arrays, stack
from pipeline.refiners import REFINERS, RefinedMask
from tests.benchmarks.gpu import Clock, Options, Row
from tests.benchmarks.gpu_models import THREADS, CoarseLike, checkpoint, load, method, official, scenes


def device(options: Options, _: Clock) -> Iterator[Row]:
    """Names and versions, then the ceilings for products of matrices."""
    prepare(THREADS)
    yield {
        "execution": execution_class(options.device, THREADS),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "driver": _driver() if options.device == "cuda" else None,
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "memory_gib": round(torch.cuda.mem_get_info()[1] / 2**30, 1) if options.device == "cuda" else None,
        "small": options.small,
    }
    for dtype in ("bfloat16", "float32") if options.device == "cuda" else ("float32",):
        yield {"dtype": dtype, "ceiling_tflops": round(matmul_tflops(options.device, dtype), 2)}


def _driver() -> str | None:
    path = Path("/proc/driver/nvidia/version")
    return path.read_text().splitlines()[0] if path.exists() else None


def parity(options: Options, _: Clock) -> Iterator[Row]:
    """Of lite, then of each official architecture: encoder and decoder on one image with several prompts."""
    for model in ["lite", *official(options.small)]:
        if model == "lite":
            yield from _of_model(model, None, options)
        else:
            with checkpoint(model, options.device) as path:
                yield from _of_model(model, path, options)


def _of_model(model: str, path: Path | None, options: Options) -> Iterator[Row]:
    image = scenes((480, 640), 1, 512 if model == "lite" else 1024)[0]
    reference = load(model, path, "cpu", torch.float32)
    torch.set_num_threads(1 if options.small else os.cpu_count() or 1)
    expected_features, expected, prompts = _answer(reference, image)
    del reference
    ways: list[tuple[torch.dtype, int | None]] = [(torch.float32, None), (torch.bfloat16, None)]
    if options.compiled and model != "lite" and options.device != "cpu":
        ways.append((torch.bfloat16, 8))
    for dtype, batch in ways:
        here = load(model, path, options.device, dtype, batch)
        features, found, _ = _answer(here, image, prompts)
        again_features, again, _ = _answer(here, image, prompts)
        refined = [REFINERS["samrefiner"].run(CoarseLike(here), [image], method(model)) for _ in range(2)]
        with patch.object(verdict, "_has_kernels", lambda _like: False):
            plain = REFINERS["samrefiner"].run(CoarseLike(here), [image], method(model))
        yield {
            "model": model,
            "dtype": str(dtype).removeprefix("torch."),
            "compiled": batch is not None,
            "features_relative_error": _error(features, expected_features),
            "logits_relative_error": _error(found.logits, expected.logits),
            "mask_iou": round(_mask_iou(found, expected), 5),
            "predicted_iou_error": float(np.abs(found.predicted_iou - expected.predicted_iou).max()),
            "same_choice": float((found.predicted_iou.argmax(1) == expected.predicted_iou.argmax(1)).mean()),
            "scores_with_and_without_kernels": _difference(refined[0][0], plain[0]),
            "twice_the_same_bytes": bool(
                np.array_equal(features, again_features)
                and np.array_equal(found.logits, again.logits)
                and [m.rle for m in refined[0][0]] == [m.rle for m in refined[1][0]]
                and [m.scores for m in refined[0][0]] == [m.scores for m in refined[1][0]]
            ),
        }
        del here
        free(options.device)


def _answer(model: Any, image: Any, prompts: PromptBatch | None = None) -> tuple[np.ndarray, Candidates, PromptBatch]:
    embedding = model.encode([image.pixels])
    given = prompts or _prompts(image, model.mask_side)
    return model.features(embedding, 0), model.predict(embedding, given), given


def _prompts(image: Any, mask_side: int) -> PromptBatch:
    frame = Frame(image.frame.size_hw, 2 * mask_side)
    made = stack([prompt_arrays(decode(rle), frame, "code", 15.0) for rle in image.coarse])
    return PromptBatch(
        np.zeros(len(image.coarse), np.int64),
        made.points_xy,
        made.point_labels,
        made.box_xyxy,
        made.mask_logits,
        made.coarse,
    )


def _difference(one: Sequence[RefinedMask], other: Sequence[RefinedMask]) -> float:
    """Of scores, the largest; kernels are for GPUs alone (models/device/verdict_fused.py)."""
    pairs = zip(one, other, strict=True)
    return max(abs(a.scores[name] - b.scores[name]) for a, b in pairs for name in a.scores)


def _error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12))


def _mask_iou(found: Candidates, expected: Candidates) -> float:
    """Of all candidates' masks together."""
    one, other = found.logits > 0, expected.logits > 0
    return float((one & other).sum() / max(1, (one | other).sum()))


def free(on: str) -> None:
    """Memory back to the device, so that each way starts alike."""
    gc.collect()
    if on == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
