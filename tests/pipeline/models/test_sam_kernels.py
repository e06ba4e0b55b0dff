"""Our kernels for GPUs: their arithmetic in Triton's interpreter, and that they compile for GPUs. None is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from segment_anything.modeling.image_encoder import Attention as Original

from pipeline.models.hardware import KERNEL_BYTES, runs_triton
from pipeline.models.sam_attention import AttentionLayer, attention_on
from pipeline.models.sam_linear import Linear

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="a torch for CPUs has no Triton, and the product no kernels there"
)

CASES = {  # channels, heads, side of the grid, window (0: whole), keys of a block
    "windows that stick out": (160, 2, 14, 5, 64),
    "windows of a size of their own": (160, 2, 20, 14, 64),
    "whole, some rows at a time": (128, 2, 16, 0, 64),
    "whole, a row at a time": (64, 1, 16, 0, 16),
}
KINDS = {"ViT-B, windows": (64, 12, 14), "ViT-B": (64, 12, 64), "ViT-H, windows": (80, 16, 14), "ViT-H": (80, 16, 64)}
IN_THE_GATE = 2  # of KINDS; the others take as long again, each


def differences() -> dict[str, float]:
    """Largest relative difference between the kernel's answer and that of attention with a bias, for each case."""
    from pipeline.models import sam_attention_fused as fused

    found = {}
    for name, (channels, heads, grid, window, keys) in CASES.items():
        torch.manual_seed(0)
        fused.WHOLE = fused.WHOLE._replace(keys=keys)
        side = window or grid
        original = Original(channels, heads, use_rel_pos=True, input_size=(side, side))
        for tensor in original.parameters():
            torch.nn.init.normal_(tensor, std=0.2)
        x = torch.randn(2, grid, grid, channels)
        with torch.inference_mode():
            expected, answer = (
                AttentionLayer(original, window, side, torch.float32, kind, Linear)(x) for kind in ("bias", "fused")
            )
        found[name] = float((answer - expected).abs().max() / expected.abs().max())
    found["a sum and its norm"] = _difference_of_norm()
    found["contrasts"] = _difference_of_contrasts()
    found["evidence"] = _difference_of_evidence()
    return found


def _difference_of_contrasts() -> float:
    """Of sums over outlines; in the first picture a cell is one pixel, in the second two by two."""
    from pipeline.models.device import verdict, verdict_fused

    torch.manual_seed(0)
    reach, side, cells = 3, 96, 40
    padded = cells + 2 * reach
    squares = torch.randint(0, 256, (2, side, side, 3), dtype=torch.uint8)
    places = torch.arange(-reach, cells + reach).abs()[None].repeat(3, 1)
    step = torch.tensor([[1], [2], [2]])
    pixels = (places * step).clamp_max(side - 1).int()
    count = torch.tensor([[40, 33], [40, 40], [7, 29]], dtype=torch.int32)
    reduction = verdict.Reduction(squares, torch.tensor([0, 1, 1]), pixels, pixels, (step > 1).int(), count, reach)
    fields = torch.nn.functional.interpolate(torch.randn(2, 3, 9, 9), size=(padded, padded), mode="bilinear")
    masks = fields[0] > 0, fields[1] > 0.2
    expected, answer = verdict._contrast_sums(masks, reduction), verdict_fused.contrast_sums(masks, reduction)
    assert bool((expected[..., 1] > 20).all())
    assert torch.equal(answer[..., 1], expected[..., 1])
    return float((answer / expected - 1).abs().max())


def _difference_of_norm() -> float:
    from pipeline.models.sam_norm_fused import add_and_norm

    torch.manual_seed(0)
    x, added, norm = torch.randn(2, 3, 80), torch.randn(2, 3, 80), torch.nn.LayerNorm(80, eps=1e-3)
    for tensor in norm.parameters():
        torch.nn.init.normal_(tensor)
    with torch.inference_mode():
        expected, (total, normed) = norm(x + added), add_and_norm(x, added, norm.weight, norm.bias, norm.eps)
    assert torch.equal(total, x + added)
    return float((normed - expected).abs().max() / expected.abs().max())


