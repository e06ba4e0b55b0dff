"""Kernels, FLOPs and bytes of one image on a GPU, counted without one: `python -m tests.benchmarks.gpu_account`.

The real code runs on tensors that have a device and a shape and no values (torch's FakeTensorMode). Every operator that
is no view is one kernel; it reads its inputs and writes its outputs. Attention is counted as its fused kernel: inputs
and output, and the products of all pairs. From these follows what a GPU could reach at BYTES_PER_S and FLOP_PER_S, that
is, at rates measured on an H100 and not at peaks, with LAUNCH_S for each kernel where they are started one by one.
`fused` takes operators on single elements together, as a compiler does: of a chain, only the last result is written.

A count, not a measurement: what a kernel really takes is for `make gpu` to say.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from segment_anything import sam_model_registry
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from pipeline.masks import binary
from pipeline.masks.canvas import patch_of_spans
from pipeline.masks.frames import Frame
from pipeline.masks.spans import of as spans_of
from pipeline.models import Asked, PromptBatch, sam_attention
from pipeline.models.device.rounds import look
from pipeline.models.sam_decoder import SamDecoder
from pipeline.models.sam_encoder import FastEncoder
from tests.no_device import no_device

BYTES_PER_S, FLOP_PER_S, LAUNCH_S = 2.7e12, 640e12, 7e-6
ATTENTION_FLOP_PER_S = 350e12  # fused kernels reach less than plain products
BATCH, MASKS = 8, 7
GOALS = {"vit_h": 60, "vit_b": 220}
VIEWS = {
    *("view", "unsqueeze", "squeeze", "permute", "transpose", "expand", "slice", "select", "split", "unbind", "detach"),
    *("alias", "as_strided", "t", "unfold", "_unsafe_view", "reshape", "flatten", "unflatten", "expand_as"),
}
RESERVING = {"empty", "new_empty", "empty_like", "empty_strided"}  # memory alone
ELEMENTWISE = {
    *("add", "mul", "sub", "div", "gelu", "exp", "where", "_to_copy", "to", "relu", "clamp", "clamp_min", "sigmoid"),
    *("native_layer_norm", "layer_norm", "bitwise_and", "bitwise_or", "floor", "gt", "lt", "ge", "le"),
}


class Count(NamedTuple):
    """Of one image; kernels: of a batch of BATCH."""

    kernels: float
    gflop: float
    attention_gflop: float
    gbyte: float
    fused_gbyte: float

    def images_per_s(self, fused: bool) -> float:
        """What follows at the rates above; kernels are started ahead of time where they are compiled."""
        moved = self.fused_gbyte if fused else self.gbyte
        seconds = (self.gflop - self.attention_gflop) * 1e9 / FLOP_PER_S + moved * 1e9 / BYTES_PER_S
        seconds += self.attention_gflop * 1e9 / ATTENTION_FLOP_PER_S
        return 1 / max(seconds, 0 if fused else self.kernels * LAUNCH_S / BATCH)


class Accountant(TorchDispatchMode):
    """Counts what operators on the device do."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels, self.flop, self.attention_flop, self.bytes, self.saved = 0, 0.0, 0.0, 0.0, 0.0
        self._made_elementwise = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        found = func(*args, **(kwargs or {}))
        outputs = [one for one in tree_leaves(found) if isinstance(one, Tensor) and one.device.type == "cuda"]
        inputs = [one for one in tree_leaves((args, kwargs)) if isinstance(one, Tensor)]
        aliases = {one.untyped_storage()._cdata for one in inputs} if outputs else set()
        is_view = name in VIEWS or all(one.untyped_storage()._cdata in aliases for one in outputs)
        if not outputs or name in RESERVING or (is_view and not name.endswith("_")):
            return found
        self.kernels += 1
        self.flop += _flop(name, inputs, outputs)
        self.bytes += sum(map(_bytes, inputs)) + sum(map(_bytes, outputs))
        if name.rstrip("_") in ELEMENTWISE:
            self.saved += 2 * sum(_bytes(one) for one in inputs if one in self._made_elementwise)
            for one in outputs:
                self._made_elementwise[one] = True
        return found

    def per_image(self) -> Count:
        """Everything, over the images of the batch."""
        giga = 1e9 * BATCH
        done = self.flop / giga, self.attention_flop / giga
        return Count(self.kernels, *done, self.bytes / giga, (self.bytes - self.saved) / giga)


class FusedAttention(TorchFunctionMode):
    """Attention as one kernel."""

    def __init__(self, accountant: Accountant) -> None:
        super().__init__()
        self._accountant = accountant

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not F.scaled_dot_product_attention:
            return func(*args, **(kwargs or {}))
        query, key, value = args
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        mask = (kwargs or {}).get("attn_mask")
        flop = 2.0 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])
        counted = self._accountant
        counted.kernels += 1
        counted.flop, counted.attention_flop = counted.flop + flop, counted.attention_flop + flop
        counted.bytes += sum(map(_bytes, (query, key, value, out, *([] if mask is None else [mask]))))
        return out


