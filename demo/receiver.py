"""A receiver of Alertmanager's notifications on loopback: keeps each, so that the demo can show it."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from testbed.parts import HOST


class Receiver:
    """Listens from `start` to `stop`. notifications: each a dict with at, status, alertname, labels, summary."""

    def __init__(self, folder: Path, port: int) -> None:
        self.port = port
        self.notifications: list[dict[str, Any]] = []
        self._path = folder / "notifications.jsonl"
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen on its port in a thread of its own."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(200 if receiver.keep(body) else 400)
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it is called with
                """Stay silent: what came is shown, not logged."""

        self._server = ThreadingHTTPServer((HOST, self.port), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True, name="receiver").start()

    def keep(self, body: bytes) -> bool:
        """Take one webhook body; False for what is none."""
        try:
            found = notifications(json.loads(body), time.time())
        except (ValueError, KeyError, TypeError, AttributeError):
            return False
        with self._path.open("a", encoding="utf-8") as log:
            log.writelines(json.dumps(notification) + "\n" for notification in found)
        self.notifications.extend(found)
        return True

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def notifications(message: dict[str, Any], at: float) -> list[dict[str, Any]]:
    """The alerts of one message of Alertmanager, as the demo shows them; `at`: when it came, Unix seconds."""
    return [
        {
            "at": round(at, 3),
            "status": alert["status"],
            "alertname": alert["labels"].get("alertname", "unknown"),
            "labels": alert["labels"],
            "summary": alert.get("annotations", {}).get("summary") or alert.get("annotations", {}).get("description"),
            "link": alert.get("generatorURL"),
        }
        for alert in message["alerts"]
    ]
