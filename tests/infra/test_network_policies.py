"""The network is closed but for what the job needs, as NetworkPolicies are evaluated."""

import pytest

from tests.infra import rules
from tests.infra.rendered import OVERLAYS, Json, objects, of_kind, pod_templates


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
