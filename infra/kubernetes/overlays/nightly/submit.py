"""Copy the suspended RayJob TEMPLATE as JOB-ray, and wait until the copy has ended.

Runs in the pod of the CronJob, and waits there, so that `concurrencyPolicy: Forbid` holds while the RayJob runs. Only
the standard library is needed. JOB is the Job of this pod, the same for every pod of one night: one that takes over
from a lost pod finds the RayJob there (409) and waits on.

Exit codes: 0, 1, 2, 3 as `relabel run` has them (the last attempt's); 1 too when the RayJob failed in another way, was
deleted or did not end in time, or the API server stayed away; 2 when the API server refused what was asked of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import signal
import ssl
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
RELABEL_CODES = (1, 2, 3)
GONE = (404, 410)
PASSING = (401, 408, 425, 429)  # as 5xx: over after a while (401: a token about to be renewed)
REQUEST_TIMEOUT_S = 30.0

Json = dict[str, Any]


class EndError(Exception):
    """The end: a line to say and the exit code."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Api:
    """RayJobs of one namespace. `patience_s`: how long the API server may be unreachable or overloaded."""

    server: str
    account: Path
    poll_s: float
    patience_s: float

    def call(self, method: str, name: str = "", body: Json | None = None) -> tuple[int, Json]:
        """Status and object (or Status object); waits through what passes. Raises EndError(1)."""
        deadline = time.monotonic() + self.patience_s
        while True:
            status, answer = self._once(method, name, body)
            if status < 500 and status not in PASSING:
                return status, answer
            if time.monotonic() > deadline:
                raise EndError(1, f"no answer from the API server for {self.patience_s:.0f} s: {message(answer)}")
            time.sleep(self.poll_s)

    def _once(self, method: str, name: str, body: Json | None) -> tuple[int, Json]:
        namespace = (self.account / "namespace").read_text().strip()
        token = (self.account / "token").read_text().strip()  # read each time: it is renewed in place
        request = urllib.request.Request(  # noqa: S310 - the address is the cluster's own
            f"{self.server}/apis/ray.io/v1/namespaces/{namespace}/rayjobs/{name}".rstrip("/"),
            data=json.dumps(body).encode() if body else None,
            headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            method=method,
        )
        authority = self.account / "ca.crt"
        tls = ssl.create_default_context(cafile=str(authority)) if self.server.startswith("https") else None
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S, context=tls) as answer:  # noqa: S310
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code, as_json(error.read())
        except (OSError, http.client.HTTPException, ValueError) as error:  # unreachable, cut off, not JSON
            return 503, {"message": f"{type(error).__name__}: {error}"}


def as_json(data: bytes) -> Json:
    """An error's body; proxies answer with anything."""
    try:
        content = json.loads(data)
    except ValueError:
        return {"message": data.decode(errors="replace")[:200]}
    return content if isinstance(content, dict) else {"message": str(content)[:200]}


def message(answer: Json) -> str:
    return " ".join(str(answer.get("message", answer)).split())[:500]


@dataclass(frozen=True)
class Owner:
    """The Job that this pod belongs to. `uid` None: the RayJob stays when it goes."""

    job: str
    uid: str | None

    @property
    def ray_job(self) -> str:
        """Not the Job's own name: KubeRay gives the Job that submits a RayJob the name of that RayJob."""
        return f"{self.job}-ray"


def copy_of(template: Json, owner: Owner, queue: str | None) -> Json:
    """The night's RayJob. It belongs to the Job, and goes when the CronJob's history drops that."""
    labels = dict(template["metadata"].get("labels", {}))
    if queue:
        labels["kueue.x-k8s.io/queue-name"] = queue
    metadata: Json = {"name": owner.ray_job, "labels": labels}
    if owner.uid:
        reference = {"apiVersion": "batch/v1", "kind": "Job", "name": owner.job, "uid": owner.uid}
        metadata["ownerReferences"] = [reference]
    # With a queue, Kueue lifts the suspension when it is this job's turn.
    return {
        "apiVersion": template["apiVersion"],
        "kind": template["kind"],
        "metadata": metadata,
        "spec": {**template["spec"], "suspend": bool(queue)},
    }


