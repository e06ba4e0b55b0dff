"""Several models that refine together: `a+b`. Each is prompted and answers as it would alone; the refiner fuses them.

What is known of them together comes from the first where it must be one (view, batches, dtype, iterations, presets).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.errors import RefusedError
from pipeline.models.protocol import MaskModel
from pipeline.words import plural

if TYPE_CHECKING:
    from pipeline.models.registry import ModelSpec

TOGETHER = "+"
"""Between the names of models that refine together."""


@dataclass
class Ensemble:
    """Models that are loaded. Images are loaded once for all, at the largest side that one of them takes."""

    name: str
    weights_sha256: str
    input_side: int
    stretched: bool
    mask_side: int
    similarity_cut: float
    members: tuple[MaskModel, ...]
    reads_coarse: bool = False  # nor is it prompted: its members are
    looks: bool = False

    @classmethod
    def of(cls, spec: ModelSpec, members: Sequence[Any], weights_sha256: str) -> Ensemble:
        """members: the models of `spec.members`, in that order."""
        numbers = spec.input_side, spec.stretched, spec.mask_side, spec.similarity_cut
        return cls(spec.name, weights_sha256, *numbers, tuple(members))


def composed(specs: Sequence[ModelSpec]) -> ModelSpec:
    """What is known of models together; of one, its own. Raises RefusedError for one that is not prompted."""
    first, *others = specs
    if not others:
        return first
    if alone := [spec.name for spec in specs if not spec.promptable]:
        raise RefusedError(f"model {alone[0]} refines alone: only models that are prompted refine together")
    counted = [spec.encoder_tflop for spec in specs if spec.encoder_tflop is not None]
    return replace(
        first,
        name=TOGETHER.join(spec.name for spec in specs),
        input_side=max(spec.input_side for spec in specs),
        read=None,
        extra=next((spec.extra for spec in specs if spec.extra), None),
        encoder_tflop=sum(counted) if len(counted) == len(specs) else None,
        adaptable=False,
        compilable=all(spec.compilable for spec in specs),
        members=tuple(specs),
        gpu_actors=min(spec.gpu_actors for spec in specs),
    )


def hash_together(hashes: Sequence[str]) -> str:
    """SHA-256 (hex) that stands for the weights of several models, in their order."""
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def shared_out(specs: Sequence[ModelSpec], checkpoints: Sequence[str]) -> list[str | None]:
    """A checkpoint for each model: one for every model, or for every one that has no weights of its own.

    Raises RefusedError where they are more, or fewer.
    """
    wanting = [spec for spec in specs if spec.checkpoint and not spec.checkpoint.packaged]
    if len(checkpoints) == len(specs):
        return list(checkpoints)
    if len(checkpoints) == len(wanting):
        left = iter(checkpoints)
        return [next(left) if spec in wanting else None for spec in specs]
    if len(specs) == 1:
        raise RefusedError(f"model {specs[0].name} takes one checkpoint, and {len(checkpoints)} were given")
    names = TOGETHER.join(spec.name for spec in specs)
    raise RefusedError(
        f"{names} are {plural(len(specs), 'model')}, and {plural(len(checkpoints), 'checkpoint')} came with them: give "
        f"--checkpoint for each, in this order, or for those that have no weights of their own ({len(wanting)})"
    )
