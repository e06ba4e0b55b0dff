"""A person's corrections in a real Label Studio: our tasks imported, edited there, exported by it, brought home."""

from __future__ import annotations

import json
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from pipeline.storage import Access
from pipeline.verify.check import verify
from tests.conftest import free_ports
from tests.field.peers import environments
from tests.pipeline.corrections.test_way_back import check_corrected
from tests.pipeline.corrections.way_back import back, edit_regions, exported, relabel, rows, sealed

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not environments.is_whole("label-studio"), reason=f"label-studio is not in {environments.FOLDER}: make peers"
    ),
]

TOKEN = "0123456789abcdef0123456789abcdef01234567"
START_S = 900  # it makes its database at the first start: half a minute on a machine that has nothing else to do


class Server(NamedTuple):
    """A running Label Studio."""

    url: str

    def ask(self, path: str, content: Any = None) -> Any:
        """The JSON that it answers; `content` is posted as JSON."""
        headers = {"Authorization": f"Token {TOKEN}", "Content-Type": "application/json"}
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(f"{self.url}/api/{path}", body, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    [port] = free_ports(1)
    program = environments.python("label-studio").with_name("label-studio")
    person = ["--username", "person@example.org", "--password", "a person's", "--user-token", TOKEN]
    command = [program, "start", "--no-browser", "--port", str(port), "--data-dir", tmp_path / "server", *person]
    switches = {"ENABLE_LEGACY_API_TOKEN": "true", "LATEST_VERSION_CHECK": "false", "COLLECT_ANALYTICS": "false"}
    own = {f"LABEL_STUDIO_{name}": value for name, value in switches.items()}
    environment = {"PATH": str(program.parent), "HOME": str(tmp_path), **own}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    found = Server(f"http://127.0.0.1:{port}")
    try:
        _wait_for(found, process, tmp_path / "log")
        yield found
    finally:
        process.terminate()
        process.wait(30)


def _wait_for(server: Server, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        try:
            server.ask("projects")
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            assert process.poll() is None, log.read_text()[-2000:]
            time.sleep(1)
    raise AssertionError(log.read_text()[-2000:])


def test_the_whole_way_with_a_running_label_studio(server: Server, tmp_path: Path) -> None:
    output = sealed(tmp_path)
    before = rows(output)
    path = exported(output, tmp_path / "sent", "label-studio")
    config = (path.parent / "label_config.xml").read_text()
    project = server.ask("projects", {"title": "relabel", "label_config": config})["id"]
    sent = json.loads(path.read_text())
    assert server.ask(f"projects/{project}/import?return_task_ids=true", sent)["task_count"] == len(sent)
    tasks = server.ask(f"tasks?project={project}&fields=all")["tasks"]
    assert {one["data"]["image_uri"]: one["predictions"][0]["result"] for one in tasks} == {
        one["data"]["image_uri"]: one["predictions"][0]["result"] for one in sent
    }
    for task in tasks:
        regions = task["predictions"][0]["result"]
        done = edit_regions(output, regions) if task["data"]["image_uri"] == "0000.jpg" else regions
        server.ask(f"tasks/{task['id']}/annotations", {"result": done})
    home = tmp_path / "home.json"
    home.write_text(json.dumps(server.ask(f"projects/{project}/export?exportType=JSON")))
    assert back(output, home).counts == {"added": 1, "kept": 1, "removed": 1, "replaced": 2}
    output.seal(shard_bytes=1)
    check_corrected(before, rows(output), "home")
    assert verify(output.store.uri, Access()).findings == []
    assert relabel("review", output.folder, "--undo", "home").exit_code == 0
