"""A Docker daemon one can read: containers in a dict, behind the real HTTP API on a socket, misbehaving on request."""

import contextlib
import json
import re
import socketserver
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

Json = dict[str, Any]
LABELS = "com.docker.compose."


@dataclass
class Fault:
    """What happens to the next request of this method whose path ends so, once. `status` 0: hangs up."""

    method: str
    path: str
    status: int = 500
    message: str = "told to"
    done: bool = False  # carried out before the answer is spoilt
    silent_seconds: float = 0.0


class FakeDocker:
    """Containers by id, in the order in which they were created."""

    def __init__(self) -> None:
        self.containers: dict[str, Json] = {}
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.bodies: list[Json] = []
        self.connected: list[tuple[str, str]] = []
        self.stop_seconds = 0.0  # so long a container takes to end
        self.graces: list[str | None] = []
        self.images: dict[str, str] = {"worker:1": "sha256:1"}
        self.lock = threading.RLock()
        self._count = 0

    def add(self, name: str, config: Json, state: str = "created", image: str = "sha256:1", **host: Any) -> str:
        """A container, as of now."""
        with self.lock:
            self._count += 1
            id_ = f"{self._count:064x}"
            self.containers[id_] = {
                "Id": id_, "Name": f"/{name}", "Image": image, "Created": self._count, "State": state,
                "Health": "none", "Config": {"Image": "worker:1", "Hostname": id_[:12], **config},
                "HostConfig": {"NetworkMode": "none", **host}, "NetworkSettings": {"Networks": {}},
            }  # fmt: skip
            return id_

    def add_service(self, number: int, state: str = "running", *, config_hash: str = "h", **config: Any) -> str:
        """A container of shop's worker."""
        labels = {"project": "shop", "service": "worker", "container-number": str(number), "oneoff": "False",
                  "config-hash": config_hash}  # fmt: skip
        full = {"Labels": {LABELS + key: value for key, value in labels.items()}, **config}
        return self.add(f"shop-worker-{number}", full, state)

    def names(self, *states: str) -> list[str]:
        """Of the containers (in these states)."""
        with self.lock:
            found = [one["Name"][1:] for one in self.containers.values() if not states or one["State"] in states]
        return sorted(found)

    def answer(self, method: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Any]:
        """Faults first. Status 0: no answer at all."""
        fault = next((one for one in self.faults if one.method == method and path.endswith(one.path)), None)
        if fault is None:
            return self.carry_out(method, path, query, body)
        self.faults.remove(fault)
        if fault.done:
            self.carry_out(method, path, query, body)
        time.sleep(fault.silent_seconds)
        return fault.status, {"message": fault.message}

    def carry_out(self, method: str, path: str, query: dict[str, str], body: Json) -> tuple[int, Any]:
        """What a daemon on a good day does."""
        if path == "/version":
            return 200, {"ApiVersion": "1.50", "MinAPIVersion": "1.44"}
        if path == "/containers/json":
            return 200, self._list(query)
        if path == "/containers/create":
            return self._create(query["name"], body)
        if found := re.fullmatch(r"/images/(.+)/json", path):
            image = self.images.get(found[1])
            return (200, {"Id": image}) if image else (404, {"message": f"No such image: {found[1]}"})
        if found := re.fullmatch(r"/networks/(.+)/connect", path):
            self.connected.append((found[1], body["Container"]))
            return 200, {}
        found = re.fullmatch(r"/containers/([0-9a-f]{64})(?:/(json|start|stop|rename))?", path)
        one = self.containers.get(found[1]) if found else None
        if found is None or one is None:
            return 404, {"message": f"No such container: {path}"}
        return self._container(method, one, found[2], query)

    def _container(self, method: str, one: Json, what: str | None, query: dict[str, str]) -> tuple[int, Any]:
        if what == "json":
            return 200, one
        if what == "start":
            one["State"] = "running"
        elif what == "stop":
            self.graces.append(query.get("t"))
            time.sleep(self.stop_seconds)
            one["State"] = "exited"
        elif what == "rename":
            if f"/{query['name']}" in {other["Name"] for other in self.containers.values()}:
                return 409, {"message": f"name {query['name']} is already in use"}
            one["Name"] = f"/{query['name']}"
        elif method == "DELETE":
            if one["State"] == "running" and query.get("force") != "True":
                return 409, {"message": "You cannot remove a running container"}
            del self.containers[one["Id"]]
        return 204, None

    def _list(self, query: dict[str, str]) -> list[Json]:
        filters = json.loads(query.get("filters", "{}"))
        wanted = dict(label.split("=", 1) for label in filters.get("label", []))
        rows = []
        for one in self.containers.values():
            labels = one["Config"].get("Labels", {})
            if any(labels.get(key) != value for key, value in wanted.items()):
                continue
            if query.get("all") != "1" and one["State"] != "running":
                continue
            if "health" in filters and one["Health"] not in filters["health"]:
                continue
            rows.append({"Id": one["Id"], "Names": [one["Name"]], "Labels": labels, "State": one["State"],
                         "Created": one["Created"]})  # fmt: skip
        return rows

    def _create(self, name: str, body: Json) -> tuple[int, Any]:
        if name in self.names():
            return 409, {"message": f'Conflict. The container name "/{name}" is already in use'}
        self.bodies.append(body)
        host = body.pop("HostConfig")
        return 201, {"Id": self.add(name, body, **host)}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    daemon: FakeDocker

    def do_any(self) -> None:
        parts = urlsplit(self.path)
        path = re.sub(r"^/v1\.50", "", parts.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length)) if length else {}
        self.daemon.asked.append((self.command, path))
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if path.startswith("/v1."):
            status, answer = 400, {"message": "client version is too old. Minimum supported API version is 1.44"}
        else:
            status, answer = self.daemon.answer(self.command, path, query, body)
        if status == 0:
            self.close_connection = True
            return
        content = b"" if answer is None else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        with contextlib.suppress(BrokenPipeError):  # whoever asked has given up
            self.end_headers()
            self.wfile.write(content)

    do_GET = do_POST = do_DELETE = do_any  # noqa: N815 - the names http.server calls

    def address_string(self) -> str:
        return "socket"

    def log_message(self, *args: object) -> None:
        """Nothing: the tests look at `asked`."""


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


def serve(docker: FakeDocker, path: Path) -> Callable[[], None]:
    """Answers at the socket until the returned function is called."""
    server = _Server(str(path), type("Bound", (_Handler,), {"daemon": docker}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()

    def stop() -> None:
        server.shutdown()
        thread.join()
        server.server_close()

    return stop
