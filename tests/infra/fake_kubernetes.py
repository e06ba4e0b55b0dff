"""The few calls of the Kubernetes API that submit.py makes, over real HTTP: GET and POST of RayJobs in one namespace.

A RayJob's status follows a script: each GET moves it one step on, and the last step stays.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/apis/ray.io/v1/namespaces/relabel/rayjobs"
TOKEN = "from-the-pod"

Json = dict[str, Any]


class FakeKubernetes:
    """`jobs` is what is stored; `script` the statuses of a created RayJob (None: deleted); `faults` come first.

    faults: (status code, body) answered instead, one a request; a code of 0 cuts the connection.
    """

    def __init__(self, jobs: list[Json], script: list[Json | None], faults: list[tuple[int, str]] | None = None):
        self.jobs = {job["metadata"]["name"]: job for job in jobs}
        self.script = list(script)
        self.faults = list(faults or [])
        self.requests: list[tuple[str, str, int]] = []
        self.tokens: set[str] = set()
        self.lock = threading.Lock()
        self.url = ""

    def answer(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        if not path.startswith(PATH):
            return 404, status(404, f"the server could not find {path}")
        name = path[len(PATH) :].strip("/")
        if method == "POST":
            assert body is not None
            return self._create(body)
        if name not in self.jobs:
            return 404, status(404, f'rayjobs.ray.io "{name}" not found')
        job = self.jobs[name]
        if not job["spec"].get("suspend"):
            step = self.script.pop(0) if len(self.script) > 1 else self.script[0]
            if step is None:
                del self.jobs[name]
                return 404, status(404, f'rayjobs.ray.io "{name}" not found')
            job["status"] = step
        return 200, job

    def _create(self, body: Json) -> tuple[int, Json]:
        name = body["metadata"]["name"]
        if name in self.jobs:
            return 409, status(409, f'rayjobs.ray.io "{name}" already exists')
        self.jobs[name] = json.loads(json.dumps(body))
        return 201, self.jobs[name]

    @contextmanager
    def serving(self) -> Iterator[FakeKubernetes]:
        """Answers at `url` until the context ends."""
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._do("GET")

            def do_POST(self) -> None:
                self._do("POST")

            def _do(self, method: str) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = json.loads(self.rfile.read(length)) if length else None
                with fake.lock:
                    fake.tokens.add(self.headers.get("Authorization", ""))
                    if fake.faults:
                        code, text = fake.faults.pop(0)
                        data = text.encode()
                    elif self.headers.get("Authorization") != f"Bearer {TOKEN}":
                        code, data = 401, json.dumps(status(401, "Unauthorized")).encode()
                    else:
                        code, answer = fake.answer(method, self.path, body)
                        data = json.dumps(answer).encode()
                    fake.requests.append((method, self.path, code))
                if not code:
                    self.close_connection = True
                    return
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


def status(code: int, message: str) -> Json:
    """What Kubernetes answers when it does not answer with an object."""
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "message": message, "code": code}
