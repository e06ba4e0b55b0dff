"""What the rendered RayJob says, done without Kubernetes: `ray start --head` with a token, `ray job submit` with the
rendered entrypoint, environment and configuration against an S3 server; killed, and submitted again to a new cluster
as a KubeRay retry is; its metrics scraped on the way.

Stands in for Kubernetes: paths of mounts are folders of the test, the Secret's content is the S3 server's, and the
head's pod has the CPUs of the worker that it would start.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import pytest

from pipeline.dataset import open_result
from pipeline.progress.metrics import RunMetrics
from pipeline.storage import Access
from tests.conftest import DEMO, ROOT, free_ports
from tests.infra.rendered import Json, objects, of_kind, ray_job
from tests.infra.test_monitoring import RAYS_OWN

BIN = Path(sys.executable).parent
COPIES = 6  # of the demo's five photographs
START_TRIES = 3  # Ray gives a node 30 s to come up, which a busy machine may not manage


class Pod(NamedTuple):
    """The rendered head, as processes on this machine."""

    env: dict[str, str]
    entrypoint: str
    config: Json
    start_parameters: dict[str, str]
    metrics_port: int


class Cluster(NamedTuple):
    address: str
    metrics_port: int


@pytest.fixture
def pod(s3_endpoint: str, bucket: str, tmp_path: Path) -> Pod:
    pytest.importorskip(
        "ray.dashboard.optional_deps",
        reason="no job submission without ray[default] (the extra `cluster`)",
    )
    upload(boto3.client("s3", endpoint_url=s3_endpoint), bucket)
    content = objects("local-cpu")
    cluster = ray_job(content)["spec"]["rayClusterSpec"]
    container = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    [config_map] = [one for one in of_kind(content, "ConfigMap") if one["metadata"]["name"] == "relabel"]
    inputs = {key: value.replace("my-bucket", bucket) for key, value in config_map["data"].items()}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "relabel.yaml").write_text(config_map["data"]["relabel.yaml"])
    secret = {name: os.environ[name] for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")}
    assert container["envFrom"] == [{"secretRef": {"name": "relabel-storage", "optional": True}}]
    mounts = {"/cache": str(tmp_path / "cache"), "/tmp": str(tmp_path / "home")}
    env = {entry["name"]: environment_value(entry, inputs, mounts) for entry in container["env"]}
    threads = int(cluster["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
    head = cluster["headGroupSpec"]["rayStartParams"]
    return Pod(
        env={**env, **secret, "AWS_ENDPOINT_URL": s3_endpoint, "RAY_AUTH_TOKEN": uuid.uuid4().hex},
        entrypoint=ray_job(content)["spec"]["entrypoint"].replace("/etc/relabel", str(tmp_path / "etc")),
        config=config_map["data"],
        start_parameters={**head, "num-cpus": str(int(head["num-cpus"]) + threads)},
        metrics_port=next(port["containerPort"] for port in container["ports"] if port["name"] == "job-metrics"),
    )


def upload(client: Any, bucket: str) -> None:
    """The demo's photographs and masks under several names each."""
    content = json.loads((DEMO / "coarse.json").read_text())
    images, annotations = [], []
    for copy in range(COPIES):
        for image in content["images"]:
            name = f"{copy}-{image['file_name']}"
            body = (DEMO / "images" / image["file_name"]).read_bytes()
            client.put_object(Bucket=bucket, Key=f"photos/{name}", Body=body)
            images.append({**image, "id": 100 * copy + image["id"], "file_name": name})
        for annotation in content["annotations"]:
            ids = {"id": 100 * copy + annotation["id"], "image_id": 100 * copy + annotation["image_id"]}
            annotations.append({**annotation, **ids})
    body = json.dumps({**content, "images": images, "annotations": annotations}).encode()
    client.put_object(Bucket=bucket, Key="coarse.json", Body=body)


def environment_value(entry: Json, config: dict[str, str], mounts: dict[str, str]) -> str:
    """What the kubelet would put there."""
    if "value" in entry:
        return mounts.get(entry["value"], entry["value"])
    source = entry["valueFrom"]
    if "configMapKeyRef" in source:
        return config[source["configMapKeyRef"]["key"]]
    assert source == {"fieldRef": {"fieldPath": "metadata.labels['ray.io/cluster']"}}
    return "relabel-x7k2p"


