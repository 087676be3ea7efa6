"""A ledger and a running budget process to ask, both in a folder of the test's own."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from controllers.budget.ledger import Ledger
from controllers.budget.run import build
from controllers.config import Config
from controllers.loop import Controller, Route, Tick
from exporters.runtime.endpoint import Endpoint, Request, Response

ROUTES = (
    ("POST", "/permit"),
    ("POST", "/settle"),
    ("POST", "/void"),
    ("POST", "/usage"),
    ("GET", "/state"),
    ("GET", "/statement"),
)
SEOUL = ZoneInfo("Asia/Seoul")
TOKEN = "a-token-of-the-tests-0123456789"


class Clock:
    """The time, as the test says."""

    def __init__(self, at: float) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at


class Asked:
    """A budget that serves; `step` is one turn of its loop."""

    def __init__(self, address: str, clock: Clock, controller: Controller) -> None:
        self.url = f"http://{address}"
        self.clock = clock
        self.controller = controller
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {TOKEN}"

    def step(self) -> None:
        self.controller.step(Tick(self.clock.at, time.monotonic() + 30))

    def metrics(self) -> dict[str, float]:
        """The budget's own samples, as 'name{label="value"}' -> number."""
        text = self.session.get(self.url + "/metrics", timeout=30).text
        lines = [line.rpartition(" ") for line in text.splitlines() if line.startswith("tidewise_budget")]
        return {name: float(value) for name, _, value in lines}

    def post(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        answer = self.session.post(self.url + path, json=body, timeout=30)
        return answer.status_code, answer.json()

    def get(self, path: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.session.get(self.url + path, timeout=30).json()
        return answer


@pytest.fixture
def open_ledger(tmp_path: Path) -> Iterator[Callable[..., Ledger]]:
    """Opens a ledger of 15,000 won a month or as asked; all are closed after the test."""
    with ExitStack() as opened:

        def start(path: Path = tmp_path / "ledger.sqlite", **options: Any) -> Ledger:
            ledger = Ledger(path, options.pop("currency", "KRW"), options.pop("zone", SEOUL), **options)
            opened.callback(ledger.close)
            return ledger

        yield start


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., Config]:
    """A configuration like the sample's: 24,900 in all, 15,000 for usage, 9,900 fixed, one priced workload."""
    token = tmp_path / "token"
    token.write_text(TOKEN + "\n")

    def make(replicas: dict[str, int] | None = None, **budget: Any) -> Config:
        return Config.model_validate(
            {
                "workloads": [
                    {
                        "name": "video",
                        "demand": {"queue": "video-jobs"},
                        "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                        "replicas": replicas or {"min": 0, "max": 4},
                        "price": {"per_replica_hour": "12 KRW"},
                    },
                    {
                        "name": "free",
                        "demand": {"queue": "other"},
                        "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                        "replicas": {"max": 2},
                    },
                ],
                "budget": {
                    "total": "24900 KRW",
                    "usage": "15000 KRW",
                    "fixed": [{"name": "server", "monthly": "9900 KRW"}],
                    "time_zone": "Asia/Seoul",
                    "listen": ["127.0.0.1:0"],
                    "token_file": str(token),
                    "ledger": str(tmp_path / "served.sqlite"),
                    "fx": {"USD": "1400 KRW"},
                    "gross": {"fx_buffer": 1},
                    "prices": [{"provider": "acme", "model": "ocr", "per_unit": {"pages": "2 KRW"}}],
                    **budget,
                },
            }
        )

    return make


class Stage(Collector):
    """One endpoint for many tests, for opening and closing one takes half a second; it serves the current budget."""

    def __init__(self) -> None:
        self.controller: Controller | None = None
        registry = CollectorRegistry()
        registry.register(self)
        self.endpoint = Endpoint(
            ["127.0.0.1:0"],
            registry,
            process="budget",
            ready=lambda: None,
            routes={key: self._route(key) for key in ROUTES},
        )

    def collect(self) -> Iterator[Metric]:
        for collector in self.controller.collectors if self.controller else ():
            yield from collector.collect()

    def _route(self, key: tuple[str, str]) -> Route:
        def answer(request: Request) -> Response:
            assert self.controller is not None
            return self.controller.routes[key](request)

        return answer


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The endpoint that every served budget of these tests stands behind."""
    stage = Stage()
    stage.endpoint.start()
    yield stage
    stage.endpoint.stop()


@pytest.fixture
def serve(settings: Callable[..., Config], stage: Stage) -> Iterator[Callable[..., Asked]]:
    """Serves a `tidewise budget` whose clock and steps are the test's; the last one that was asked for answers."""
    with ExitStack() as running:

        def start(at: float = 1_795_000_000.0, config: Config | None = None, **budget: Any) -> Asked:
            config = config or settings(**budget)
            assert config.budget is not None
            clock = Clock(at)
            stage.controller = build(config, config.budget, clock)
            running.callback(stage.controller.close)
            asked = Asked(stage.endpoint.addresses[0], clock, stage.controller)
            running.callback(asked.session.close)
            return asked

        yield start
        stage.controller = None
