"""What an overlay says fits the product and itself: configuration, names, sizes, waiting, idle nodes."""

import json
import re

import pytest

from pipeline.configuration import resolve
from tests.conftest import ROOT
from tests.infra.rendered import KUBERNETES, OVERLAYS, head, objects, of_kind, pod_templates, ray_job


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_configuration_is_the_file_that_relabel_takes(overlay: str) -> None:
    content = objects(overlay)
    [config_map] = [one for one in of_kind(content, "ConfigMap") if one["metadata"]["name"] == "relabel"]
    job, config = ray_job(content), resolve("default", config_map["data"]["relabel.yaml"])
    cluster = job["spec"]["rayClusterSpec"]
    [group] = cluster["workerGroupSpecs"]
    container = head(job)["containers"][0]
    gpus = int(group["template"]["spec"]["containers"][0]["resources"]["limits"].get("nvidia.com/gpu", 0))
    assert (config.operation.gpus_per_actor or 0) > 0 or gpus == 0
    assert config.operation.gpus_per_actor is not None, "a cluster scaled to zero does not show its GPUs"
    if gpus:
        assert config.operation.actors_max == gpus / config.operation.gpus_per_actor * group["maxReplicas"]
    assert config.operation.log_format == "json"
    assert config.operation.max_failed_share > 0, "one bad JPEG would start clusters again and again"
    assert config.operation.metrics_port in {port["containerPort"] for port in container["ports"]}
    words = job["spec"]["entrypoint"].split()
    assert words[:2] == ["relabel", "run"]
    [mount] = [one for one in container["volumeMounts"] if one["name"] == "config"]
    [volume] = [one for one in head(job)["volumes"] if one["name"] == "config"]
    assert words[words.index("--config") + 1] == f"{mount['mountPath']}/{volume['configMap']['items'][0]['path']}"
    for entry in container["env"]:
        if reference := entry.get("valueFrom", {}).get("configMapKeyRef"):
            assert reference["name"] == "relabel"
            assert reference["key"] in config_map["data"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_names_that_are_used_exist(overlay: str) -> None:
    content = objects(overlay)
    names = {(one["kind"], one["metadata"]["name"]) for one in content}
    for where, template in pod_templates(content):
        pod = template["spec"]
        assert ("ServiceAccount", pod["serviceAccountName"]) in names, where
        assert ("PriorityClass", pod["priorityClassName"]) in names, where
        for volume in pod["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names, where


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_sizes_fit_together(overlay: str) -> None:
    cluster = ray_job(objects(overlay))["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    assert cluster["rayVersion"] == re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)[1]
    assert "nvidia.com/gpu" not in json.dumps(groups[0]), "the head has no GPU"
    for group in groups:
        pod = group["template"]["spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        volumes = {volume["name"]: volume.get("emptyDir", {}) for volume in pod["volumes"]}
        shared = _bytes(volumes["shm"]["sizeLimit"])
        assert volumes["shm"]["medium"] == "Memory"
        assert int(group["rayStartParams"]["object-store-memory"]) < shared < _bytes(limits["memory"]) / 2
        on_disk = sum(_bytes(volumes[name]["sizeLimit"]) for name in ("tmp", "cache"))
        assert on_disk <= _bytes(limits["ephemeral-storage"])


def _bytes(quantity: str) -> int:
    return int(quantity.removesuffix("Gi")) << 30


def test_the_nightly_waits_and_may_do_little() -> None:
    content = objects("nightly")
    [cron] = of_kind(content, "CronJob")
    spec = cron["spec"]
    assert (spec["concurrencyPolicy"], spec["timeZone"]) == ("Forbid", "Etc/UTC")
    assert spec["startingDeadlineSeconds"] > 200
    [container] = spec["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    job = ray_job(content)
    assert job["spec"]["suspend"] is True, "the template itself must not run"
    assert container["args"][:4] == ["--template", job["metadata"]["name"], "--job", "$(JOB_NAME)"]
    [scripts] = [one for one in of_kind(content, "ConfigMap") if one["metadata"]["name"] == "relabel-nightly"]
    assert scripts["data"]["submit.py"] == (KUBERNETES / "overlays" / "nightly" / "submit.py").read_text()
    longest_name = f"{cron['metadata']['name']}-{2**31}-ray"
    assert len(longest_name) <= 47
    [role] = of_kind(content, "Role")
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]
    assert not of_kind(content, "ClusterRole")


def test_kueue_gets_what_it_asks_for() -> None:
    job = ray_job(objects("kueue"))
    cluster = job["spec"]["rayClusterSpec"]
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert job["spec"]["suspend"] is True
    assert not cluster.get("enableInTreeAutoscaling"), "Kueue refuses a RayJob whose cluster scales itself"
    [group] = cluster["workerGroupSpecs"]
    assert group["replicas"] == group["minReplicas"] == group["maxReplicas"]


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name != "kueue"])
def test_idle_costs_nothing(overlay: str) -> None:
    job = ray_job(objects(overlay))
    cluster = job["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"]
    assert [group["minReplicas"] for group in cluster["workerGroupSpecs"]] == [0]
    assert job["spec"]["shutdownAfterJobFinishes"]
