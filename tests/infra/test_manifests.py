"""Every overlay renders, and every object would be accepted by the cluster it is for. No cluster is asked.

Each rule is also shown to notice what it is there for: a manifest is broken, and the complaint must come.
"""

import functools
import inspect
import json
import re
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from pipeline.configuration import resolve
from tests.conftest import ROOT
from tests.infra import rules
from tests.infra.rendered import KUBERNETES, OVERLAYS, Json, objects, of_kind, pod_templates, ray_job

CRDS = ROOT.parent / "shared" / "crds"
OLDEST, NEWEST = "1.31.0", kubernetes_validate.latest_version()
NOT_BUILT_IN = {"RayJob", "RayCronJob", "PodMonitor", "PrometheusRule"}


@functools.cache
def crd(kind: str) -> Json:
    path = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not path.exists():
        pytest.skip(f"KubeRay's CRDs are not at {CRDS}")
    content: Json = yaml.load(path.read_text(), yaml.CSafeLoader)  # a megabyte: ten times as quick
    return content


def head(job: Json) -> Json:
    content: Json = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    return content


def test_the_overlays_are_known() -> None:
    assert OVERLAYS == ["gpu-spot", "kueue", "local-cpu", "nightly", "raycronjob"]


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("version", [OLDEST, NEWEST])
def test_built_in_objects_are_valid(overlay: str, version: str) -> None:
    checked = [one for one in objects(overlay) if one["kind"] not in NOT_BUILT_IN]
    assert len(checked) > 5
    for one in checked:
        kubernetes_validate.validate(one, version, strict=True)


