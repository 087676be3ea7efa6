"""A Prometheus one can read: a real HTTP server that answers what a test scripted, well or badly."""

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

import pytest


@dataclass(frozen=True)
class Seen:
    """A request as it came."""

    path: str
    form: dict[str, str]
    headers: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What to send. `cut_at`: stop after so many bytes of the body. `pause`: seconds before each byte of `drip`."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    wait: float = 0.0
    cut_at: int | None = None
    drip: str | None = None  # "headers" or "body"
    pause: float = 0.05


class FakePrometheus:
    """Answers by `answer`, which a test sets: a Reply for always, or a function of the request."""

    Reply = Reply

    @staticmethod
    def success(kind: str, result: Any, **more: Any) -> Reply:
        envelope = {"status": "success", "data": {"resultType": kind, "result": result}, **more}
        return Reply(body=json.dumps(envelope).encode())

    @classmethod
    def vector(cls, *rows: tuple[Mapping[str, str], float | str], at: float = 1000.0, **more: Any) -> Reply:
        """An instant answer: (labels, value)..."""
        return cls.success(
            "vector", [{"metric": dict(labels), "value": [at, str(value)]} for labels, value in rows], **more
        )

    @classmethod
    def matrix(cls, *rows: tuple[Mapping[str, str], Sequence[tuple[float, float]]], **more: Any) -> Reply:
        """A range answer: (labels, ((time, value)...))..."""
        result = [
            {"metric": dict(labels), "values": [[at, str(value)] for at, value in points]} for labels, points in rows
        ]
        return cls.success("matrix", result, **more)

    @staticmethod
    def failure(status: int, error_type: str, error: str, headers: Mapping[str, str] | None = None) -> Reply:
        body = json.dumps({"status": "error", "errorType": error_type, "error": error}).encode()
        return Reply(status, body, headers or {})

    def __init__(self) -> None:
        self.answer: Reply | Callable[[Seen], Reply] = self.vector()
        self.seen: list[Seen] = []
        self.stopped = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def speak_tls(self, context: ssl.SSLContext) -> None:
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = self.url.replace("http://", "https://")

    def stop(self) -> None:
        self.stopped.set()
        self._server.shutdown()
        self._server.server_close()

    @property
    def queries(self) -> list[str]:
        return [seen.form["query"] for seen in self.seen]

    def _handler(fake) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - `self` is the handler's
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                form = self.rfile.read(int(self.headers["Content-Length"])).decode()
                seen = Seen(self.path, dict(parse_qsl(form)), dict(self.headers.items()))
                fake.seen.append(seen)
                reply = fake.answer if isinstance(fake.answer, Reply) else fake.answer(seen)
                fake.stopped.wait(reply.wait)
                head = f"HTTP/1.1 {reply.status} Said\r\nContent-Length: {len(reply.body)}\r\n"
                head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers.items()) + "\r\n"
                body = reply.body[: reply.cut_at]
                if reply.drip is None:  # at once: two writes would wait for an acknowledgement between them
                    self.wfile.write(head.encode() + body)
                else:
                    self._send(head.encode(), reply, "headers")
                    self._send(body, reply, "body")
                self.close_connection = reply.cut_at is not None or fake.stopped.is_set()

            def _send(self, data: bytes, reply: Reply, part: str) -> None:
                if reply.drip != part:
                    self.wfile.write(data)
                    return
                for byte in data:
                    if fake.stopped.is_set():
                        return
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(reply.pause)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:  # the client hung up on us, as it should
                    return

            def log_message(self, *_: object) -> None:
                return

        return Handler


@pytest.fixture
def fake() -> Iterator[FakePrometheus]:
    server = FakePrometheus()
    yield server
    server.stop()
