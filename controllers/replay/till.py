"""The real ledger in this process, asked by its own HTTP routes without a socket, on a clock that the replay moves."""

import json
import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

from controllers.budget.client import Client
from controllers.budget.run import build
from controllers.config import Budget, Config
from controllers.domain import Money
from controllers.loop import Tick
from controllers.scale.purse import Purse
from exporters.runtime.bearer import read_token
from exporters.runtime.endpoint import Request


class InProcess:
    """`tidewise budget` as configured, its file and token included, and the scaler's purse before it.

    Raises what starting it raises.
    """

    def __init__(self, config: Config, budget: Budget, now: float) -> None:
        self._now = now
        self._controller = build(config, budget, lambda: self._now)
        self._headers = {"authorization": f"Bearer {read_token(budget.token_file, 'budget.token_file')}"}
        hold = budget.replica_hold
        self._purse = Purse(_Straight(self), hold.ttl_seconds, hold.ttl_seconds + hold.grace_seconds)

    def ask(self, method: str, path: str, body: Mapping[str, Any], now: float) -> tuple[int, Mapping[str, Any]]:
        """As an HTTP client would; `path` without a query."""
        self._now = now
        return self.answer(method, path, body)

    def answer(self, method: str, path: str, body: Mapping[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """At the time of the last call that had one."""
        text = json.dumps(body).encode() if body else b""
        answer = self._controller.routes[method, path](Request(method, path, {}, self._headers, text))
        return answer.status, json.loads(answer.body)

    def step(self, now: float) -> None:
        """A turn of its loop. Raises StepError."""
        self._now = now
        self._controller.step(_tick(now))

    def look(self, running: Mapping[str, int], now: float) -> Mapping[str, Money]:
        """The scaler's look at its money, as in each of its steps."""
        self._now = now
        return self._purse.look(running, _tick(now), acting=True)

    def take(self, workload: str, running: int, more: int, lead_seconds: float, now: float) -> int:
        """The scaler's holds for what it is about to start."""
        self._now = now
        granted = self._purse.take(workload, running, more, lead_seconds, _tick(now)).granted
        self._purse.started(workload)
        return granted

    def close(self) -> None:
        """Closes the ledger's file."""
        self._purse.close()
        self._controller.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Straight(Client):
    """The scaler's client, its requests answered without a socket."""

    def __init__(self, till: InProcess) -> None:
        super().__init__("http://in-process", None)
        self._till = till

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, dict[str, Any]]:
        return self._till.answer(method, path, body)


def _tick(now: float) -> Tick:
    return Tick(now, math.inf)
