"""Every overlay renders, and every object would be accepted by the cluster it is for. No cluster is asked.

Each rule is also shown to notice what it is there for: a manifest is broken, and the complaint must come.
"""

import functools
import inspect
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.conftest import ROOT
from tests.infra import rules
from tests.infra.rendered import OVERLAYS, Json, head, objects, of_kind, pod_templates, ray_job

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


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq, with which the page copies the template, is not here")
def test_the_parts_that_the_page_starts_are_copies_of_the_template() -> None:
    [asked] = re.findall(r"jq --arg k \$k '(.+?)' \|", (ROOT / "infra" / "README.md").read_text(), re.S)
    template = ray_job(objects("nightly"))
    there = {**template, "metadata": {**template["metadata"], "uid": "7", "resourceVersion": "1"}, "status": {}}
    told = subprocess.check_output(["jq", "--arg", "k", "2", asked], input=json.dumps(there), text=True)
    part = json.loads(told)
    assert part["metadata"] == {**template["metadata"], "name": "relabel-part-2"}
    changed = {"suspend": False, "entrypoint": f"{template['spec']['entrypoint']} --part 2/4 --no-plan"}
    assert part["spec"] == {**template["spec"], **changed}
    assert rules.kuberay_errors(part) == rules.crd_errors(crd("RayJob"), part) == []


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


def test_nothing_secret_and_nothing_of_this_machine() -> None:
    for path in (ROOT / "infra").rglob("*"):
        if path.is_file():
            text = path.read_text()
            assert not re.search(r"AKIA[0-9A-Z]{16}|-----BEGIN|/work/", text), path
