"""From a spec and weights to a model that is ready to run, in the process that calls. Imports torch when it has to."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import cv2

from pipeline.errors import RefusedError
from pipeline.models import registry
from pipeline.models.ensemble import Ensemble
from pipeline.models.hardware import has_c_compiler, runs_triton
from pipeline.models.protocol import Model
from pipeline.models.registry import ModelSpec, Runtime
from pipeline.models.weights import Weights, cache_folder, local_path

DEVICE = re.compile(r"cpu|cuda(:\d+)?")
BFLOAT16_SINCE = (8, 0)
"""Compute capability of the first GPUs whose tensor cores multiply bfloat16 (Ampere)."""


def load_model(
    model: ModelSpec | str,
    weights: Weights,
    device: str,
    threads: int,
    dtype: str = "float32",
    compiled: bool = False,
    encode_batch: int = 8,
) -> Model:
    """The model, ready on `device` ("cpu", "cuda"), with torch held to `threads` CPU threads in this process.

    model: its spec, or the name of a registered one. dtype, compiled, encode_batch: see Runtime.

    Raises RefusedError when the weights are not those of the model, it cannot be compiled, or the device does not do.
    """
    spec = model if isinstance(model, ModelSpec) else registry.resolve(model, weights.readable, weights.access)
    if spec.members:
        pairs = zip(spec.members, weights.members, strict=True)
        loaded_each = [load_model(one, own, device, threads, dtype, compiled, encode_batch) for one, own in pairs]
        return Ensemble.of(spec, loaded_each, weights.sha256)
    runtime = Runtime(device, dtype, compiled, encode_batch)
    check_usable(spec, runtime, adapted=weights.adapter is not None)
    if spec.checkpoint is None:
        return _checked(spec.load(spec, Path(), "", runtime), spec)
    check_device(device, dtype)
    prepare(threads)
    loaded = _checked(spec.load(spec, local_path(weights), weights.sha256, runtime), spec)
    if weights.adapter is not None:
        from pipeline.models import adapter  # imports torch

        adapter.apply(loaded, local_path(weights.adapter))  # type: ignore[arg-type]  # adaptable, says its spec
    return loaded


def check_usable(spec: ModelSpec, runtime: Runtime, *, adapted: bool = False) -> None:
    """Raise RefusedError for what is asked of a model and is not to be had."""
    if runtime.compiled and (runtime.device == "cpu" or not spec.compilable):
        which = registry.names_where(lambda one: one.compilable)
        raise RefusedError(f"operation.compile is for {which} on GPUs, not for {spec.name} on {runtime.device}")
    if runtime.compiled and not has_c_compiler():
        raise RefusedError("operation.compile needs a C compiler (cc, gcc or clang) and none was found: install gcc")
    if adapted and not spec.adaptable:
        raise RefusedError(f"model {spec.name} has no IoU head for an adapter")


class Gpu(NamedTuple):
    """A GPU that torch sees."""

    name: str
    memory_bytes: int
    multiplies_bfloat16: bool


def visible_gpus() -> list[Gpu]:
    """Those that torch can use in this process, in its order."""
    import torch  # takes seconds

    known = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [Gpu(one.name, one.total_memory, (one.major, one.minor) >= BFLOAT16_SINCE) for one in known]


def pick_device(device: str) -> str:
    """`device`, where "auto" stands for a GPU that torch can use here, else the CPU."""
    if device != "auto":
        return device
    import torch  # takes seconds

    return "cuda" if torch.cuda.is_available() else "cpu"


def check_device(device: str, dtype: str = "float32") -> None:
    """Raise RefusedError where `device` is none, torch cannot use it, or it does not multiply `dtype`."""
    if not DEVICE.fullmatch(device):
        raise RefusedError(f"unknown device {device!r}; there are cpu, cuda and, of several GPUs, cuda:1 and so on")
    if device == "cpu":
        return
    import torch  # takes seconds

    try:
        torch.cuda.init()
    except Exception as error:  # torch has several, by what is missing
        raise RefusedError(_no_cuda(torch.version.cuda, str(error))) from None
    if dtype == "bfloat16" and torch.cuda.get_device_capability() < BFLOAT16_SINCE:
        raise RefusedError(
            f"{torch.cuda.get_device_name()} cannot multiply bfloat16, this method's dtype: "
            "set `dtype: float16` or `dtype: float32` under `method` (that is another method, with results of its own)"
        )


def _no_cuda(built_for: str | None, why: str) -> str:
    if built_for is None:
        return "device cuda: this torch is built for CPUs alone; install one that is built for CUDA"
    reason = " ".join(why.split())
    if "driver" in reason and "old" in reason:
        return (
            f"device cuda: the NVIDIA driver is too old for CUDA {built_for}, which this torch is built for: {reason}"
        )
    return f"device cuda: torch (built for CUDA {built_for}) cannot use a GPU here: {reason}"


def execution_class(
    device: str, threads: int, dtype: str = "float32", compiled: bool = False, library: str = ""
) -> str:
    """Device model, torch version, dtype, threads, compiled: in one class the same inputs give the same bytes.

    On GPUs also whether our own kernels run (`hardware.runs_triton`). library: another one that computes, by the name
    of its distribution.
    """
    import torch  # takes seconds; commands that need no model do without

    on_gpu = device.startswith("cuda")
    processor = torch.cuda.get_device_name() if on_gpu else _cpu_model()
    more = f"; {library} {version(library)}" if library else "; triton" if on_gpu and runs_triton() else ""
    return f"{processor}; torch {torch.__version__}; {dtype}; {threads} threads{'; compiled' * compiled}{more}"


def _checked(model: Model, spec: ModelSpec) -> Model:
    """The model, when it is what its spec says: images were loaded, and will be framed, by these numbers."""
    for of in ("input_side", *(("stretched", "mask_side") if spec.promptable else ())):
        if getattr(model, of) != getattr(spec, of):
            raise RefusedError(f"model {spec.name} has {of} {getattr(model, of)}, its spec {getattr(spec, of)}")
    return model


def prepare(threads: int) -> None:
    """This process's settings: CPU threads of torch and of OpenCV, and the same bytes from the same inputs."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "compiled"))

    import torch  # takes seconds; commands that need no model do without

    from pipeline.models.fused import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # all is written first
    torch.backends.cudnn.allow_tf32 = False


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123 - not a file of ours
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
