"""Many small GETs from an S3 server through three clients behind fsspec: what each costs its process.

    python -m tests.benchmarks.speed_s3 [--objects 500 --kb 100 --threads 8 --rounds 3]     (obstore: pip install it)

prints JSON: CPU milliseconds of the client for each GET, and GETs a second. The server (moto) runs on the same machine,
so wall-clock rates are mostly its own; the CPU time of the client's process is what the clients differ in. Each client
runs in a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from typing import Any

import fsspec

from pipeline.storage.file_systems import options
from tests.chaos.runs import S3_ENV, s3_server

CLIENTS = ("s3fs", "pyarrow", "obstore")
BUCKET = "chaos"  # of s3_server


def file_system(client: str, endpoint: str) -> Any:
    if client == "s3fs":
        return fsspec.filesystem("s3", **options("s3://", endpoint, 60.0))
    if client == "pyarrow":
        from fsspec.implementations.arrow import ArrowFSWrapper
        from pyarrow.fs import S3FileSystem

        return ArrowFSWrapper(S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1"))
    from obstore.fsspec import FsspecStore

    return FsspecStore("s3", endpoint=endpoint, client_options={"allow_http": True}, region="us-east-1")


def gets(client: str, endpoint: str, objects: int, threads: int) -> dict[str, float]:
    """CPU and wall seconds of reading every object once, connections and imports warmed up."""
    fs = file_system(client, endpoint)
    paths = [f"{BUCKET}/images/{number:06d}.jpg" for number in range(objects)]

    def size(path: str) -> int:
        return len(fs.cat_file(path))

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(size, paths[: 2 * threads]))
        started, cpu = time.perf_counter(), time.process_time()
        total = sum(pool.map(size, paths))
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    return {"bytes": total, "cpu_ms_per_get": 1000 * cpu_s / objects, "gets_per_s": objects / wall_s}


def compare(objects: int, size_bytes: int, threads: int, rounds: int) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {
        client: [] for client in CLIENTS if client != "obstore" or find_spec("obstore")
    }
    with s3_server() as endpoint:
        fs = file_system("s3fs", endpoint)
        for number in range(objects):
            fs.pipe_file(f"{BUCKET}/images/{number:06d}.jpg", os.urandom(size_bytes))
        for _ in range(rounds):
            for client, results in found.items():
                words = [client, "--endpoint", endpoint, "--objects", str(objects), "--threads", str(threads)]
                command = [sys.executable, "-m", "tests.benchmarks.speed_s3", *words]
                done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **S3_ENV})
                results.append(json.loads(done.stdout))
                assert results[-1]["bytes"] == objects * size_bytes
    return {
        client: {
            name: round(statistics.median(result[name] for result in results), 2)
            for name in ("cpu_ms_per_get", "gets_per_s")
        }
        for client, results in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("client", nargs="?", choices=CLIENTS, help="only this one, against --endpoint")
    parser.add_argument("--endpoint")
    parser.add_argument("--objects", type=int, default=500)
    parser.add_argument("--kb", type=int, default=100)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    if given.client:
        result: dict[str, Any] = gets(given.client, given.endpoint, given.objects, given.threads)
    else:
        result = compare(given.objects, given.kb << 10, given.threads, given.rounds)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
