"""What the chaos scripts share: a small corpus, `relabel run` with the fake model as a process, a Ray cluster of
several nodes, an S3 server.
"""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pipeline.dataset import open_result
from pipeline.masks import binary
from pipeline.storage import Access, Store
from tests.conftest import ROOT
from tests.killers import picture

RAY_ENV = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_worker_niceness": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",  # as in RAY_SETTINGS of cluster/connection.py
}
S3_ENV = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "written-nowhere", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class Corpus:
    """Pictures with square masks; all URIs may be local or s3."""

    images: str
    masks: str
    weights: str
    config: str
    count: int
    chunks: int

    def command(self, output: str, *more: str) -> list[str]:
        given = {"--images": self.images, "--masks": self.masks, "--output": output, "--checkpoint": self.weights}
        options = [part for pair in given.items() for part in pair]
        fixed = ["--refiner", "torchscript", "--config", self.config]
        return [sys.executable, "-m", "tests.killers", "run", *options, *fixed, *more]


def make_corpus(folder: Path, count: int, chunk_images: int, side: int = 48, different: int | None = None) -> Corpus:
    """`count` images of which `different` are different files, the others hard links to them."""
    images = folder / "images"
    images.mkdir(parents=True)
    different = min(different or count, count)
    for number in range(count):
        path = images / f"{number:07d}.{'jpg' if side > 100 else 'png'}"
        if number < different:
            picture(number, side=side).save(path)
        else:
            os.link(images / f"{number % different:07d}{path.suffix}", path)
    names = sorted(path.name for path in images.iterdir())
    low, high = side // 8, side - side // 8
    square = {"category_id": 1, "segmentation": [[low, low, high, low, high, high, low, high]], "iscrowd": 0}
    content = {
        "images": [{"id": i, "file_name": name, "height": side, "width": side} for i, name in enumerate(names)],
        "annotations": [{"id": i, "image_id": i, **square} for i in range(count)],
        "categories": [{"id": 1, "name": "square"}],
    }
    (folder / "coarse.json").write_text(json.dumps(content))
    return _corpus_in(folder, count, chunk_images)


def make_detailed(folder: Path, count: int, chunk_images: int, side: int, masks_per_image: int) -> Corpus:
    """Images with many ragged masks of some ten thousand runs, each another one."""
    corpus = make_corpus(folder, count, chunk_images, side, different=8)
    random = np.random.default_rng(0)
    noise = [cv2.GaussianBlur(random.random((side, side), np.float32), (0, 0), 1.5) > 0.5 for _ in range(16)]
    with Path(corpus.masks).open("w") as file:
        names = sorted(path.name for path in Path(corpus.images).iterdir())
        images = [{"id": i, "file_name": name, "height": side, "width": side} for i, name in enumerate(names)]
        file.write(f'{{"images": {json.dumps(images)}, "categories": [{{"id": 1, "name": "ragged"}}], "annotations": [')
        for number in range(count * masks_per_image):
            ragged = np.roll(noise[number % 16], number // 16, axis=1).astype(np.uint8)
            mask = {"id": number, "image_id": number // masks_per_image, "category_id": 1, "iscrowd": 0}
            file.write(f"{',' if number else ''}\n{json.dumps({**mask, 'segmentation': binary.encode(ragged)})}")
        file.write("]}")
    return corpus


def _corpus_in(folder: Path, count: int, chunk_images: int) -> Corpus:
    """What stands in the folder, with a configuration and something that passes for weights."""
    (folder / "weights").write_text("any file")
    operation = {"chunk_images": chunk_images, "chunk_decoded_mb": 4096}
    (folder / "config.yaml").write_text(json.dumps({"operation": operation}))
    paths = (str(folder / name) for name in ("images", "coarse.json", "weights", "config.yaml"))
    return Corpus(*paths, count, -(-count // chunk_images))


def make_tars(folder: Path, count: int, chunk_images: int, side: int = 64, per_tar: int = 1000) -> Corpus:
    """`count` samples in WebDataset tars: one of eight pictures each, and a square mask that is another one each."""
    tars = folder / "tars"
    tars.mkdir(parents=True)
    pictures = []
    for seed in range(8):
        sink = io.BytesIO()
        picture(seed, side=side).save(sink, "JPEG")
        pictures.append(sink.getvalue())
    for first in range(0, count, per_tar):
        with tarfile.open(tars / f"{first // per_tar:05d}.tar", "w") as tar:
            for number in range(first, min(first + per_tar, count)):
                low, high = 2 + number % 11, side - 2 - number % 13
                polygon = [low, low, high, low, high, high, low, high]
                found = {"annotations": [{"id": number, "category_id": 1, "segmentation": [polygon]}]}
                for suffix, data in (("jpg", pictures[number % 8]), ("json", json.dumps(found).encode())):
                    info = tarfile.TarInfo(f"{number:07d}.{suffix}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "weights").write_text("any file")
    config = folder / "config.yaml"
    config.write_text(json.dumps({"operation": {"chunk_images": chunk_images}}))
    return Corpus(str(tars), str(tars), str(folder / "weights"), str(config), count, -(-count // chunk_images))


def upload(corpus: Corpus, target: Store) -> Corpus:
    """The corpus on another store (the configuration and the weights stay)."""
    for file in Store(corpus.images).list():
        target.put(f"images/{file.path}", Store(corpus.images).read(file.path))
    target.put("coarse.json", Path(corpus.masks).read_bytes())
    return replace(corpus, images=f"{target.uri}/images", masks=f"{target.uri}/coarse.json")


def start(command: Sequence[str], **env: str) -> subprocess.Popen[bytes]:
    """A run as the leader of its own process group, silent."""
    return subprocess.Popen(
        list(command),
        cwd=ROOT,
        env={**os.environ, **RAY_ENV, **S3_ENV, **env},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def hashes(output: str, access: Access) -> dict[str, list[str]]:
    """Content hashes of the live shards."""
    manifest = open_result(output, access).manifest
    return {kind: [shard.sha256 for shard in manifest.shards(kind)] for kind in ("masks", "images")}


def parts(output: str, access: Access) -> int:
    """Finished chunks, over all methods."""
    return sum("/parts/" in file.path for file in Store(output, access).list("runs"))


@contextmanager
def s3_server() -> Iterator[str]:
    """moto's S3 server in threads of this process, with a bucket `chaos`; credentials go into the environment."""
    import boto3
    from moto.server import ThreadedMotoServer

    os.environ.update(S3_ENV)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    try:
        host, port = server.get_host_and_port()
        boto3.client("s3", endpoint_url=f"http://{host}:{port}").create_bucket(Bucket="chaos")
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def cluster(nodes: int, **head: Any) -> Iterator[Any]:
    """A Ray cluster: a head without CPUs and `nodes` nodes of one CPU each, or a head alone that has them."""
    os.environ.update(RAY_ENV)
    from ray.cluster_utils import Cluster

    spare = {"include_dashboard": False, "include_log_monitor": False}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0 if nodes else 2, **spare, **head})
    try:
        for _ in range(nodes):
            made.add_node(num_cpus=1)
        yield made
    finally:
        made.shutdown()
