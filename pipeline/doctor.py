"""What of this machine, its packages and a store would stop or slow a run: one finding a check, and what to do."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.cluster.connection import check_reachable, connected
from pipeline.errors import RelabelError
from pipeline.models.loading import check_device, visible_gpus
from pipeline.models.weights import cache_folder
from pipeline.storage import Access, Store
from pipeline.storage.atomic import TEMPORARY_PREFIX
from pipeline.storage.backoff import STORE_ERRORS
from pipeline.storage.lease import check_store
from pipeline.storage.preflight import check_writable
from pipeline.words import plural
from schemas import layout

GIB = 1 << 30
PACKAGES = ("ray", "torch", "torchvision", "numpy", "pyarrow", "fsspec", "s3fs")
MIN_PYTHON = (3, 11)
MIN_OPEN_FILES = 4096
MIN_SHM_SHARE = 0.3
"""Of memory. Ray's object store takes as much, and falls back to a disk where /dev/shm is smaller."""
FULL_DISK = 0.95
"""Ray refuses to spill to a disk that is fuller."""
MAX_CLOCK_SKEW_S = 300.0
"""S3 refuses requests that are 15 minutes off."""

State = Literal["ok", "warning", "problem"]


class Finding(NamedTuple):
    """What a check found. do: what to do about it, "" where nothing has to be done."""

    check: str
    state: State
    found: str
    do: str = ""


Check = Callable[[], Finding]


def diagnose(store_uri: str | None, access: Access, address: str | None, *, with_ray: bool) -> Iterator[Finding]:
    """Each finding as it is made, quick ones first.

    store_uri: an output that a run would write to; a few small files are written there and deleted. address: of a Ray
    cluster, as `pipeline.run` takes it. with_ray: connect to it, or start one here.
    """
    checks: list[Check] = [python, packages, processors, memory, shared_memory, disks, open_files, compiler, gpus]
    if store_uri is not None:
        checks.append(lambda: writable(Store(store_uri, access)))
        checks.append(lambda: conditional_writes(Store(store_uri, access)))
        checks.append(lambda: clock(Store(store_uri, access)))
    if with_ray:
        checks.append(lambda: ray(address))
    for check in checks:
        yield check()
    if store_uri is not None:
        _remove_empty(Store(store_uri, access))


def _remove_empty(store: Store) -> None:
    """Folders on this machine that the checks made: those with anything in them stay."""
    if store.is_local:
        for folder in (Path(store.full(layout.LEASES)), Path(store.full(""))):
            with suppress(OSError):  # not empty, or never made: then there is nothing of ours in it
                folder.rmdir()


def python() -> Finding:
    """The interpreter."""
    found = f"{platform.python_version()} at {sys.executable}, {platform.system()} {platform.machine()}"
    if sys.version_info < MIN_PYTHON:
        return Finding("python", "problem", found, f"install Python {'.'.join(map(str, MIN_PYTHON))} or later")
    return Finding("python", "ok", found)


def packages() -> Finding:
    """This package and those that a run needs."""
    versions = {name: _version(name) for name in PACKAGES}
    here = Path(__file__).parent.parent
    found = ", ".join([f"relabel at {here}", *(f"{name} {which}" for name, which in versions.items())])
    missing = [name for name, which in versions.items() if which == "missing"]
    if missing:
        return Finding("packages", "problem", found, f"install {', '.join(missing)}")
    return Finding("packages", "ok", found)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def processors() -> Finding:
    """CPUs that this process may use."""
    usable, there = _usable_cpus(), os.cpu_count() or 1
    return Finding("CPUs", "ok", f"{usable} of {there}" if usable < there else str(there))


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> Finding:
    """Memory of the machine, or of the container that this is."""
    found = f"{memory_bytes() / GIB:.1f} GiB"
    if memory_bytes() < 4 * GIB:
        return Finding("memory", "warning", found, "a run needs about 4 GiB: give it more, or fewer --actors")
    return Finding("memory", "ok", found)


def memory_bytes(limit: Path = Path("/sys/fs/cgroup/memory.max")) -> int:
    """What there is, or the container's limit where that is lower. limit: file that holds it, as cgroups v2 have it."""
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(there, int(limit.read_text()))
    except (OSError, ValueError):  # no limit: "max"
        return there


def shared_memory(folder: Path = Path("/dev/shm")) -> Finding:  # noqa: S108 - where Ray keeps its objects
    """Room for Ray's objects in flight."""
    if not folder.is_dir():
        return Finding("shared memory", "ok", f"no {folder} here; Ray uses a temporary folder")
    size = shutil.disk_usage(folder).total
    found = f"{folder} {size / GIB:.1f} GiB"
    if size < MIN_SHM_SHARE * memory_bytes():
        do = (
            f"give it {MIN_SHM_SHARE * memory_bytes() / GIB:.0f} GiB (docker: --shm-size), else Ray uses a disk, slowly"
        )
        return Finding("shared memory", "warning", found, do)
    return Finding("shared memory", "ok", found)


