"""A small API server that can be told to misbehave: what the real one does on bad days, and does not do on request."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

Json = dict[str, Any]


@dataclass
class Fault:
    """What happens to the next request of this method whose path ends so, once."""

    method: str
    path: str
    status: int = 500
    headers: dict[str, str] = field(default_factory=dict)
    message: str = "told to"
    done: bool = False  # carried out before the answer is spoilt
    silent_seconds: float = 0.0  # before the answer
    before: Any = None  # called first: what somebody else does at this moment


class FakeApi:
    """Objects by path, with resource versions and UIDs that writes are checked against."""

    def __init__(self) -> None:
        self.objects: dict[str, Json] = {}
        self.collections: set[str] = set()  # paths that list the objects right below them
        self.tokens: set[str] | None = None  # None: all are accepted
        self.most_replicas: int | None = None  # what an admission webhook makes of larger numbers
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.queries: list[dict[str, list[str]]] = []
        self.token = ""  # of the last request
        self.url = ""
        self._version = 100

    def put(self, path: str, body: Json, uid: str = "uid-1") -> None:
        """Have this object, as of now."""
        self._version += 1
        meta = {"uid": uid, **body.get("metadata", {}), "resourceVersion": str(self._version)}
        self.objects[path] = {**body, "metadata": meta}

    def touch(self, path: str) -> None:
        """A new version of the same object, as a status update makes it."""
        self.put(path, self.objects[path])

    def writes(self) -> list[str]:
        """The paths written to so far."""
        return [path for method, path in self.asked if method != "GET"]

    def answer(self, method: str, path: str, body: Json | None, token: str) -> tuple[int, dict[str, str], Json]:
        """What the server says, faults included."""
        self.token = token
        if self.tokens is not None and token not in self.tokens:
            return 401, {}, {"kind": "Status", "message": "Unauthorized"}
        fault = next((one for one in self.faults if one.method == method and path.endswith(one.path)), None)
        if fault is None:
            return self.carry_out(method, path, body)
        self.faults.remove(fault)
        if fault.before:
            fault.before()
        if fault.done:
            self.carry_out(method, path, body)
        time.sleep(fault.silent_seconds)
        if fault.status == 200:
            return self.carry_out(method, path, body)
        return fault.status, fault.headers, {"kind": "Status", "message": fault.message}

    def carry_out(self, method: str, path: str, body: Json | None) -> tuple[int, dict[str, str], Json]:
        """What a server on a good day does."""
        if method == "POST" and body is not None:
            path = f"{path}/{body['metadata']['name']}"
            if path in self.objects:
                return 409, {}, {"kind": "Status", "message": f"{path} already exists"}
            self.put(path, body)
            return 201, {}, self.objects[path]
        if method == "GET" and path in self.collections:
            return 200, {}, {"items": [one for at, one in self.objects.items() if at.rpartition("/")[0] == path]}
        found = self.objects.get(path)
        if found is None:
            return 404, {}, {"kind": "Status", "message": f"{path} not found"}
        if method == "PUT" and body is not None:
            for key in ("resourceVersion", "uid"):
                if body["metadata"].get(key) != found["metadata"][key]:
                    return 409, {}, {"kind": "Status", "message": f"the object has been modified: {key}"}
            if self.most_replicas is not None:
                body["spec"]["replicas"] = min(body["spec"]["replicas"], self.most_replicas)
            self.put(path, {**found, **body})
        if method == "PATCH" and body is not None:
            version = body["metadata"].get("resourceVersion", found["metadata"]["resourceVersion"])
            if version != found["metadata"]["resourceVersion"]:
                return 409, {}, {"kind": "Status", "message": "the object has been modified: resourceVersion"}
            self.put(path, merged(found, body))
        return 200, {}, self.objects[path]


def merged(found: Json, patch: Json) -> Json:
    """A merge patch carried out (RFC 7386)."""
    result = dict(found)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key) or {}, value) if isinstance(value, dict) else value
    return result


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    api: FakeApi

    def do_any(self) -> None:
        parts = urlsplit(self.path)
        self.api.asked.append((self.command, parts.path))
        self.api.queries.append(parse_qs(parts.query))
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        status, headers, answer = self.api.answer(self.command, parts.path, body, token)
        content = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_any  # noqa: N815 - the names http.server calls

    def log_message(self, *args: object) -> None:
        """Nothing: the tests look at `asked`."""


@contextmanager
def serving(api: FakeApi) -> Iterator[None]:
    """It answers on `api.url`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"api": api}))
    server.daemon_threads = True
    api.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def write_kubeconfig(folder: Path, url: str, token: str) -> Path:
    """A kubeconfig for this server, with the token in a file beside it."""
    (folder / "token").write_text(token)
    path = folder / "kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "fake", "cluster": {"server": url}}],
        "users": [{"name": "me", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "me"}}],
        "current-context": "fake",
    }
    path.write_text(yaml.safe_dump(content))
    return path
