"""Alerts and dashboard ask for metrics that exist, in expressions that parse, and the alerts go off when they should.

Syntax is checked with promql-parser; where Prometheus' own promtool is installed, it checks the rules and plays them
through (alerts_played.yaml).
"""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import promql_parser
import pytest
import yaml
from jsonschema import Draft202012Validator

from pipeline.progress.metrics import RunMetrics
from tests.infra.rendered import KUBERNETES, Json, objects, of_kind, ray_job

MONITORING = KUBERNETES / "monitoring"
PLAYED = Path(__file__).parent / "alerts_played.yaml"
RAYS_OWN = {"ray_resources", "ray_object_store_memory", "ray_node_mem_used", "ray_node_mem_total"}
"""Named in the Grafana dashboards that Ray 2.60 ships (ray/dashboard/modules/metrics)."""
KUBE_STATE_METRICS = {"kube_cronjob_status_last_successful_time"}


def closed(properties: Json, *required: str) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT: Json = {"type": "string"}
LABELS: Json = {"type": "object", "additionalProperties": TEXT}
METADATA = closed({"name": TEXT, "namespace": TEXT, "labels": LABELS}, "name")
EXPRESSION = closed({"key": TEXT, "operator": {"enum": ["In", "NotIn", "Exists"]}, "values": {"type": "array"}})
SELECTOR = closed({"matchLabels": LABELS, "matchExpressions": {"type": "array", "items": EXPRESSION}})
ENDPOINT = closed({"port": TEXT, "interval": TEXT, "path": TEXT}, "port")
RULE = closed({"alert": TEXT, "expr": TEXT, "for": TEXT, "labels": LABELS, "annotations": LABELS}, "alert", "expr")
GROUP = closed({"name": TEXT, "rules": {"type": "array", "items": RULE, "minItems": 1}}, "name", "rules")
SPECS = {
    "PodMonitor": closed(
        {
            "selector": SELECTOR,
            "podTargetLabels": {"type": "array", "items": TEXT},
            "podMetricsEndpoints": {"type": "array", "items": ENDPOINT, "minItems": 1},
        },
        "selector",
        "podMetricsEndpoints",
    ),
    "PrometheusRule": closed({"groups": {"type": "array", "items": GROUP, "minItems": 1}}, "groups"),
}
"""The part of the Prometheus operator's v1 schemas that is used here, closed: a misspelt field is an error."""


@pytest.mark.parametrize("kind", SPECS)
def test_the_operators_objects_have_known_fields_only(kind: str) -> None:
    top = closed(
        {"apiVersion": {"const": "monitoring.coreos.com/v1"}, "kind": TEXT, "metadata": METADATA, "spec": SPECS[kind]}
    )
    [one] = of_kind(objects("nightly"), kind)
    Draft202012Validator(top).validate(one)
    one["spec"]["interva1"] = "30s"
    assert list(Draft202012Validator(top).iter_errors(one))


def exported() -> set[str]:
    """Every series name that a run can export, with what Prometheus makes of counters and histograms."""
    names = {sample.name for family in RunMetrics().registry.collect() for sample in family.samples}
    families = {family.name: family.type for family in RunMetrics().registry.collect()}
    names |= {f"{name}_total" for name, kind in families.items() if kind == "counter"}
    names |= {name for name, kind in families.items() if kind == "gauge"}
    return names | {
        "relabel_dataset_quality_bucket"
    }  # appears when something is sealed: tests/pipeline/progress/test_metrics.py


def alerts() -> list[Json]:
    content: Json = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    return [rule for group in content["spec"]["groups"] for rule in group["rules"]]


def dashboard() -> Json:
    [config_map] = [
        one for one in of_kind(objects("nightly"), "ConfigMap") if one["metadata"]["name"] == "relabel-dashboard"
    ]
    content: Json = json.loads(config_map["data"]["dashboard.json"])
    return content


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in dashboard()["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_expressions_parse_and_name_what_exists(where: str, expression: str) -> None:
    promql_parser.parse(expression)
    names = set(
        re.findall(r"\b((?:relabel|ray|kube)_[a-z_]+)\b(?!\s*[=!]|[,)]\s*\()", re.sub(r'"[^"]*"', "", expression))
    )
    names -= {"ray_io_cluster"}
    assert names
    assert names <= exported() | RAYS_OWN | KUBE_STATE_METRICS, where


def test_a_metric_that_is_not_exported_is_noticed() -> None:
    assert {"relabel_images_total", "relabel_stage_seconds_sum", "relabel_gpu_wait_seconds_total"} <= exported()
    assert "relabel_imagse_total" not in exported()


def test_the_four_that_were_asked_for() -> None:
    names = {rule["alert"] for rule in alerts()}
    assert {"RelabelStalled", "RelabelFailureShare", "RelabelCoverage", "RelabelCost"} <= names
    readme = (KUBERNETES.parent / "README.md").read_text()
    for rule in alerts():
        assert rule["annotations"]["summary"]
        section = rule["annotations"]["runbook"].removeprefix("infra/README.md, ")
        assert re.search(rf"^#+ {section}$", readme, re.MULTILINE), f"no section {section!r} in the runbook"


def test_the_dashboard_is_one() -> None:
    content = dashboard()
    assert content["uid"] == "relabel"
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in content["panels"]}
    assert len(places) == len(content["panels"])
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in content["panels"])
    known = {variable["name"] for variable in content["templating"]["list"]}
    assert set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(content["panels"]))) <= known


def test_the_pod_monitor_finds_the_ports() -> None:
    content = objects("gpu-spot")
    [monitor] = of_kind(content, "PodMonitor")
    cluster = ray_job(content)["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], cluster["workerGroupSpecs"][0]["template"]]
    ports = [{port["name"] for port in one["spec"]["containers"][0]["ports"]} for one in templates]
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports[0]
    assert "metrics" in ports[1]
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    assert all(wanted <= template["metadata"]["labels"].items() for template in templates)


def test_promtool_plays_the_alerts_through(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian: prometheus); the syntax was checked without it")
    content = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(content["spec"]))
    (tmp_path / "played.yaml").write_text(PLAYED.read_text())
    for command in (["check", "rules", "rules.yaml"], ["test", "rules", "played.yaml"]):
        done = subprocess.run(
            [promtool, *command], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