def _difference_of_evidence() -> float:
    from pipeline.models.device import verdict, verdict_fused

    torch.manual_seed(0)
    fused = 6 * torch.nn.functional.interpolate(torch.randn(1, 3, 9, 9), size=(70, 70), mode="bilinear")[0]
    given = fused.roll(3, 2) > 1
    bounds = torch.tensor([[0, 0, 70, 70], [5, 9, 60, 41], [41, 0, 70, 37]], dtype=torch.int32)
    around = torch.zeros_like(given)
    for mask, (top, left, bottom, right) in enumerate(bounds.tolist()):
        around[mask, top:bottom, left:right] = True
    radius = torch.tensor([1.0, 4.0, 2.0])
    evidence = verdict.Evidence(fused, (fused > 0) & around, given & around, bounds, radius)
    expected, answer = verdict._evidence_sums(evidence), verdict_fused.evidence_sums(evidence)
    assert bool((expected > 1).all())
    assert torch.equal(answer[:, [2, 4, 6]], expected[:, [2, 4, 6]])
    return float((answer / expected - 1).abs().max())


def test_it_computes_what_attention_with_a_bias_does() -> None:
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # read when a kernel is defined
    command = [sys.executable, "-m", "tests.pipeline.models.test_sam_kernels"]
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
    found = json.loads(answer.stdout)
    assert found.keys() == {*CASES, "a sum and its norm", "contrasts", "evidence"}
    assert max(found.values()) < 1e-4, found


@pytest.mark.parametrize(
    "kind",
    [*list(KINDS)[:IN_THE_GATE], *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(KINDS)[IN_THE_GATE:])],
)
@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
def test_it_compiles_for_gpus_that_are_not_here(
    kind: str, capability: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.models import sam_attention_fused as fused

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    channels, heads, side = KINDS[kind]
    constants, setting = fused.constants_of(channels, heads, side, whole=side == 64)
    types = dict.fromkeys(("qkv", "bias", "rows", "columns", "out"), "*bf16")
    types |= dict.fromkeys(("height", "width", "down", "across"), "i32")
    source = ASTSource(
        fused._attend, {**types, **dict.fromkeys(constants, "constexpr")}, {(k,): v for k, v in _placed(constants)}
    )
    options = {"num_warps": setting.warps, "num_stages": setting.stages}
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert kernel.asm["cubin"]
    assert kernel.metadata.shared <= KERNEL_BYTES


def test_the_norm_compiles_for_a_gpu_that_is_not_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.models.sam_norm_fused import WARPS, _add_and_norm

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    constants = {"CHANNELS": 1280, "LANES": 2048, "EPS": 1e-6}
    types = dict.fromkeys(("x", "weight", "bias", "total"), "*fp32") | dict.fromkeys(("added", "normed"), "*bf16")
    placed = {(_add_and_norm.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(_add_and_norm, {**types, **dict.fromkeys(constants, "constexpr")}, placed)
    assert triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": WARPS}).asm["cubin"]


@pytest.mark.parametrize("name", ["_pack", "_contrast", "_evidence"])
def test_sums_compile_for_a_gpu_that_is_not_here(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from pipeline.models.device import verdict_fused

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(verdict_fused, name)
    known: dict[str, object] = {"REACH": 3, "ROWS": verdict_fused.ROWS, "COLUMNS": verdict_fused.COLUMNS, "BLOCK": 256}
    types = dict.fromkeys(("masks", "squares", "refined", "given"), "*u8") | {"image": "*i64"}
    types |= dict.fromkeys(("sums", "fused"), "*fp32") | dict.fromkeys(("height", "width", "side"), "i32")
    types |= dict.fromkeys(("rows", "columns", "beside", "cells", "bounds", "radius", "packed"), "*i32")
    signature = {of: types.get(of, "constexpr") for of in kernel.arg_names}
    placed = {(kernel.arg_names.index(of),): value for of, value in known.items() if of in kernel.arg_names}
    options = {"num_warps": verdict_fused.WARPS}
    compiled = triton.compile(ASTSource(kernel, signature, placed), target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.asm["cubin"]


def _placed(constants: dict[str, object]) -> list[tuple[int, object]]:
    from pipeline.models.sam_attention_fused import _attend

    return [(_attend.arg_names.index(name), value) for name, value in constants.items()]


def test_it_is_for_gpus_in_16_bits_alone() -> None:
    assert attention_on(torch.device("cpu"), torch.bfloat16) == "bias"
    assert attention_on(torch.device("cuda"), torch.float32) == "folded"
    assert attention_on(torch.device("cuda"), torch.bfloat16) == ("fused" if runs_triton() else "folded")


if __name__ == "__main__":
    print(json.dumps(differences()))
