"""What the image is run as: user 10001 on a root file system that is read-only, with /tmp and /dev/shm to write to.

Stands in for a container: a mount namespace of its own, with this machine's root in it, and no capability. Where the
interpreter lies in a home that is closed to others, the user stays who it is.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipeline.dataset import open_result
from tests.conftest import ROOT
from tests.infra.rendered import objects, ray_job

CLOSED = """
mount --bind "$0" /tmp && mount -o remount,ro,bind /
exec setpriv --reuid $1 --regid $2 --clear-groups --bounding-set=-all --inh-caps=-all "${@:3}"
"""


def open_to_all(path: Path) -> bool:
    return all(one.stat().st_mode & 0o001 for one in [path, *path.parents])


def closed(folder: Path, user: int, group: int, *command: str) -> list[str]:
    """`command` as that user, with `folder` in the place of /tmp."""
    script = ["bash", "-ec", CLOSED, str(folder), str(user), str(group)]
    return ["unshare", "--mount", "--propagation", "private", *script, *command]


def can_be_closed() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(closed(Path(folder), 10001, 10001, "true"), capture_output=True, check=False)
        except OSError:
            return False
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_be_closed(), reason="no mount namespace can be made here (it takes root, and Linux)")
@pytest.mark.skipif(ROOT.is_relative_to("/tmp"), reason="the checkout lies in /tmp, which the test replaces")
def test_the_demo_runs_as_the_pods_do() -> None:
    context = ray_job(objects("gpu-spot"))["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"][
        "securityContext"
    ]
    user, group = context["runAsUser"], context["runAsGroup"]
    dockerfile = (ROOT / "infra" / "Dockerfile").read_text()
    assert f"USER {user}:{group}" in dockerfile
    if not open_to_all(Path(sys.base_prefix)):
        user, group = os.getuid(), os.getgid()
    variables = re.findall(r"(PYTHON\w+|RAY_\w+)=(\S+)", dockerfile[dockerfile.rindex("ENV PATH") :])
    env = {**dict(variables), "HOME": "/tmp", "RELABEL_CACHE": "/tmp/cache", "PATH": os.environ["PATH"]}
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, user, group)
        nowhere = closed(Path(folder), user, group, "touch", f"{ROOT}/here", "/usr/here", "/home/here")
        refused = subprocess.run(nowhere, capture_output=True, text=True, env=env, check=False)
        assert refused.stderr.count("Read-only file system") + refused.stderr.count("Permission denied") == 3
        command = [sys.executable, "-m", "jobs.cli", "demo", "--output", "/tmp/demo"]
        done = subprocess.run(
            closed(Path(folder), user, group, *command),
            capture_output=True,
            text=True,
            env={**env, "PYTHONPATH": str(ROOT)},
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert open_result(f"{folder}/demo/result").masks().num_rows == 10