def test_an_unknown_field_of_a_built_in_object_is_noticed() -> None:
    [cron] = of_kind(objects("nightly"), "CronJob")
    cron["spec"]["concurencyPolicy"] = "Forbid"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(cron, NEWEST, strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_ray_objects_fit_their_crds(overlay: str) -> None:
    ours = [one for one in objects(overlay) if one["apiVersion"] == "ray.io/v1"]
    assert len(ours) == 1
    for one in ours:
        assert rules.crd_errors(crd(one["kind"]), one) == []


@pytest.mark.parametrize("overlay", ["gpu-spot", "raycronjob"])
def test_what_the_crds_do_not_know_is_noticed(overlay: str) -> None:
    [one] = [one for one in objects(overlay) if one["apiVersion"] == "ray.io/v1"]
    spec = one["spec"].get("jobTemplate", one["spec"])
    spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
    spec["backoffLimit"] = "2"
    complaints = " ".join(rules.crd_errors(crd(one["kind"]), one))
    assert "livenesProbe" in complaints
    assert "backoffLimit" in complaints


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_kuberay_would_take_them(overlay: str) -> None:
    for kind in ("RayJob", "RayCronJob"):
        for one in of_kind(objects(overlay), kind):
            assert rules.kuberay_errors(one) == []


def cluster_of(job: Json) -> Json:
    content: Json = job["spec"]["rayClusterSpec"]
    return content


def workers_of(job: Json) -> Json:
    content: Json = cluster_of(job)["workerGroupSpecs"][0]
    return content


def head_env(job: Json, name: str) -> None:
    head(job)["containers"][0]["env"].append({"name": name, "value": "1"})


BROKEN_JOBS: list[tuple[str, str, Callable[[Json], Any]]] = [
    ("gpu-spot", "at most 47", lambda job: job["metadata"].update(name="a" * 48)),
    ("raycronjob", "at most 36", lambda job: job["metadata"].update(name="a" * 37)),
    ("raycronjob", "no time zone", lambda job: job["spec"].update(schedule="TZ=Etc/UTC 0 2 * * *")),
    ("raycronjob", "no five fields", lambda job: job["spec"].update(schedule="0 2 * *")),
    ("gpu-spot", "no DNS label", lambda job: job["metadata"].update(name="1-relabel")),
    ("gpu-spot", "ttlSecondsAfterFinished needs", lambda job: job["spec"].pop("shutdownAfterJobFinishes")),
    ("gpu-spot", "ttlSecondsAfterFinished is negative", lambda job: job["spec"].update(ttlSecondsAfterFinished=-1)),
    ("nightly", "suspend needs", lambda job: job["spec"].update(shutdownAfterJobFinishes=False)),
    ("gpu-spot", "autoscaler v2 needs restartPolicy", lambda job: head(job).update(restartPolicy="Always")),
    ("gpu-spot", "SidecarMode excludes", lambda job: job["spec"].update(submissionMode="SidecarMode")),
    (
        "gpu-spot",
        "SidecarMode needs restartPolicy",
        lambda job: (job["spec"].update(submissionMode="SidecarMode"), head(job).update(restartPolicy="OnFailure")),
    ),
    ("gpu-spot", "InteractiveMode excludes", lambda job: job["spec"].update(submissionMode="InteractiveMode")),
    (
        "nightly",
        "clusterSelector excludes suspend",
        lambda job: job["spec"].update(clusterSelector={"ray.io/cluster": "x"}),
    ),
    ("gpu-spot", "activeDeadlineSeconds is not", lambda job: job["spec"].update(activeDeadlineSeconds=0)),
    ("gpu-spot", "preRunningDeadlineSeconds is not", lambda job: job["spec"].update(preRunningDeadlineSeconds=0)),
    ("gpu-spot", "backoffLimit is negative", lambda job: job["spec"].update(backoffLimit=-1)),
    ("gpu-spot", "needs a feature gate", lambda job: job["spec"].update(deletionStrategy={"deletionRules": []})),
    ("gpu-spot", "rayVersion 2.52", lambda job: cluster_of(job).update(rayVersion="2.50.0")),
    ("gpu-spot", "Kubernetes' own tokens", lambda job: cluster_of(job)["authOptions"].update(enableK8sTokenAuth=True)),
    ("gpu-spot", "upgradeStrategy", lambda job: cluster_of(job).update(upgradeStrategy={"type": "Recreate"})),
    ("gpu-spot", "autoscaler v2 is set twice", lambda job: head_env(job, "RAY_enable_autoscaler_v2")),
    ("kueue", "without enableInTreeAutoscaling", lambda job: head_env(job, "RAY_enable_autoscaler_v2")),
    ("gpu-spot", "Redis without", lambda job: head_env(job, "RAY_REDIS_ADDRESS")),
    (
        "gpu-spot",
        "idleTimeoutSeconds is negative",
        lambda job: cluster_of(job)["autoscalerOptions"].update(idleTimeoutSeconds=-1),
    ),
    ("gpu-spot", "replicas out of order", lambda job: workers_of(job).update(minReplicas=9)),
    (
        "gpu-spot",
        "resources in rayStartParams",
        lambda job: cluster_of(job)["headGroupSpec"].update(resources={"CPU": "1"}),
    ),
    ("gpu-spot", "labels in rayStartParams", lambda job: workers_of(job)["rayStartParams"].update(labels="a=b")),
    ("gpu-spot", "suspended with autoscaling", lambda job: workers_of(job).update(suspend=True)),
    ("kueue", "needed without autoscaling", lambda job: workers_of(job).pop("minReplicas")),
    ("kueue", "idleTimeoutSeconds needs", lambda job: workers_of(job).update(idleTimeoutSeconds=60)),
]


@pytest.mark.parametrize(("overlay", "complaint", "break_it"), BROKEN_JOBS, ids=[case[1] for case in BROKEN_JOBS])
def test_what_kuberay_refuses_is_noticed(overlay: str, complaint: str, break_it: Callable[[Json], Any]) -> None:
    [job] = [one for one in objects(overlay) if one["kind"] in ("RayJob", "RayCronJob")]
    break_it(job)
    assert any(complaint in error for error in rules.kuberay_errors(job))


def test_no_rule_of_kuberay_is_without_a_broken_manifest() -> None:
    source = inspect.getsource(rules)
    source = source[source.index("def kuberay_errors") : source.index("def _true")]
    stated = re.findall(r'^ {12}"([^"]+)":', source, re.MULTILINE)
    assert len(stated) > 25
    assert [rule for rule in stated if not any(complaint in rule for _, complaint, _ in BROKEN_JOBS)] == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_pod_is_restricted(overlay: str) -> None:
    content = objects(overlay)
    places = dict(pod_templates(content))
    assert {"submitter", "head"} < places.keys()
    for where, template in places.items():
        assert rules.restricted_errors(template["spec"]) == [], where
        mounted = {mount["name"] for one in template["spec"]["containers"] for mount in one.get("volumeMounts", [])}
        assert mounted == {volume["name"] for volume in template["spec"]["volumes"]}, where
        writable = {mount["mountPath"] for mount in template["spec"]["containers"][0]["volumeMounts"]}
        assert "/tmp" in writable or where == "CronJob", "Ray and its libraries write there"
    [namespace] = of_kind(content, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


BROKEN_PODS: list[tuple[str, Callable[[Json], Any]]] = [
    ("hostNetwork", lambda pod: pod.update(hostNetwork=True)),
    ("hostPath", lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}})),
    ("may run as root", lambda pod: pod["securityContext"].update(runAsNonRoot=False)),
    ("may run as root", lambda pod: pod["securityContext"].update(runAsUser=0)),
    ("no seccomp profile", lambda pod: pod["securityContext"].pop("seccompProfile")),
    ("escalation", lambda pod: pod["containers"][0]["securityContext"].pop("allowPrivilegeEscalation")),
    ("privileged", lambda pod: pod["containers"][0]["securityContext"].update(privileged=True)),
    ("capabilities", lambda pod: pod["containers"][0]["securityContext"].pop("capabilities")),
    ("hostPort", lambda pod: pod["containers"][0].update(ports=[{"containerPort": 1, "hostPort": 1}])),
    ("root file system", lambda pod: pod["containers"][0]["securityContext"].pop("readOnlyRootFilesystem")),
    ("no limits", lambda pod: pod["containers"][0]["resources"].pop("limits")),
    ("not pinned", lambda pod: pod["containers"][0].update(image="relabel:latest")),
    ("not pinned", lambda pod: pod["containers"][0].update(image="registry:5000/relabel")),
    ("stands in", lambda pod: pod["containers"][0].update(env=[{"name": "RAY_AUTH_TOKEN", "value": "x"}])),
]


