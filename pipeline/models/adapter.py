"""Low-rank adapters (LoRA) of a model's IoU head, the part that ranks its candidates (SAMRefiner++).

Every linear layer of the head becomes W + B A with A (rank, in) and B (out, rank); all else stays. An adapter is a
small safetensors file: `layers.<i>.a`, `layers.<i>.b`, and metadata that names the weights it was trained on. It is
merged into the weights when a model is loaded, so it costs nothing afterwards.

What it is trained on, and whether it is any good: `pipeline/adaptation.py`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load, save
from torch import Tensor, nn

from pipeline.errors import RefusedError
from pipeline.masks.frames import FloatArray
from pipeline.models.protocol import Candidates, MaskModel, PromptBatch
from pipeline.models.weights import ADAPTER_FORMAT, check_adapter

MARGIN = 0.02
LEARNING_RATE, MOMENTUM = 1e-2, 0.9
BATCH = 5

Layers = list[tuple[Tensor, Tensor]]
"""A and B of each layer."""


class AdaptableModel(MaskModel, Protocol):
    """A MaskModel whose candidates are ranked by a head of linear layers with ReLU between them."""

    @property
    def iou_head(self) -> nn.Module:
        """The head; what it is given is (N, ...) or (N, candidates, ...)."""
        ...

    @property
    def iou_layers(self) -> list[nn.Linear]:
        """The head's layers; the first reads as many of the head's inputs as it has, from the first on."""
        ...

    def to_predicted_iou(self, output: Tensor, inputs: Tensor) -> Tensor:
        """The last layer's output, and what the head was given -> (N, candidates) predicted IoU."""
        ...


class Ranking(NamedTuple):
    """How good the candidates of N prompts are: `inputs` (N, ...) float32 of the head, `agreement` (N, C) in [0, 1]."""

    inputs: FloatArray
    agreement: FloatArray


def head_inputs(model: AdaptableModel, embedding: Any, prompts: PromptBatch) -> tuple[Candidates, FloatArray]:
    """Candidates of the prompts of one image, and what the IoU head was given for each of them.

    The prompts must all have the same tokens, as boxes alone do: then the model decodes them in their order.
    """
    seen: list[Tensor] = []
    hook = model.iou_head.register_forward_pre_hook(lambda _layer, inputs: seen.append(inputs[0].cpu()))
    try:
        candidates = model.predict(embedding, prompts)
    finally:
        hook.remove()
    inputs = torch.cat([one.float() for one in seen])
    if len(inputs) != len(prompts):
        raise ValueError(f"the head was given {len(inputs)} inputs for {len(prompts)} prompts")
    return candidates, np.asarray(inputs.numpy(), np.float32)


def predicted_iou(model: AdaptableModel, inputs: FloatArray, adapter: bytes | None = None) -> FloatArray:
    """(N, C) predicted IoU from inputs of the head, with or without an adapter (a file's content)."""
    with torch.no_grad():
        layers = None if adapter is None else _layers(model, load(adapter))
        return np.asarray(_scores(model, torch.from_numpy(inputs), layers).numpy(), np.float32)


def train(
    model: AdaptableModel, ranking: Ranking, *, rank: int, seed: int, note: dict[str, str], epochs: int = 1
) -> bytes:
    """SGD on a margin ranking loss: the candidate that agrees most should lead each other by MARGIN.

    Runs on the CPU; repeats exactly for a seed. `note` joins the metadata. Returns the adapter file's content.
    """
    generator = torch.Generator().manual_seed(seed)
    layers = [
        (
            _uniform(rank, layer.in_features, generator).requires_grad_(),
            torch.zeros(layer.out_features, rank, requires_grad=True),
        )
        for layer in model.iou_layers
    ]
    optimiser = torch.optim.SGD([part for pair in layers for part in pair], lr=LEARNING_RATE, momentum=MOMENTUM)
    inputs, best = torch.from_numpy(ranking.inputs), torch.from_numpy(ranking.agreement.argmax(axis=1))
    for _ in range(epochs):
        for rows in _batches(len(inputs), generator):
            scores = _scores(model, inputs[rows], layers)
            optimiser.zero_grad()
            _ranking_loss(scores, best[rows]).backward()
            optimiser.step()
    tensors = {
        f"layers.{i}.{name}": part.detach()
        for i, pair in enumerate(layers)
        for name, part in zip("ab", pair, strict=True)
    }
    note = {**note, "epochs": str(epochs)}
    metadata = {"format": ADAPTER_FORMAT, "model": model.name, "base_sha256": model.weights_sha256, "rank": str(rank)}
    return _in_order(save(tensors, {**note, **metadata}))


def _in_order(content: bytes) -> bytes:
    """A safetensors file with its header's keys sorted: the library writes metadata in an order that changes."""
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + content[end:]


def apply(model: AdaptableModel, path: Path) -> None:
    """Merge an adapter file into a model's head. Raises RefusedError when it was made for other weights."""
    data = path.read_bytes()
    check_adapter(data, model.weights_sha256, path.name)
    merge(model, data)


def merge(model: AdaptableModel, adapter: bytes) -> None:
    """Add an adapter (a file's content) to the weights of a model's head. Raises RefusedError where it does not fit."""
    with torch.no_grad():
        for layer, (a, b) in zip(model.iou_layers, _layers(model, load(adapter)), strict=True):
            layer.weight += (b @ a).to(layer.weight)


def _ranking_loss(scores: Tensor, best: Tensor) -> Tensor:
    """Mean over the prompts of the sum over the other candidates; (N, C) scores, (N,) index of the best."""
    lead = scores.gather(1, best[:, None]) - scores
    others = torch.ones_like(scores).scatter(1, best[:, None], 0.0)
    return (F.relu(MARGIN - lead) * others).sum(1).mean()


def _scores(model: AdaptableModel, inputs: Tensor, adapter: Layers | None) -> Tensor:
    x = inputs[..., : model.iou_layers[0].in_features]
    for i, layer in enumerate(model.iou_layers):
        weight = layer.weight.detach().cpu()
        if adapter is not None:
            a, b = adapter[i]
            weight = weight + b @ a
        x = F.linear(F.relu(x) if i else x, weight, layer.bias.detach().cpu())
    return model.to_predicted_iou(x, inputs)


def _layers(model: AdaptableModel, tensors: dict[str, Tensor]) -> Layers:
    """Raises RefusedError where the tensors are not those of this head."""
    layers = []
    for i, layer in enumerate(model.iou_layers):
        a, b = tensors.pop(f"layers.{i}.a", torch.empty(0)), tensors.pop(f"layers.{i}.b", torch.empty(0))
        if a.ndim != 2 or b.ndim != 2 or (b.shape[0], a.shape[1]) != tuple(layer.weight.shape) or len(a) != b.shape[1]:
            raise RefusedError(f"the adapter does not fit the IoU head of {model.name}: layer {i} is another shape")
        layers.append((a.float(), b.float()))
    if tensors:
        raise RefusedError(f"the adapter does not fit the IoU head of {model.name}: unknown {', '.join(tensors)}")
    return layers


def _batches(count: int, generator: torch.Generator) -> Iterator[Tensor]:
    order = torch.randperm(count, generator=generator)
    yield from (order[start : start + BATCH] for start in range(0, count, BATCH))


def _uniform(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    bound = columns**-0.5
    return torch.empty(rows, columns).uniform_(-bound, bound, generator=generator)


def join(rankings: Sequence[Ranking]) -> Ranking:
    """Several rankings as one."""
    return Ranking(*(np.concatenate(parts) for parts in zip(*rankings, strict=True)))
