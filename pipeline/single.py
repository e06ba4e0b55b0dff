"""One image at a time, in this process, without Ray: for trying things out and for notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline import refiners
from pipeline.calibration.apply import judge
from pipeline.calibration.files import calibration_for
from pipeline.configuration import model_of, resolve
from pipeline.decoding.coarse import read_label_image
from pipeline.decoding.decode import decode_image
from pipeline.errors import ImageError, MaskError, RefusedError
from pipeline.masks import binary
from pipeline.masks.binary import Mask
from pipeline.masks.gate import Decision, Quality
from pipeline.models import Model, frame_for, load_model, weights
from pipeline.models.loading import pick_device
from pipeline.refiners import RefineImage, load_pixels
from pipeline.storage import Access
from schemas.config import Gate, Method

ImageLike = str | Path | npt.NDArray[np.uint8]


class Outcome(NamedTuple):
    """What became of one mask. `mask` is the one to use: `refined`, or the coarse one where the gate kept it."""

    mask: Mask
    refined: Mask
    decision: Decision
    quality: Quality
    calibration_id: str
    scores: dict[str, float]

    @property
    def kept_quality(self) -> float:
        """Estimated IoU of `mask` with the truth, 0 to 1."""
        return self.quality.refined if self.decision.kept == "refined" else self.quality.coarse


def refine(
    image: ImageLike,
    coarse: ImageLike | Sequence[ImageLike],
    *,
    model: str | None = None,
    checkpoint: str | tuple[str, ...] | None = None,
    adapter: str | None = None,
    method: Method | None = None,
    gate: Gate | None = None,
    device: str = "auto",
    threads: int = 2,
) -> npt.NDArray[np.uint8]:
    """Refine one mask, or several, of one image.

    image: (H, W, 3) uint8 RGB, or a path. coarse: an (H, W) mask of bool or {0, non-zero}, or a path, or several of
    those: a list, or (N, H, W). model: by default the one that the method is for; `a+b` are two, whose answers are
    fused, with a tuple of their checkpoints. adapter: what `relabel adapt` wrote.
    device: cpu, cuda, or auto: a GPU where there is one. Returns (H, W) uint8 {0, 1}, or (N, H, W) for several. Raises
    ImageError or MaskError with a reason code, RefusedError for an unusable model or device, ConfigError for a model
    that does not go with the method's refiner. `refine_with_scores` returns all that is known of each mask.
    """
    given, several = _listed(coarse)
    outcomes = refine_with_scores(
        image,
        given,
        model=model,
        checkpoint=checkpoint,
        adapter=adapter,
        method=method,
        gate=gate,
        device=device,
        threads=threads,
    )
    kept = [outcome.mask for outcome in outcomes]
    return np.stack(kept) if several else kept[0]


def refine_with_scores(
    image: ImageLike,
    coarse: ImageLike | Sequence[ImageLike],
    *,
    model: str | None = None,
    checkpoint: str | tuple[str, ...] | None = None,
    adapter: str | None = None,
    method: Method | None = None,
    gate: Gate | None = None,
    device: str = "auto",
    threads: int = 2,
) -> list[Outcome]:
    """As `refine`, but returns each mask with its decision, quality and scores: one Outcome a mask, also for one."""
    loaded, method = load_for(method or _default_method(model), model, checkpoint, adapter, device, threads)
    return refine_all(image, _listed(coarse)[0], loaded, method, gate)


def load_for(
    method: Method,
    model: str | None = None,
    checkpoint: str | tuple[str, ...] | None = None,
    adapter: str | None = None,
    device: str = "auto",
    threads: int = 2,
) -> tuple[Model, Method]:
    """The model of a method, and the method with its adapter's hash: what `refine_all` takes. Errors as of `refine`."""
    name = model_of(method, model)
    if adapter:
        found = weights.with_adapter(weights.resolve(name, checkpoint, Access()), adapter)
        method = method.model_copy(update={"adapter_sha256": found.adapter.sha256 if found.adapter else ""})
    return load(name, checkpoint, pick_device(device), threads, method.dtype, adapter), method