@pytest.mark.parametrize(("complaint", "break_it"), BROKEN_PODS, ids=[case[0] for case in BROKEN_PODS])
def test_what_is_not_restricted_is_noticed(complaint: str, break_it: Callable[[Json], Any]) -> None:
    for _, template in pod_templates(objects("nightly")):
        break_it(template["spec"])
        assert any(complaint in error for error in rules.restricted_errors(template["spec"]))


def test_an_unlocked_autoscaler_is_noticed() -> None:
    content = objects("gpu-spot")
    ray_job(content)["spec"]["rayClusterSpec"]["autoscalerOptions"].pop("securityContext")
    assert any("autoscaler" in error for error in rules.restricted_errors(dict(pod_templates(content))["head"]["spec"]))


def pods_and_policies(overlay: str) -> tuple[dict[str, Json], list[Json]]:
    content = objects(overlay)
    pods = {
        where.partition(" ")[0]: {"labels": template["metadata"]["labels"], "namespace": "relabel"}
        for where, template in pod_templates(content)
    }
    policies = of_kind(content, "NetworkPolicy")
    assert {policy["metadata"]["namespace"] for policy in policies} == {"relabel"}
    return pods, policies


STRANGER = {"labels": {"app": "x"}, "namespace": "relabel"}
OPERATOR = {"labels": {"app.kubernetes.io/name": "kuberay-operator"}, "namespace": "kuberay-system"}
PROMETHEUS = {"labels": {"app.kubernetes.io/name": "prometheus"}, "namespace": "monitoring"}
DNS = {"labels": {"k8s-app": "kube-dns"}, "namespace": "kube-system"}
PUBLIC, API_SERVER, METADATA = {"ip": "52.216.1.1"}, {"ip": "10.96.0.1"}, {"ip": "169.254.169.254"}
RAY_PORTS = (6379, 8265, 10001, 52365, 8076, 23456)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_network_is_closed_but_for_what_is_needed(overlay: str) -> None:
    pods, policies = pods_and_policies(overlay)

    def lets(direction: str, pod: str, peer: Json, port: int, protocol: str = "TCP") -> bool:
        return rules.allowed(policies, direction, pods[pod], peer, port, protocol)

    for pod in pods:
        assert not lets("Ingress", pod, STRANGER, 8265)
        assert not lets("Ingress", pod, PUBLIC, 8265)
        assert not lets("Egress", pod, METADATA, 80)
        assert not lets("Egress", pod, STRANGER, 80)
        assert not lets("Egress", pod, PUBLIC, 80)
        assert lets("Egress", pod, DNS, 53, "UDP")
        assert not lets("Ingress", pod, {"labels": pods["head"]["labels"], "namespace": "other"}, 6379)
    for port in RAY_PORTS:
        assert lets("Ingress", "head", pods["worker"], port)
        assert lets("Egress", "worker", pods["head"], port)
        assert lets("Ingress", "worker", pods["head"], port)
        assert lets("Ingress", "head", OPERATOR, port) == (port == 8265)
        assert not lets("Ingress", "worker", OPERATOR, port)
        assert not lets("Ingress", "head", PROMETHEUS, port)
        assert not lets("Ingress", "head", {**OPERATOR, "namespace": "default"}, port)
    assert lets("Egress", "submitter", pods["head"], 8265)
    assert lets("Ingress", "head", PROMETHEUS, 8080)
    assert lets("Ingress", "head", PROMETHEUS, 9464)
    assert lets("Egress", "worker", PUBLIC, 443)
    assert lets("Egress", "head", API_SERVER, 443)
    assert not lets("Egress", "worker", API_SERVER, 443)
    assert not lets("Egress", "submitter", API_SERVER, 443)


def test_the_nightly_pod_reaches_the_api_server_only() -> None:
    pods, policies = pods_and_policies("nightly")
    assert rules.allowed(policies, "Egress", pods["CronJob"], API_SERVER, 6443)
    for port in RAY_PORTS:
        assert not rules.allowed(policies, "Egress", pods["CronJob"], pods["head"], port)
        assert not rules.allowed(policies, "Ingress", pods["head"], pods["CronJob"], port)


def test_an_open_network_is_noticed() -> None:
    pods, policies = pods_and_policies("gpu-spot")
    without_default = [one for one in policies if one["metadata"]["name"] not in ("default-deny", "dns")]
    assert rules.allowed(without_default, "Egress", STRANGER, METADATA, 80)
    [inside] = [one for one in policies if one["metadata"]["name"] == "ray-inside"]
    inside["spec"]["ingress"][0].pop("from")
    assert rules.allowed(policies, "Ingress", pods["head"], STRANGER, 8265)


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


def test_nothing_secret_and_nothing_of_this_machine() -> None:
    for path in (ROOT / "infra").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|/work/", text), path
