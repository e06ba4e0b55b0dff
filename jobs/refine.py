"""`relabel refine`: images and masks named by file, folder or glob, no Ray."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from jobs import console
from jobs.options import PresetName, together
from pipeline.configuration import read_config
from pipeline.errors import MaskError, RefusedError, RowError
from pipeline.models import registry
from pipeline.refiners import REFINERS
from pipeline.sources import named_files
from pipeline.sources.named_files import ImageMasks
from pipeline.storage import Access, Store
from pipeline.storage.preflight import check_folder
from pipeline.words import plural
from schemas.config import Config

if TYPE_CHECKING:
    from pipeline.masks.binary import Mask
    from pipeline.masks.drawing import Picture
    from pipeline.single import Outcome

PROMPTABLE = registry.names_where(lambda spec: spec.promptable)
UNREAD_SHOWN = 10

RefineAll = Callable[["Picture", list["Mask"]], list["Outcome"]]
"""An image, (H, W, 3) uint8, and its masks, (H, W) {0, 1} -> what became of each."""


class Target(NamedTuple):
    """An image with its masks, where those go, and where its picture goes."""

    pair: ImageMasks
    outputs: list[Path]
    picture: Path | None


def refine(
    image: Annotated[str, typer.Argument(help="The image; a folder of images, or a quoted glob.", show_default=False)],
    mask: Annotated[
        str,
        typer.Argument(
            help="Its coarse mask: non-zero pixels are the object. A folder or quoted glob of masks, which are matched "
            "to the images by name: cat.png or cat/1.png for cat.jpg.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="Where the mask goes, as a black and white PNG; for folders and globs, a folder.")
    ],
    picture: Annotated[
        Path | None,
        typer.Option(
            help="Also write a picture of image, coarse and refined outlines: .png or .jpg side by side, .gif or .webp "
            "animated. For folders and globs, a folder."
        ),
    ] = None,
    picture_format: Annotated[str, typer.Option(help="Of the pictures of a folder: png, jpg, gif or webp.")] = "png",
    model: Annotated[
        list[str] | None,
        typer.Option(help=f"{PROMPTABLE}. Default: lite, which is packaged. Repeated: these together, answers fused."),
    ] = None,
    refiner: Annotated[str | None, typer.Option(help=f"{', '.join(REFINERS)}. Default: samrefiner.")] = None,
    checkpoint: Annotated[
        list[str] | None, typer.Option(help="Weights of the model, path or URI. Repeated like --model.")
    ] = None,
    adapter: Annotated[str | None, typer.Option(help="Adapter file produced by `relabel adapt`.")] = None,
    calibration: Annotated[
        str | None,
        typer.Option(help="Calibration produced by `relabel calibrate`; packaged or none. Default: packaged."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, or auto: a GPU where there is one.")] = "auto",
    preset: PresetName = "default",
    iterations: Annotated[int | None, typer.Option(min=1, help="Rounds of prompting.")] = None,
    config: Annotated[str | None, typer.Option(help="YAML as `relabel run --config` takes it.")] = None,
    no_gate: Annotated[bool, typer.Option("--no-gate", help="Write the refined mask whatever its scores.")] = False,
) -> None:
    """Refine the mask of one image, or of a folder of images, without Ray, and print its scores.

    Example: relabel refine photo.jpg coarse.png --output refined.png --picture compare.gif
    """
    overrides: dict[str, dict[str, Any]] = {
        "method": {"model": together(model), "refiner": refiner, "iterations": iterations},
        "gate": {"enabled": False if no_gate else None, "calibration": calibration},
    }
    resolved = read_config(config, preset, overrides, Access())
    several = named_files.is_several(image) or named_files.is_several(mask)
    found = named_files.match(image, mask)
    targets = list(_targets(found.pairs, output, picture, picture_format.lstrip("."), several))
    _check(targets)
    with console.err.doing("loading the model"):
        refine_all = _loaded(resolved, checkpoint, adapter, device)
    if not several:
        [outcome] = _refined(targets[0], resolved, refine_all)
        if isinstance(outcome, MaskError):
            raise outcome
        _print_scores(outcome, output)
        return
    counts = _refine_each(targets, resolved, refine_all)
    _print_unread("mask", found.unread)
    _print_unread("image", [(path, "no mask of that name") for path in found.without_masks])
    told = ", ".join(f"{number} {decision}" for decision, number in counts.items())
    console.out.tell(f"{plural(counts.total(), 'mask')} of {plural(len(targets), 'image')}: {told}; in {output}")
    if counts["failed"] or found.unread:
        raise typer.Exit(3)


def _targets(
    pairs: list[ImageMasks], output: Path, picture: Path | None, suffix: str, several: bool
) -> Iterator[Target]:
    for pair in pairs:
        if several:
            drawn = (picture / pair.name).with_suffix(f".{suffix}") if picture else None
            yield Target(pair, [(output / name).with_suffix(".png") for name in pair.mask_names], drawn)
        else:
            yield Target(pair, [output], picture)


def _check(targets: list[Target]) -> None:
    """Raise RefusedError where a file would be written over an input, twice, or in a format that there is not."""
    from pipeline.masks import drawing

    written = [path for target in targets for path in (*target.outputs, *filter(None, [target.picture]))]
    inputs = {path.resolve() for target in targets for path in (target.pair.image, *target.pair.masks)}
    for path in written:
        if path.resolve() in inputs:
            raise RefusedError(f"{path} would be written over an input: choose another --output or --picture")
    pictures = {target.picture for target in targets}
    if both := next((path for target in targets for path in target.outputs if path in pictures), None):
        raise RefusedError(f"{both} would be both a mask and a picture: choose another --output or --picture")
    if twice := next((path for path, number in Counter(written).items() if number > 1), None):
        raise RefusedError(f"{twice} would be written twice: two inputs differ in their suffix alone; rename one")
    if folder := next((path for path in written if path.is_dir()), None):
        raise RefusedError(f"{folder} is a folder: name a file")
    for folder in {path.parent for path in written}:
        check_folder(str(folder))
    for target in targets:
        if target.picture:
            drawing.check_suffix(target.picture)


def _loaded(resolved: Config, checkpoint: Sequence[str] | None, adapter: str | None, device: str) -> RefineAll:
    from pipeline import single  # torch takes seconds to import

    model, method = single.load_for(resolved.method, checkpoint=tuple(checkpoint or ()), adapter=adapter, device=device)
    return lambda image, masks: single.refine_all(image, masks, model, method, resolved.gate)


def _refine_each(targets: list[Target], resolved: Config, refine_all: RefineAll) -> Counter[str]:
    """All of them, with a line a mask; how many masks each decision has."""
    counts: Counter[str] = Counter()
    for target in targets:
        try:
            done = _refined(target, resolved, refine_all)
        except RowError as error:
            counts["failed"] += len(target.outputs)
            console.err.tell(f"failed: {target.pair.image}: {error}")
            continue
        for path, outcome in zip(target.outputs, done, strict=True):
            if isinstance(outcome, RowError):
                counts["failed"] += 1
                console.err.tell(f"failed: {outcome}")
            else:
                counts[outcome.decision.decision] += 1
                console.out.tell(f"{path}: {_told(outcome)}")
    return counts


def _refined(target: Target, resolved: Config, refine_all: RefineAll) -> list[Outcome | MaskError]:
    """Refine an image's masks, write them and the picture; what became of each. Raises ImageError."""
    from pipeline import single
    from pipeline.masks import drawing

    pixels = single.read_image(target.pair.image, resolved.method.max_image_pixels)
    read = [_read_mask(mask, (pixels.shape[0], pixels.shape[1])) for mask in target.pair.masks]
    coarse = [mask for mask in read if not isinstance(mask, MaskError)]
    outcomes = refine_all(pixels, coarse) if coarse else []
    in_order = iter(outcomes)
    done = [mask if isinstance(mask, MaskError) else next(in_order) for mask in read]
    for path, outcome in zip(target.outputs, done, strict=True):
        if not isinstance(outcome, MaskError):
            _write(path, drawing.mask_bytes(outcome.mask))
    if target.picture and outcomes:
        judged = [drawing.Judged(one.decision.decision, one.quality.coarse, one.kept_quality) for one in outcomes]
        kept = [one.mask for one in outcomes]
        captions = drawing.captions(judged)
        _write(target.picture, drawing.comparison_bytes(target.picture, pixels, coarse, kept, captions))
    return done


