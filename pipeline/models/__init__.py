"""Models behind one protocol: what they take and give, which there are, and the one way to load one.

    protocol   what a model takes and gives: numpy and an opaque embedding
    registry   what is known of each model before its weights are loaded
    weights    files of weights: where they come from, what they hash to
    loading    `load_model`

Only this folder imports torch, and only when a model is made.
"""

from __future__ import annotations

from pipeline.models.loading import check_device, check_usable, execution_class, load_model, prepare
from pipeline.models.protocol import (
    Asked,
    Candidates,
    Found,
    MaskModel,
    Model,
    NoModel,
    Pending,
    PixelModel,
    PromptBatch,
)
from pipeline.models.registry import MODELS, Checkpoint, ModelSpec, Normalisation, Runtime

__all__ = [
    "MODELS",
    "Asked",
    "Candidates",
    "Checkpoint",
    "Found",
    "MaskModel",
    "Model",
    "ModelSpec",
    "NoModel",
    "Normalisation",
    "Pending",
    "PixelModel",
    "PromptBatch",
    "Runtime",
    "check_device",
    "check_usable",
    "execution_class",
    "load_model",
    "prepare",
]
