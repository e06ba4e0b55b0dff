"""What the overlays render to, as `kubectl apply -k` would send it."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.conftest import ROOT

KUBERNETES = ROOT / "infra" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())

Json = dict[str, Any]


def tool(name: str) -> str:
    """A program that the dev extra installs; beside this Python, else on the PATH."""
    found = shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
    assert found, f"{name} is missing: the dev extra has it"
    return found


@functools.cache
def _render(overlay: str) -> str:
    command = [tool("kubectl"), "kustomize", str(KUBERNETES / "overlays" / overlay)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return json.dumps(list(yaml.safe_load_all(done.stdout)))


def objects(overlay: str) -> list[Json]:
    """Every object of an overlay; the caller's to break."""
    content: list[Json] = json.loads(_render(overlay))
    return content


def of_kind(content: list[Json], kind: str) -> list[Json]:
    return [one for one in content if one["kind"] == kind]


def ray_job(content: list[Json]) -> Json:
    """The RayJob, or the one that a RayCronJob would make."""
    for one in of_kind(content, "RayJob"):
        return one
    [schedule] = of_kind(content, "RayCronJob")
    return {**schedule, "kind": "RayJob", "spec": schedule["spec"]["jobTemplate"]}


def pod_templates(content: list[Json]) -> Iterator[tuple[str, Json]]:
    """(where, pod template) of every pod that comes of these objects, with the labels and containers that KubeRay adds.

    KubeRay's own additions: labels by node type; the autoscaler in the head's pod; the init container of a worker has
    the security context of the worker's first container, so it needs no check of its own.
    """
    for one in content:
        if one["kind"] == "CronJob":
            yield "CronJob", one["spec"]["jobTemplate"]["spec"]["template"]
        elif one["kind"] in ("RayJob", "RayCronJob"):
            yield from _ray_templates(ray_job([one])["spec"])
        else:
            assert "template" not in one.get("spec", {}), f"pods of a {one['kind']} are not checked yet"


def _ray_templates(spec: Json) -> Iterator[tuple[str, Json]]:
    cluster = spec["rayClusterSpec"]
    yield "submitter", spec["submitterPodTemplate"]
    head = json.loads(json.dumps(cluster["headGroupSpec"]["template"]))
    head["metadata"]["labels"]["ray.io/node-type"] = "head"
    if cluster.get("enableInTreeAutoscaling"):
        image = head["spec"]["containers"][0]["image"]
        head["spec"]["containers"].append({"name": "autoscaler", "image": image, **cluster["autoscalerOptions"]})
    yield "head", head
    for group in cluster["workerGroupSpecs"]:
        worker = json.loads(json.dumps(group["template"]))
        worker["metadata"]["labels"]["ray.io/node-type"] = "worker"
        yield f"worker {group['groupName']}", worker


def head(job: Json) -> Json:
    """The pod of the head, as a RayJob has it."""
    content: Json = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return content