def submit(api: Api, template: str, owner: Owner, queue: str | None) -> None:
    """Create the copy, unless it is there. Raises EndError."""
    status, found = api.call("GET", template)
    if status in GONE:
        raise EndError(2, f"there is no RayJob {template} to copy: apply the nightly overlay")
    refuse(status, found, f"read the RayJob {template}")
    status, answer = api.call("POST", body=copy_of(found, owner, queue))
    name = owner.ray_job
    if status == 409:
        say(f"{name} is there already; waiting for it")
        return
    refuse(status, answer, f"create the RayJob {name}")
    say(f"{name} created from {template}")


def refuse(status: int, answer: Json, what: str) -> None:
    """Raise EndError(2) for an answer that another try would not change."""
    if status >= 300:
        raise EndError(2, f"may not {what} ({status}): {message(answer)}")


def wait(api: Api, name: str, timeout_s: float) -> NoReturn:
    """Poll until the RayJob is at its end. Always raises EndError, with the job's own code."""
    deadline = time.monotonic() + timeout_s
    said = None
    while time.monotonic() < deadline:
        code, job = api.call("GET", name)
        if code in GONE:
            raise EndError(1, f"{name} was deleted")
        refuse(code, job, f"read the RayJob {name}")
        status = job.get("status") or {}
        state = f"{status.get('jobDeploymentStatus') or 'New'}, job {status.get('jobStatus') or 'not started'}"
        if state != said:
            say(f"{name}: {state}")
            said = state
        outcome = outcome_of(status)
        if outcome is not None:
            told = message({"message": status.get("message", "")})
            raise EndError(outcome, f"{name} ended: {state} {status.get('reason', '')} {told}"[:600])
        time.sleep(api.poll_s)
    raise EndError(1, f"{name} did not end within {timeout_s:.0f} s; it is left as it is")


def outcome_of(status: Json) -> int | None:
    """The exit code that a RayJob's status stands for; None while it goes on (also between two attempts)."""
    state = status.get("jobDeploymentStatus")
    if state == "Complete":
        return 0 if status.get("jobStatus") == "SUCCEEDED" else 1
    if state == "ValidationFailed":
        return 2
    if state != "Failed":
        return None
    said = re.search(r"failed with exit code (\d+)", status.get("message") or "")  # Ray's words
    code = int(said.group(1)) if said else 1
    return code if code in RELABEL_CODES else 1


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201 - the pod's log


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--template", required=True, help="the suspended RayJob to copy")
    parser.add_argument("--job", required=True, help="name of the Job that this pod belongs to")
    parser.add_argument("--job-uid", help="of that Job; the RayJob then goes when it goes")
    parser.add_argument("--queue", help="Kueue's LocalQueue for the copy")
    parser.add_argument("--poll-s", type=float, default=15.0)
    parser.add_argument("--patience-s", type=float, default=900.0, help="with an API server that does not answer")
    parser.add_argument("--timeout-s", type=float, default=129_600.0, help="above all attempts of the RayJob together")
    parser.add_argument("--server", help="of the API; default: the pod's own cluster")
    parser.add_argument("--service-account", type=Path, default=Path(SERVICE_ACCOUNT))
    options = parser.parse_args()
    # Process 1 of a pod has no default action for SIGTERM: without this it would be killed after the grace period.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    api = Api(options.server or in_cluster(), options.service_account, options.poll_s, options.patience_s)
    try:
        owner = Owner(options.job, options.job_uid)
        submit(api, options.template, owner, options.queue)
        wait(api, owner.ray_job, options.timeout_s)
    except EndError as end:
        say(str(end))
        return end.code


def in_cluster() -> str:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


if __name__ == "__main__":
    sys.exit(main())