def _attend_flex(by_head: Tensor, by_row: Tensor, by_column: Tensor) -> Tensor:
    """As one kernel, which reads the relative positions beside queries, keys and values."""
    query, key, value = by_head.unbind(0)
    [accountant] = [mode for mode in _get_current_dispatch_mode_stack() if isinstance(mode, Accountant)]
    accountant.bytes += _bytes(by_row) + _bytes(by_column)
    return F.scaled_dot_product_attention(query, key, value)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _flop(name: str, inputs: list[Tensor], outputs: list[Tensor]) -> float:
    if name == "linear":
        return 2.0 * outputs[0].numel() * inputs[0].shape[-1]
    if name in ("mm", "addmm", "bmm", "baddbmm", "matmul", "_scaled_mm"):
        first = inputs[1 if name in ("addmm", "baddbmm") else 0]
        return 2.0 * outputs[0].numel() * first.shape[-1]
    if "convolution" in name:
        return 2.0 * outputs[0].numel() * inputs[1][0].numel()
    return 0.0


@contextmanager
def counted() -> Iterator[Accountant]:
    """Counts what is done within, on a device that is none."""
    accountant = Accountant()
    with accountant, FusedAttention(accountant):
        yield accountant


def encoder(model: str, attention: Any, float8: bool = False) -> Count:
    """A batch of BATCH images through the encoder, in bfloat16."""
    with no_device(), torch.device("cuda"), torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sam_attention, "_attend_flex", _attend_flex)
        fast = FastEncoder(sam_model_registry[model]().image_encoder.eval(), torch.bfloat16, attention, float8)
        images = torch.zeros(BATCH, 3, 1024, 1024)
        with counted() as accountant:
            fast(images)
    return accountant.per_image()


def rest(model: str) -> Count:
    """Decoder, prompts and verdict of a batch: MASKS masks an image, one round."""
    with no_device(), torch.no_grad():
        with torch.device("cuda"):
            sam = sam_model_registry[model]().eval()
            decoder = SamDecoder(sam.prompt_encoder, sam.mask_decoder, torch.bfloat16)
            embedding = torch.zeros(BATCH, 256, 64, 64)
            squares = torch.zeros(BATCH, 1024, 1024, 3, dtype=torch.uint8)
        with counted() as accountant:
            look(lambda prompts: decoder(embedding, prompts), None, squares, _asked())
    return accountant.per_image()


def _asked() -> Asked:
    count, size_hw = BATCH * MASKS, (768, 1024)
    rows, columns = np.ogrid[: size_hw[0], : size_hw[1]]
    patch = patch_of_spans(spans_of(binary.encode((rows - 300) ** 2 + (columns - 500) ** 2 < 150**2)), size_hw)
    prompts = PromptBatch(
        np.repeat(np.arange(BATCH), MASKS),
        np.zeros((count, 2, 2), np.float32),
        np.tile(np.array([1, 0], np.int64), (count, 1)),
        np.zeros((count, 4), np.float32),
        np.zeros((count, 256, 256), np.float32),
        np.zeros((count, 256, 256), np.float32),
    )
    frames, margins = [Frame(size_hw, 1024)] * count, [9] * count
    return Asked(prompts, None, frames, [patch] * count, margins, 1, True, True, True, "code", 4.0, 30.0, True)


def line(model: str, part: str, count: Count) -> str:
    """A row of the table."""
    numbers = f"{count.kernels:.0f} | {count.gflop / 1000:.2f} | {count.gbyte:.1f} | {count.fused_gbyte:.1f}"
    return f"| {model} | {part} | {numbers} | {count.images_per_s(False):.0f} | {count.images_per_s(True):.0f} |"


def together(*counts: Count) -> Count:
    """The sum of parts."""
    return Count(*(sum(values) for values in zip(*counts, strict=True)))


def table(models: list[str], tell: Callable[[str], None] = print) -> dict[str, Any]:
    """Every way through the encoder, and the whole with the device's own."""
    found: dict[str, Any] = {}
    tell("| model | part | kernels a batch | TFLOP | GB | fused GB | images/s, one by one | fused |")
    tell("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in models:
        after = rest(model)
        for attention, float8 in (("bias", False), ("folded", False), ("flex", False), ("flex", True)):
            part = f"encoder, {attention}{', 8 bits' * float8}"
            found[f"{model} {part}"] = one = encoder(model, attention, float8)
            tell(line(model, part, one))
        found[f"{model} rest"] = after
        tell(line(model, f"decoder, views, scores of {MASKS} masks", after))
        for attention in ("folded", "flex"):
            whole = together(found[f"{model} encoder, {attention}"], after)
            tell(line(model, f"whole, {attention} (goal {GOALS.get(model)})", whole))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["vit_h", "vit_b"])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = table(options.models, print if not options.json else (lambda _line: None))
    if options.json:
        print(json.dumps({name: count._asdict() for name, count in found.items()}))


if __name__ == "__main__":
    main()