def _listed(coarse: ImageLike | Sequence[ImageLike]) -> tuple[Sequence[ImageLike], bool]:
    """Masks as a list, and whether they were several."""
    several = coarse.ndim == 3 if isinstance(coarse, np.ndarray) else not isinstance(coarse, str | Path)
    return (coarse if several else [coarse]), several  # type: ignore[list-item, return-value]


def refine_all(
    image: ImageLike,
    coarse: Sequence[ImageLike],
    model: Model,
    method: Method | None = None,
    gate: Gate | None = None,
) -> list[Outcome]:
    """As `refine_with_scores`, with a model that is loaded."""
    method = method or _default_method(model.name)
    gate = gate or Gate()
    weighed = method.model_copy(update={"weights_sha256": model.weights_sha256})
    calibration = calibration_for(gate, weighed, Access())
    pixels = read_image(image, method.max_image_pixels)
    frame = frame_for(model, (pixels.shape[0], pixels.shape[1]))
    arrays = [read_mask(mask, frame.size_hw) for mask in coarse]
    loaded = load_pixels(method, pixels, frame.input_side, frame.stretched)
    given = RefineImage(loaded, frame, [binary.encode(array) for array in arrays])
    outcomes = []
    for array, result in zip(arrays, refiners.refine(model, [given], method)[0], strict=True):
        [judged] = judge([result.scores], gate, calibration)
        refined = binary.decode(result.rle)
        kept = refined if judged.decision.kept == "refined" else array
        outcomes.append(Outcome(kept, refined, judged.decision, judged.quality, judged.calibration_id, result.scores))
    return outcomes


@lru_cache(maxsize=2)
def load(
    model: str,
    checkpoint: str | tuple[str, ...] | None = None,
    device: str = "cpu",
    threads: int = 2,
    dtype: str = "float32",
    adapter: str | None = None,
) -> Model:
    """A model by name, kept for the next call. dtype: see schemas.config, Method. adapter: see `refine`."""
    found = weights.resolve(model, checkpoint, Access())
    found = weights.with_adapter(found, adapter) if adapter else found
    return load_model(model, found, device, threads, dtype)


def _default_method(model: str | None) -> Method:
    return resolve(overrides={"method": {"model": model}}).method


def read_image(image: ImageLike, max_pixels: int) -> npt.NDArray[np.uint8]:
    """A path or array -> (H, W, 3) uint8 RGB. Raises ImageError."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ImageError("image_unreadable", f"expected (H, W, 3) uint8, got {image.shape} {image.dtype}")
        return image
    try:
        return decode_image(_read(image, "image"), max_pixels)
    except ImageError as error:
        raise ImageError(error.reason, f"{image}: {error.detail}") from None


def read_mask(mask: ImageLike, size_hw: tuple[int, int]) -> Mask:
    """A path or array -> (H, W) uint8 {0, 1} of the image's size, not empty. Raises MaskError."""
    pixels = mask if isinstance(mask, np.ndarray) else _read_labels(mask)
    which = "the mask" if isinstance(mask, np.ndarray) else str(mask)
    if pixels.shape != size_hw:
        raise MaskError("mask_size_mismatch", f"{which} has (height, width) {pixels.shape}, its image {size_hw}")
    if not pixels.any():
        raise MaskError("mask_empty", f"{which} has no pixel that is not zero")
    return (pixels != 0).astype(np.uint8)


def _read_labels(mask: str | Path) -> npt.NDArray[np.integer]:
    try:
        return read_label_image(_read(mask, "mask"), greys=True)
    except MaskError as error:
        raise MaskError(error.reason, f"{mask}: {error.detail}") from None


def _read(path: str | Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RefusedError(f"cannot read the {what} {path}: {error.strerror}") from None
