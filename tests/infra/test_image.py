"""infra/Dockerfile, built and run: by buildah, on Debian with its own Python where no registry of images is to be had.

PYTHON_IMAGE   a base that this machine has already, in place of the one that debootstrap makes
TORCH_INDEX    an index with torch built for CPUs: smaller by 3 GB
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from pipeline.dataset import open_result
from tests.conftest import ROOT
from tests.infra.containers import Image, built, debian_with_python, inside, missing, missing_for_builds, opened

DOCKERFILE = ROOT / "infra" / "Dockerfile"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(bool(missing()), reason=f"no image can be run here: {missing()}"),
]

STANDING = """
import os, socket
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(os.getuid(), os.getgid(), os.getgroups())
print({status[name].strip() for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")})
for folder in ("/", "/opt/relabel", "/usr", "/etc", "/var", "/home", "/weights", "/dev", "/tmp", "/dev/shm", "/cache"):
    try:
        with open(folder + "/written", "w"):
            print(folder, end=" ")
    except OSError:  # it cannot be written: what is printed are those that can
        pass
print()
print([name for _, name in socket.if_nameindex()])
"""
KERNEL = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.build import compile_module_from_src

@triton.jit
def add_one(source, target, n, BLOCK: tl.constexpr):
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(target + i, tl.load(source + i, mask=i < n) + 1, mask=i < n)

types = {"source": "*fp32", "target": "*fp32", "n": "i32", "BLOCK": "constexpr"}
kernel = triton.compile(ASTSource(add_one, types, {(3,): 64}), target=GPUTarget("cuda", 90, 32))
print(kernel.asm["cubin"][:4])
stub = '''
#include <Python.h>
static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "stub", NULL, -1, NULL};
PyMODINIT_FUNC PyInit_stub(void) { return PyModule_Create(&module); }
'''
print(compile_module_from_src(stub, "stub").__name__)
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """Built once for all tests of this file, and removed after them."""
    with opened(os.environ["IMAGE"]) if "IMAGE" in os.environ else fresh() as image:
        print(f"\n{image.bytes_ / 1e9:.2f} GB in files")
        yield image


@contextmanager
def fresh() -> Iterator[Image]:
    if why := missing_for_builds():
        pytest.skip(f"no image can be built here: {why}")
    [suite] = re.findall(r"^ARG PYTHON_IMAGE=python:[\d.]+-slim-(\w+)$", DOCKERFILE.read_text(), re.M)
    given = os.environ.get("PYTHON_IMAGE")
    index = {"TORCH_INDEX": os.environ["TORCH_INDEX"]} if "TORCH_INDEX" in os.environ else {}
    with (
        nullcontext(given) if given else debian_with_python(suite) as base,
        built(DOCKERFILE, ROOT, PYTHON_IMAGE=base, **index) as image,
    ):
        yield image


def test_it_is_closed_as_a_pod_is(image: Image, tmp_path: Path) -> None:
    done = inside(image, tmp_path, "python", "-c", STANDING)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["10001 10001 []", "{'0000000000000000'}", "/tmp /dev/shm /cache ", "['lo']"]


def test_the_demo_runs_in_it(image: Image, tmp_path: Path) -> None:
    done = inside(image, tmp_path, "relabel", "demo", "--output", "/tmp/demo")
    assert done.returncode == 0, done.stderr[-3000:]
    assert open_result(str(tmp_path / "demo" / "result")).masks().num_rows == 10
    assert len(list((tmp_path / "demo" / "pictures").glob("*.png"))) == 5


@pytest.mark.skipif("TORCH_INDEX" in os.environ, reason="torch built for CPUs brings no Triton")
def test_kernels_compile_in_it(image: Image, tmp_path: Path) -> None:
    """What `operation.compile` does on a GPU: a kernel for an H100, and a module in C that launches it."""
    (tmp_path / "kernel.py").write_text(KERNEL)
    done = inside(image, tmp_path, "python", "/tmp/kernel.py")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split() == [r"b'\x7fELF'", "stub"]
