"""A stand-in for n8n's public API: its paths, parameters, cursors and answers, as an early 1.x and a 2.x give them."""

import base64
import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

KEY = "n8n_api_0123456789abcdef"
ENDED = ("success", "error", "crashed", "canceled")


class StandIn:
    """Executions are dictionaries by number; `raw` answers everything when it is set."""

    def __init__(self, new: bool = True) -> None:
        self.new = new
        self.workflows: list[dict[str, Any]] = []
        self.executions: dict[int, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.seconds_a_workflow = 0.0  # that its list takes
        self.raw: Callable[[], tuple[int, bytes]] | None = None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                status, body = outer._answer(self.path, self.headers.get("X-N8N-API-KEY", ""))
                self.send_response(status)
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients that left are no news
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def start(self, workflow: str, at: float, *, mode: str = "trigger", status: str = "running") -> int:
        number = max(self.executions, default=0) + 1
        self.executions[number] = {
            "finished": False, "mode": mode, "retryOf": None, "retrySuccessId": None, "status": status,
            "startedAt": _iso(at), "stoppedAt": None, "workflowId": workflow, "waitTill": None,
        }  # fmt: skip
        return number

    def end(self, number: int, at: float, status: str = "success") -> None:
        self.executions[number] |= {"finished": status == "success", "status": status, "stoppedAt": _iso(at)}

    def _answer(self, path: str, key: str) -> tuple[int, bytes]:
        if self.raw is not None:
            return self.raw()
        if key != KEY:
            return 401, b'{"message":"unauthorized"}'
        parts = urlsplit(path)
        query = dict(parse_qsl(parts.query))
        what = parts.path.removeprefix("/api/v1/")
        if what == "workflows":
            return self._workflows(query)
        if what == "executions":
            return self._executions(query)
        execution = self.executions.get(int(what.removeprefix("executions/")))
        if execution is None:
            return 404, b'{"message":"Not Found"}'
        return 200, json.dumps(self._shown(int(what.removeprefix("executions/")), execution)).encode()

    def _workflows(self, query: dict[str, str]) -> tuple[int, bytes]:
        state = _decoded(query.get("cursor")) or {"offset": 0, "limit": int(query.get("limit", "100"))}
        start, end = state["offset"], state["offset"] + state["limit"]
        following = _encoded({"offset": end, "limit": state["limit"]}) if end < len(self.workflows) else None
        time.sleep(self.seconds_a_workflow * len(self.workflows[start:end]))
        return 200, json.dumps({"data": self.workflows[start:end], "nextCursor": following}).encode()

    def _executions(self, query: dict[str, str]) -> tuple[int, bytes]:
        statuses = ("error", "success", "waiting", *(("running", "crashed", "canceled") if self.new else ()))
        if query.get("status", "success") not in statuses:
            return 400, b'{"message":"request.query.status should be equal to one of the allowed values"}'
        state = _decoded(query.get("cursor")) or {"lastId": None, "limit": int(query.get("limit", "100"))}
        wanted = (query["status"],) if "status" in query else (*ENDED, "waiting")
        numbers = [
            number
            for number, execution in sorted(self.executions.items(), reverse=True)
            if execution["status"] in wanted and (state["lastId"] is None or number < int(state["lastId"]))
        ]
        page, rest = numbers[: state["limit"]], numbers[state["limit"] :]
        following = _encoded({"lastId": str(page[-1]), "limit": state["limit"]}) if rest else None
        data = [self._shown(number, self.executions[number]) for number in page]
        return 200, json.dumps({"data": data, "nextCursor": following}).encode()

    def _shown(self, number: int, execution: dict[str, Any]) -> dict[str, Any]:
        if self.new:
            return {"id": str(number), **execution, "storedAt": "db", "jsonSizeBytes": 12}
        return {"id": number, **{key: value for key, value in execution.items() if key != "status"}}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _encoded(state: dict[str, Any]) -> str:
    return base64.b64encode(json.dumps(state).encode()).decode()


def _decoded(cursor: str | None) -> dict[str, Any] | None:
    return json.loads(base64.b64decode(cursor)) if cursor else None
