"""Rules that a cluster would hold our objects to, as plain functions: object in, list of complaints out.

crd_errors        strict: unknown fields too (an API server would drop them silently)
kuberay_errors    KubeRay's own validation, ported from validation.go of operator 1.6.2, with changes of 1.7.0
restricted_errors the pod security standard "restricted", and this project's own additions
allowed           does a set of NetworkPolicies let a connection through
"""

from __future__ import annotations

import ipaddress
import re
from typing import Any

from jsonschema import Draft202012Validator

Json = dict[str, Any]

DNS_1035 = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|ACCESS_KEY|CREDENTIAL", re.IGNORECASE)


def crd_errors(crd: Json, content: Json) -> list[str]:
    """Against the CRD's schema of the object's version."""
    version = content["apiVersion"].rpartition("/")[2]
    [schema] = [v["schema"]["openAPIV3Schema"] for v in crd["spec"]["versions"] if v["name"] == version]
    errors = Draft202012Validator(_strict(schema)).iter_errors(content)
    return [f"{'.'.join(map(str, error.path))}: {error.message[:300]}" for error in errors]


def _strict(schema: Any) -> Any:
    """OpenAPI of a CRD -> JSON schema that knows no other field."""
    if isinstance(schema, list):
        return [_strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    result = {key: _strict(value) for key, value in schema.items() if key not in ("format", "properties")}
    if "properties" in schema:
        result["properties"] = {name: _strict(value) for name, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            result["additionalProperties"] = False
    return result


def kuberay_errors(job: Json) -> list[str]:
    """What the operator refuses in a RayJob or RayCronJob."""
    name, kind, spec = job["metadata"]["name"], job["kind"], job["spec"]
    errors = []
    limit = 36 if kind == "RayCronJob" else 47
    if len(name) > limit:
        errors.append(f"the name of a {kind} has at most {limit} characters")
    if not DNS_1035.fullmatch(name):
        errors.append("the name is no DNS label")
    if kind == "RayCronJob":
        errors += _schedule_errors(spec["schedule"])
        spec = spec["jobTemplate"]
    return errors + _job_errors(spec) + _cluster_errors(spec["rayClusterSpec"])


def _schedule_errors(schedule: str) -> list[str]:
    return _true(
        {
            "no time zone in the schedule": "TZ" in schedule,
            "the schedule has no five fields": len(schedule.split()) != 5 and not schedule.startswith("@"),
        }
    )


def _job_errors(spec: Json) -> list[str]:
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    shutdown, ttl, retries = (
        spec.get("shutdownAfterJobFinishes", False),
        spec.get("ttlSecondsAfterFinished", 0),
        spec.get("backoffLimit", 0),
    )
    sidecar = spec.get("submissionMode") == "SidecarMode"
    return _true(
        {
            "suspend needs shutdownAfterJobFinishes": spec.get("suspend") and not shutdown,
            "ttlSecondsAfterFinished needs shutdownAfterJobFinishes": ttl > 0 and not shutdown,
            "ttlSecondsAfterFinished is negative": ttl < 0,
            "activeDeadlineSeconds is not positive": spec.get("activeDeadlineSeconds", 1) <= 0,
            "preRunningDeadlineSeconds is not positive": spec.get("preRunningDeadlineSeconds", 1) <= 0,
            "backoffLimit is negative": retries < 0,
            "InteractiveMode excludes backoffLimit": spec.get("submissionMode") == "InteractiveMode" and retries > 0,
            "SidecarMode excludes a submitter template": sidecar
            and {"submitterPodTemplate", "submitterConfig"} & set(spec),
            "SidecarMode needs restartPolicy Never": sidecar and head.get("restartPolicy", "Never") != "Never",
            "clusterSelector excludes suspend": spec.get("clusterSelector") and spec.get("suspend"),
            "deletionStrategy needs a feature gate that is off before 1.6": "deletionStrategy" in spec,
        }
    )


def _cluster_errors(cluster: Json) -> list[str]:
    head, groups = cluster["headGroupSpec"], cluster.get("workerGroupSpecs", [])
    scaling = cluster.get("enableInTreeAutoscaling", False)
    v2 = scaling and cluster.get("autoscalerOptions", {}).get("version") == "v2"
    head_env = {entry["name"] for entry in head["template"]["spec"]["containers"][0].get("env", [])}
    auth = cluster.get("authOptions", {})
    token = auth.get("mode") == "token"
    version = tuple(int(part) for part in cluster.get("rayVersion", "0").split("."))
    errors = _true(
        {
            "autoscaler v2 is set twice": v2 and "RAY_enable_autoscaler_v2" in head_env,
            "autoscaler v2 without enableInTreeAutoscaling": not scaling and "RAY_enable_autoscaler_v2" in head_env,
            "idleTimeoutSeconds is negative": cluster.get("autoscalerOptions", {}).get("idleTimeoutSeconds", 0) < 0,
            "Redis without gcsFaultToleranceOptions": "RAY_REDIS_ADDRESS" in head_env,
            "Kubernetes' own tokens are not for a RayJob": auth.get("enableK8sTokenAuth"),
            "upgradeStrategy is not for the cluster of a RayJob": "upgradeStrategy" in cluster,
            "token authentication needs rayVersion 2.52": token and version < (2, 52),
        }
    )
    for group in [head, *groups]:
        errors += [f"{group.get('groupName', 'head')}: {error}" for error in _group_errors(group, v2)]
    for group in groups:
        errors += [f"{group['groupName']}: {error}" for error in _worker_errors(group, scaling, v2)]
    return errors


def _group_errors(group: Json, v2: bool) -> list[str]:
    parameters = set(group.get("rayStartParams", {}))
    restart = group["template"]["spec"].get("restartPolicy", "Never")
    sized = {"num-cpus", "num-gpus", "memory", "resources"} & parameters
    return _true(
        {
            "autoscaler v2 needs restartPolicy Never": v2 and restart != "Never",
            "resources in rayStartParams and beside them": sized and group.get("resources"),
            "labels in rayStartParams": "labels" in parameters,
        }
    )


def _worker_errors(group: Json, scaling: bool, v2: bool) -> list[str]:
    low, high = group.get("minReplicas"), group.get("maxReplicas")
    known = low is not None and high is not None
    return _true(
        {
            "minReplicas and maxReplicas are needed without autoscaling": not scaling and not known,
            "replicas out of order": (low or 0) < 0 or (high or 0) < 0 or (known and low > high),
            "suspended with autoscaling": scaling and group.get("suspend"),
            "idleTimeoutSeconds needs autoscaler v2": "idleTimeoutSeconds" in group and not v2,
        }
    )


def _true(complaints: dict[str, Any]) -> list[str]:
    return [text for text, holds in complaints.items() if holds]


def restricted_errors(pod: Json) -> list[str]:
    """Of a pod's spec: "restricted", and read-only root, limits, pinned images, no secret in the environment."""
    inherited = pod.get("securityContext", {})
    errors = [f"{field} is set" for field in ("hostNetwork", "hostPID", "hostIPC") if pod.get(field)]
    errors += [f"sysctls: {inherited['sysctls']}"] if inherited.get("sysctls") else []
    for volume in pod.get("volumes", []):
        errors += [f"volume {volume['name']}: {kind}" for kind in volume.keys() - {"name"} - VOLUMES]
    for container in [*pod["containers"], *pod.get("initContainers", [])]:
        context = {**inherited, **container.get("securityContext", {})}
        errors += [f"{container['name']}: {error}" for error in _container_errors(container, context)]
    return errors


def _container_errors(container: Json, context: Json) -> list[str]:
    capabilities = context.get("capabilities", {})
    added = set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}
    limited = {"cpu", "memory", "ephemeral-storage"} <= container.get("resources", {}).get("limits", {}).keys()
    tag = container["image"].rpartition("/")[2] if "image" in container else ""
    told = [e["name"] for e in container.get("env", []) if SECRET_NAME.search(e["name"]) and "value" in e]
    return _true(
        {
            "privilege escalation is allowed": context.get("allowPrivilegeEscalation") is not False,
            "privileged": context.get("privileged") or context.get("procMount", "Default") != "Default",
            "may run as root": context.get("runAsNonRoot") is not True or context.get("runAsUser") == 0,
            "no seccomp profile": context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"),
            "capabilities": capabilities.get("drop") != ["ALL"] or added,
            "hostPort": any("hostPort" in port for port in container.get("ports", [])),
            "the root file system can be written": context.get("readOnlyRootFilesystem") is not True,
            "no limits": not limited,
            f"the image {tag} is not pinned": ":" not in tag or tag.endswith(":latest"),
            f"the secret {told} stands in the manifest": told,
        }
    )


def allowed(policies: list[Json], direction: str, pod: Json, peer: Json, port: int, protocol: str = "TCP") -> bool:
    """Would these policies of `pod`'s namespace let a connection through on `pod`'s side?

    pod, peer: {"labels", "namespace"} of a pod (namespace by its name), or {"ip"} of something else.
    direction: "Ingress" (from peer) or "Egress" (to peer).
    """
    selecting = [
        policy["spec"]
        for policy in policies
        if direction in policy["spec"]["policyTypes"] and _selects(policy["spec"]["podSelector"], pod["labels"])
    ]
    if not selecting:
        return True
    side, key = ("from", "ingress") if direction == "Ingress" else ("to", "egress")
    return any(
        _port_fits(rule, port, protocol) and (side not in rule or any(_peer_fits(one, pod, peer) for one in rule[side]))
        for spec in selecting
        for rule in spec.get(key, [])
    )


def _selects(selector: Json, labels: Json) -> bool:
    assert not selector.keys() - {"matchLabels"}, "matchExpressions are not understood here"
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def _port_fits(rule: Json, port: int, protocol: str) -> bool:
    ports = rule.get("ports")
    return not ports or any(one["port"] == port and one.get("protocol", "TCP") == protocol for one in ports)


def _peer_fits(rule: Json, pod: Json, peer: Json) -> bool:
    if "ipBlock" in rule:
        if "ip" not in peer:
            return False
        address = ipaddress.ip_address(peer["ip"])
        inside = address in ipaddress.ip_network(rule["ipBlock"]["cidr"])
        return inside and not any(address in ipaddress.ip_network(cidr) for cidr in rule["ipBlock"].get("except", []))
    if "ip" in peer:
        return False
    namespace = {"kubernetes.io/metadata.name": peer["namespace"]}
    if "namespaceSelector" in rule:
        there = _selects(rule["namespaceSelector"], namespace)
    else:
        there = peer["namespace"] == pod["namespace"]
    return there and _selects(rule.get("podSelector", {}), peer["labels"])