def _write(path: Path, data: bytes) -> None:
    """All of a file or nothing, whenever it is interrupted. Raises StorageError."""
    Store(str(path.parent)).put(path.name, data)


def _read_mask(path: Path, size_hw: tuple[int, int]) -> Mask | MaskError:
    from pipeline import single

    try:
        return single.read_mask(path, size_hw)
    except MaskError as error:
        return error


def _print_unread(what: str, unread: list[tuple[str, str]]) -> None:
    for path, why in unread[:UNREAD_SHOWN]:
        console.err.tell(f"{what} not used: {path}: {why}")
    if len(unread) > UNREAD_SHOWN:
        console.err.tell(f"and {plural(len(unread) - UNREAD_SHOWN, f'more {what}')} not used")


def _told(outcome: Outcome) -> str:
    decision = outcome.decision
    same = f"IoU with coarse {outcome.scores['coarse_iou']:.3f}"
    return f"{decision.decision} ({decision.reason}), {_quality(outcome)}, {same}"


def _quality(outcome: Outcome) -> str:
    if math.isnan(outcome.quality.refined):
        return "no estimate of quality"
    return f"quality {outcome.quality.coarse:.3f} -> {outcome.quality.refined:.3f}"


def _print_scores(outcome: Outcome, output: Path) -> None:
    scores = outcome.scores
    console.out.tell(
        f"{outcome.decision.decision} ({outcome.decision.reason}): {output}",
        f"IoU of refined and coarse {scores['coarse_iou']:.3f}, area {scores['area_ratio']:.2f} times, "
        f"predicted IoU {scores['predicted_iou']:.3f}, stability {scores['stability']:.3f}, "
        f"{_quality(outcome)} (calibration {outcome.calibration_id})",
    )