def disks() -> Finding:
    """Folders that a run writes to besides its output."""
    folders = dict.fromkeys([Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()), cache_folder()])
    found, do = [], ""
    for folder in folders:
        there = next(parent for parent in (folder, *folder.parents) if parent.is_dir())
        used, free = shutil.disk_usage(there).used, shutil.disk_usage(there).free
        found.append(f"{folder} {free / GIB:.1f} GiB free")
        if not os.access(there, os.W_OK):
            do = f"{there} cannot be written: set TMPDIR, or RELABEL_CACHE for weights"
        elif used > FULL_DISK * (used + free):
            do = f"{there} is more than {FULL_DISK:.0%} full: Ray stops spilling there; make room or set RAY_TMPDIR"
    return Finding("disks", "warning" if do else "ok", ", ".join(found), do)


def open_files() -> Finding:
    """Limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < MIN_OPEN_FILES:
        return Finding("open files", "warning", f"at most {soft}", f"ulimit -n {MIN_OPEN_FILES * 16}, for many actors")
    return Finding("open files", "ok", f"at most {soft}")


def compiler() -> Finding:
    """What `operation.compile` needs."""
    path = next(filter(None, map(shutil.which, (os.environ.get("CC") or "cc", "gcc", "clang"))), None)
    return Finding("C compiler", "ok", path or "none (only `operation.compile` needs one)")


def gpus() -> Finding:
    """GPUs that torch can use here, or why it cannot."""
    try:
        check_device("cuda")
    except RelabelError as error:
        if shutil.which("nvidia-smi"):
            return Finding("GPUs", "problem", "torch cannot use them; models run on the CPU", str(error))
        return Finding("GPUs", "ok", "none; models run on the CPU")
    found = visible_gpus()
    names = ", ".join(f"{gpu.name} {gpu.memory_bytes / GIB:.0f} GiB" for gpu in found)
    if not all(gpu.multiplies_bfloat16 for gpu in found):
        return Finding("GPUs", "warning", names, "not every one multiplies bfloat16: set method.dtype to float16")
    return Finding("GPUs", "ok", names)


def writable(store: Store) -> Finding:
    """May the output be written?"""
    try:
        check_writable(store)
    except RelabelError as error:
        return Finding("store", "problem", str(error), "check the URI, the endpoint and the credentials")
    return Finding("store", "ok", f"{store.uri} can be written")


def conditional_writes(store: Store) -> Finding:
    """Can the store tell two runs at once apart?"""
    try:
        check_store(store)
    except RelabelError as error:
        return Finding("conditional writes", "problem", str(error), "use a store that has them, or --assume-exclusive")
    return Finding("conditional writes", "ok", "a file that exists is not overwritten")


def clock(store: Store) -> Finding:
    """This machine's clock against the store's."""
    name = f"{TEMPORARY_PREFIX}clock-{uuid.uuid4().hex}"
    try:
        before = time.time()
        store.put(name, b"")
        after = time.time()
        [written_s] = [file.modified_s for file in store.list(temporary=True) if file.path == name] or [None]
        store.delete(name)
    except STORE_ERRORS as error:
        return Finding("clock", "problem", str(error))
    if written_s is None:
        return Finding("clock", "ok", "this store does not tell the time")
    ahead_s = max(0.0, before - 1 - written_s) - max(0.0, written_s - after - 1)  # stores tell whole seconds
    found = "as the store's" if not ahead_s else f"{abs(ahead_s):.0f} s {'ahead of' if ahead_s > 0 else 'behind'} it"
    if abs(ahead_s) > MAX_CLOCK_SKEW_S:
        return Finding("clock", "problem", found, "set this machine's clock (NTP): signed requests will be refused")
    return Finding("clock", "ok", found)


def ray(address: str | None) -> Finding:
    """Does a cluster answer, and what does it have?"""
    started = time.monotonic()
    try:
        check_reachable(address or os.environ.get("RAY_ADDRESS"))
        with connected(address) as cluster:
            has = {name: cluster.resources.get(name, 0.0) for name in ("CPU", "GPU")}
            nodes = sum(key.startswith("node:") and "head" not in key for key in cluster.resources)
            answers = sorted(cluster.map(abs, range(4)))
    except RelabelError as error:
        return Finding("ray", "problem", str(error), "see its log files: /tmp/ray/session_latest/logs")
    if answers != [0, 1, 2, 3]:
        return Finding("ray", "problem", f"its tasks answered {answers}")
    took = time.monotonic() - started
    found = ", ".join([plural(nodes, "node"), *(plural(round(has[what]), what) for what in ("CPU", "GPU"))])
    return Finding("ray", "ok", f"{found}; a task came back after {took:.0f} s")
