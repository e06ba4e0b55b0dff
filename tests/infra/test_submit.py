"""The nightly pod's program, as a process, against an HTTP server that speaks the Kubernetes API calls it makes."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.infra.fake_kubernetes import PATH, TOKEN, FakeKubernetes

SUBMIT = ROOT / "infra" / "kubernetes" / "overlays" / "nightly" / "submit.py"
JOB = "relabel-nightly-29387655"
NAME = f"{JOB}-ray"  # KubeRay's own Job for it has this name: it must not be the CronJob's Job's
RUNNING = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
DONE = {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}
TEMPLATE = {
    "apiVersion": "ray.io/v1",
    "kind": "RayJob",
    "metadata": {
        "name": "relabel",
        "namespace": "relabel",
        "uid": "u-1",
        "resourceVersion": "7",
        "labels": {"app.kubernetes.io/name": "relabel"},
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"},
    },
    "spec": {"suspend": True, "entrypoint": "relabel run", "shutdownAfterJobFinishes": True},
    "status": {"jobDeploymentStatus": "Suspended"},
}

Start = Callable[..., "subprocess.Popen[str]"]


def failed(message: str, reason: str = "AppFailed") -> dict[str, Any]:
    return {"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": reason, "message": message}


def fake(script: list[dict[str, Any] | None], **more: Any) -> FakeKubernetes:
    return FakeKubernetes(json.loads(json.dumps([TEMPLATE])), script, **more)


@pytest.fixture
def start(tmp_path: Path) -> Start:
    (tmp_path / "token").write_text(TOKEN + "\n")
    (tmp_path / "namespace").write_text("relabel")

    def run(server: FakeKubernetes, *more: str) -> "subprocess.Popen[str]":
        fast = ["--poll-s", "0.05", "--patience-s", "20", "--timeout-s", "60", "--job-uid", "u-2"]
        known = ["--template", "relabel", "--job", JOB, "--server", server.url, "--service-account", str(tmp_path)]
        # -I: nothing but the standard library can be imported from where it runs
        command = [sys.executable, "-I", "-S", str(SUBMIT), *known, *fast, *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return run


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    out, err = process.communicate(timeout=120)
    assert "Traceback" not in err, err
    return process.returncode, out + err


def test_created_from_the_template_and_waited_for(start: Start) -> None:
    states = [{}, {"jobDeploymentStatus": "Initializing"}, RUNNING, RUNNING, DONE]
    with fake(states).serving() as server:
        code, said = ended(start(server))
    assert code == 0, said
    job = server.jobs[NAME]
    assert job["spec"] == {**TEMPLATE["spec"], "suspend": False}
    assert job["metadata"] == {
        "name": NAME,
        "labels": {"app.kubernetes.io/name": "relabel"},
        "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": JOB, "uid": "u-2"}],
    }
    assert server.jobs["relabel"] == TEMPLATE, "the template is only read"
    assert [request for request in server.requests if request[0] == "POST"] == [("POST", PATH, 201)]
    assert len(server.requests) == 2 + len(states), "it went before the end, or asked on after it"
    assert "Initializing" in said
    assert "Complete, job SUCCEEDED" in said


@pytest.mark.parametrize(
    ("end", "code"),
    [
        (failed("Job entrypoint command failed with exit code 3, last available logs"), 3),
        (failed("Job entrypoint command failed with exit code 2. No logs available."), 2),
        (failed("Job entrypoint command failed with exit code 1, last available logs"), 1),
        (failed("Job entrypoint command failed with exit code 137, last available logs"), 1),
        (failed("The RayJob has passed the activeDeadlineSeconds.", "DeadlineExceeded"), 1),
        ({"jobDeploymentStatus": "ValidationFailed", "message": "name too long"}, 2),
        ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, 1),
        (None, 1),
    ],
)
def test_the_jobs_end_is_its_own(start: Start, end: dict[str, Any] | None, code: int) -> None:
    retrying = {"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED", "message": "failed with exit code 1"}
    with fake([RUNNING, retrying, RUNNING, end]).serving() as server:
        assert ended(start(server))[0] == code


def test_a_pod_that_takes_over_waits_for_what_is_there(start: Start) -> None:
    server = fake([RUNNING, DONE])
    server.jobs[NAME] = {**TEMPLATE, "metadata": {"name": NAME}, "spec": {"suspend": False}}
    with server.serving():
        code, said = ended(start(server))
    assert code == 0, said
    assert "there already" in said
    assert ("POST", PATH, 409) in server.requests


def test_a_suspended_copy_is_waited_for(start: Start) -> None:
    """Kueue holds it back, and lifts the suspension itself."""
    with fake([DONE]).serving() as server:
        process = start(server, "--queue", "gpus")
        deadline = time.monotonic() + 60
        while len(server.requests) < 8 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert process.poll() is None
        job = server.jobs[NAME]
        assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
        assert job["spec"]["suspend"] is True
        job["spec"]["suspend"] = False
        assert ended(process)[0] == 0


def test_what_passes_is_waited_through(start: Start) -> None:
    faults = [(500, "{}"), (503, "<html>proxy</html>"), (0, ""), (429, "{}"), (401, "{}"), (502, "")]
    with fake([RUNNING, DONE], faults=faults).serving() as server:
        code, said = ended(start(server))
    assert code == 0, said
    assert len([request for request in server.requests if request[:2] == ("POST", PATH)]) == 1


def test_a_post_whose_answer_was_lost_is_not_made_twice(start: Start) -> None:
    server = fake([RUNNING, DONE])
    create = server._create

    def lost(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        made = create(body)
        return made if made[0] == 409 else (504, {"message": "gateway timeout"})

    server._create = lost  # type: ignore[method-assign]
    with server.serving():
        code, said = ended(start(server))
    assert code == 0, said
    assert [code for method, _, code in server.requests if method == "POST"] == [504, 409]


def test_gone_is_deleted(start: Start) -> None:
    server = fake([RUNNING])
    with server.serving():
        process = start(server)
        while len(server.requests) < 4:
            time.sleep(0.02)
        with server.lock:
            server.faults.append((410, '{"message": "gone"}'))
        code, said = ended(process)
    assert code == 1
    assert "was deleted" in said


@pytest.mark.parametrize("code", [400, 403, 422])
def test_a_refusal_is_final(start: Start, code: int) -> None:
    with fake([DONE], faults=[(code, '{"message": "rayjobs.ray.io is forbidden"}')]).serving() as server:
        ended_with, said = ended(start(server))
    assert ended_with == 2
    assert "rayjobs.ray.io is forbidden" in said
    assert len(server.requests) == 1


def test_no_template(start: Start) -> None:
    with FakeKubernetes([], [DONE]).serving() as server:
        code, said = ended(start(server))
    assert code == 2
    assert "apply the nightly overlay" in said


def test_an_api_server_that_stays_away(start: Start) -> None:
    server = fake([DONE])
    with server.serving():
        pass
    code, said = ended(start(server, "--patience-s", "0.5"))
    assert code == 1
    assert "no answer from the API server" in said


def test_longer_than_allowed(start: Start) -> None:
    with fake([RUNNING]).serving() as server:
        code, said = ended(start(server, "--timeout-s", "1"))
    assert code == 1
    assert "did not end within 1 s" in said
    assert NAME in server.jobs


def test_a_renewed_token_is_used(start: Start, tmp_path: Path) -> None:
    with fake([RUNNING, DONE]).serving() as server:
        (tmp_path / "token").write_text("expired")
        process = start(server)
        while not server.requests:
            time.sleep(0.02)
        (tmp_path / "renewed").write_text(TOKEN)
        (tmp_path / "renewed").replace(tmp_path / "token")
        assert ended(process)[0] == 0
    assert server.tokens == {"Bearer expired", f"Bearer {TOKEN}"}


def test_terminated_at_once(start: Start) -> None:
    with fake([RUNNING]).serving() as server:
        process = start(server)
        while len(server.requests) < 4:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        code, _ = ended(process)
    assert code == 143
    assert NAME in server.jobs
