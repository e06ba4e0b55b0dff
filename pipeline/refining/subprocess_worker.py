"""One chunk, or some of its images, in a process of its own: `run_fresh` starts it, this module is it.

The child dies with its parent (it watches its standard input), may not take all of the memory, and is the first that
the kernel kills when memory runs out.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pipeline.errors import StorageError
from pipeline.refining import chunk
from pipeline.refining.isolate import Outcome
from pipeline.storage import brief

ROOT = str(Path(__file__).parents[2])
LIMIT_S = 1800.0
"""A process that takes longer hangs: no image takes this long."""
SHARE_OF_FREE_MEMORY = 0.8


def run_fresh(rows: pa.Table, job: chunk.Job, limit_s: float = LIMIT_S) -> Outcome:
    """PLAN rows -> loaded and refined in a fresh process, or how that ended."""
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            [sys.executable, "-m", "pipeline.refining.subprocess_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([ROOT, *(entry for entry in sys.path if entry)])},
            cwd="/",  # a worker's folder may be gone by now
        )
        timer = threading.Timer(limit_s, child.kill)
        timer.start()
        try:
            answer = _ask(child, pickle.dumps((job, rows)))
            code = child.wait()
            in_time = timer.is_alive()
        finally:
            timer.cancel()
            child.kill()
            child.wait()
        errors.seek(0)
        last_words = (errors.read().decode(errors="replace").strip().splitlines() or [""])[-1]
    names = f"{rows.num_rows} images" if rows.num_rows > 1 else rows["image_id"][0].as_py()
    if not in_time:
        return Outcome(None, "killed_worker", f"{names}: a worker did not come to an end in {limit_s:.0f} s")
    if code != 0 or not answer:
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return Outcome(
            None, "killed_worker", f"{names}: a worker {how}{f' ({last_words[:200]})' if last_words else ''}"
        )
    header, _, body = answer.partition(b"\n")
    failure = json.loads(header)
    if failure:
        return Outcome(None, failure["reason"], f"{names}: {failure['detail']}")
    return Outcome(pa.ipc.open_stream(body).read_all())


def _ask(child: subprocess.Popen[bytes], question: bytes) -> bytes:
    """All that the child answers. Its input stays open until then: a child whose input ends is an orphan."""
    if child.stdin is None or child.stdout is None:
        raise ValueError("the child needs both pipes")
    with child.stdout as answer:
        try:
            child.stdin.write(question)
            child.stdin.flush()
            return answer.read()
        except BrokenPipeError:
            return b""
        finally:
            with suppress(OSError):
                child.stdin.close()


def limit_memory(limit_bytes: int) -> None:
    """Hold this process's own (not shared) memory to so many bytes; beyond them allocations fail.

    What is reserved by now and was never touched does not count: Arrow's pool alone reserves a gigabyte.
    """
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    wanted = limit_bytes + _untouched_bytes()
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def _untouched_bytes() -> int:
    """What of this process's data (as RLIMIT_DATA counts it) is not in memory; 0 where that cannot be told."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        size = {
            line.split()[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmData", "RssAnon"))
        }
        return max(0, size["VmData:"] - size["RssAnon:"])
    except (OSError, LookupError, ValueError):
        return 0


def free_memory_bytes() -> int | None:
    """What this machine, or this container, has left; None where that cannot be told (not on Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (group / "memory.max").read_text(), int((group / "memory.current").read_text())
        cached = sum(
            int(line.split()[1]) for line in (group / "memory.stat").read_text().splitlines() if "_file " in line
        )
        return free if limit.strip() == "max" else max(0, min(free, int(limit) - used + cached))
    except (OSError, ValueError):
        return free


def _die_with_parent(stream: BinaryIO) -> None:
    stream.read(1)
    os._exit(1)


def _limit_own_memory(job: chunk.Job) -> None:
    """GPU drivers reserve more than they use, so there only a limit that was asked for holds."""
    free = free_memory_bytes() if job.device == "cpu" else None
    limits = [job.memory_bytes, int(free * SHARE_OF_FREE_MEMORY) if free else None]
    known = [limit for limit in limits if limit]
    if known:
        limit_memory(min(known))


def main() -> None:
    """Read (job, PLAN rows) from stdin, write one line of JSON ({} or what failed) and the part as Arrow IPC."""
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    job, rows = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the parent process, through a pipe
    threading.Thread(target=_die_with_parent, args=(sys.stdin.buffer,), daemon=True).start()
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    _limit_own_memory(job)
    try:
        loaded = chunk.load(rows, job.inputs, job.method, job.input_side, job.fetch_threads, stretched=job.stretched)
        part = chunk.refine(loaded, job.load_model(), job.method, job.refiner)
    except MemoryError:
        os._exit(1)
    except StorageError as error:
        answer.write(json.dumps({"reason": "storage", "detail": brief(error)}).encode() + b"\n")
    except Exception as error:  # whatever the code of a library raises
        detail = f"{type(error).__name__}: {brief(error)}"
        answer.write(json.dumps({"reason": "model_failed", "detail": detail}).encode() + b"\n")
    else:
        answer.write(b"{}\n")
        with pa.ipc.new_stream(answer, part.schema) as stream:
            stream.write_table(part)
    answer.flush()
    os._exit(0)  # threads of libraries may not end


if __name__ == "__main__":
    main()