def environment(pod: Pod, **more: str) -> dict[str, str]:
    base = {"PATH": f"{BIN}:/usr/bin:/bin", "PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))}
    return {**base, "RAY_worker_niceness": "0", "RAY_USAGE_STATS_ENABLED": "0", **pod.env, **more}


@contextmanager
def head_pod(pod: Pod) -> Iterator[Cluster]:
    """`ray start --head` as KubeRay starts it; at the end everything in it is killed, as when a node is lost."""
    mark = uuid.uuid4().hex
    folder = tempfile.mkdtemp(prefix="r")  # short: Ray's sockets lie below
    port, dashboard, agent, metrics, client = free_ports(5)
    options = {
        **pod.start_parameters,
        "port": port,
        "node-ip-address": "127.0.0.1",
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "metrics-export-port": metrics,
        "ray-client-server-port": client,
        "temp-dir": folder,
    }
    command = [
        str(BIN / "ray"),
        "start",
        "--head",
        "--block",
        *(f"--{name}={value}" for name, value in options.items()),
    ]
    env = environment(pod, RELABEL_TEST_MARK=mark)
    try:
        for _ in range(START_TRIES):
            log = Path(folder) / "start.log"
            with log.open("w") as out:
                head = subprocess.Popen(command, env=env, cwd=folder, stdout=out, stderr=out, start_new_session=True)
            if _comes_up(head, agent, dashboard):
                break
            _kill(mark)
        else:
            pytest.fail(f"Ray did not start: {log.read_text()[-2000:]}")
        yield Cluster(f"http://127.0.0.1:{dashboard}", metrics)
    finally:
        _kill(mark)
        shutil.rmtree(folder, ignore_errors=True)


def _comes_up(head: subprocess.Popen[bytes], agent_port: int, dashboard_port: int) -> bool:
    """The manifest's probe, and then what KubeRay's submitter waits for; neither has a token."""
    deadline = time.monotonic() + 240
    waiting = [f"http://127.0.0.1:{agent_port}/api/healthz", f"http://127.0.0.1:{dashboard_port}/api/gcs_healthz"]
    while waiting and time.monotonic() < deadline and head.poll() is None:
        with suppress(OSError), urllib.request.urlopen(waiting[0], timeout=10) as said:
            if said.status == 200:
                waiting.pop(0)
                continue
        time.sleep(1)
    return not waiting


def _kill(mark: str) -> None:
    """Every process that the marked environment was handed down to; nobody else's."""
    wanted = f"RELABEL_TEST_MARK={mark}".encode()
    for _ in range(5):  # some start others while they are being killed
        for process in Path("/proc").iterdir():
            if process.name.isdigit():
                with suppress(OSError):
                    if wanted in (process / "environ").read_bytes():
                        os.kill(int(process.name), signal.SIGKILL)
        time.sleep(0.2)


def ray_cli(pod: Pod, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
    env = environment(pod, **more)
    return subprocess.run([str(BIN / "ray"), *words], env=env, capture_output=True, text=True, timeout=300, check=False)


def submit(pod: Pod, cluster: Cluster, name: str) -> None:
    """As KubeRay's submitter does: the entrypoint goes through a shell, unquoted."""
    command = f"ray job submit --address {cluster.address} --submission-id {name} --no-wait -- {pod.entrypoint}"
    env = environment(pod)
    done = subprocess.run(["bash", "-ce", command], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def job_state(pod: Pod, cluster: Cluster, name: str) -> Json:
    request = urllib.request.Request(
        f"{cluster.address}/api/jobs/{name}", headers={"Authorization": f"Bearer {pod.env['RAY_AUTH_TOKEN']}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        content: Json = json.load(answer)
    return content


def events(log: str) -> list[Json]:
    return [json.loads(line) for line in log.splitlines() if line.startswith('{"time"')]


def parts(client: Any, bucket: str) -> dict[str, Any]:
    listed = client.list_objects_v2(Bucket=bucket, Prefix="refined/runs/").get("Contents", [])
    return {entry["Key"].rpartition("/")[2]: entry["LastModified"] for entry in listed if "/parts/" in entry["Key"]}


def scrape(port: int) -> str:
    with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())
    return ""


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_rendered_job_runs_is_killed_and_runs_on(pod: Pod, s3_endpoint: str, bucket: str) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint)
    with head_pod(pod) as cluster:
        refused = ray_cli(pod, "job", "list", "--address", cluster.address, RAY_AUTH_TOKEN="0" * 32)
        assert refused.returncode != 0, "a wrong token was taken"
        assert "onnection refused" not in refused.stderr
        with pytest.raises(urllib.error.HTTPError, match=r"401|403"):
            urllib.request.urlopen(f"{cluster.address}/api/jobs/", timeout=30)
        submit(pod, cluster, "relabel-1")
        deadline = time.monotonic() + 600
        while not parts(client, bucket):
            state = job_state(pod, cluster, "relabel-1")
            assert state["status"] in ("PENDING", "RUNNING"), state["message"]
            assert time.monotonic() < deadline, "no part came"
            time.sleep(0.2)
    before = parts(client, bucket)
    chunks = 4  # 30 images, 8 a chunk
    assert 0 < len(before) < chunks, "killed too late: nothing was pending"

    seen, rays = "", ""
    with head_pod(pod) as cluster:
        submit(pod, cluster, "relabel-2")
        deadline = time.monotonic() + 900
        while (state := job_state(pod, cluster, "relabel-2"))["status"] in ("PENDING", "RUNNING"):
            assert time.monotonic() < deadline, state
            seen, rays = scrape(pod.metrics_port) or seen, scrape(cluster.metrics_port) or rays
            time.sleep(1)
        assert state["status"] == "SUCCEEDED", state["message"]
        log = ray_cli(pod, "job", "logs", "--address", cluster.address, "relabel-2").stdout

    after = parts(client, bucket)
    assert len(after) == chunks
    assert before.items() <= after.items(), "a finished chunk was written again"
    told = events(log)
    done = {event["chunk"] for event in told if event["event"] == "chunk"}
    assert done == {name.removesuffix(".parquet") for name in after.keys() - before.keys()}
    assert {event["run"] for event in told} == {"relabel-x7k2p"}
    result = open_result(f"s3://{bucket}/refined", Access(s3_endpoint))
    ids = result.masks()["mask_id"].to_pylist()
    assert (result.images().num_rows, len(ids), len(set(ids))) == (5 * COPIES, 10 * COPIES, 10 * COPIES)

    for family in RunMetrics().registry.collect():
        assert f"# TYPE {family.name}" in seen, family.name
    assert 'relabel_masks_total{status="ok"}' in seen
    assert 'relabel_dataset_quality_bucket{le="+Inf"} 60.0' in seen, "the scrape after the seal has the last numbers"
    assert f'relabel_dataset_images{{status="ok"}} {5.0 * COPIES}' in seen
    missing = {name for name in RAYS_OWN if f"\n{name}{{" not in rays}
    assert not missing, f"Ray does not export {missing}"
    assert 'State="USED"' in rays
