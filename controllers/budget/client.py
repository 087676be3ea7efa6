"""The scaler's way to the ledger: how many more replicas may there be, hold one, renew it, release it.

Two kinds of no. UnreachableError: there is no answer one could act on, so nothing grows and nothing is ended.
RefusedError: the ledger said no; of a renewal that is a drain notice, and the hold that is there pays for it.
"""

import json
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import requests

from controllers.sources.answer import SourceError
from controllers.sources.transport import Transport
from exporters.runtime.bearer import TokenError, read_token


class UnreachableError(Exception):
    """No usable answer within the deadline: gone, locked, misconfigured. Unknown is neither yes nor no."""


class RefusedError(Exception):
    """The ledger's no. `reason` is a BudgetReason's value; `str()` is its sentence."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Allowance:
    """What the money allows one workload. `replicas`: with a hold now; `hold`: what one more sets aside."""

    max_new: int
    replicas: int
    hold: Decimal
    per_hour: Decimal


@dataclass(frozen=True, slots=True)
class Held:
    """A replica's hold. `until`: Unix seconds; renewed by then, or it is posted in full."""

    hold: str
    until: float


class Client:
    """Talks to `budget.url`. The connection is kept. The token is read at each request."""

    def __init__(self, url: str, token_file: Path | None) -> None:
        self._url = url.rstrip("/")
        self._token_file = token_file
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a .netrc may see or replace the token
        self._transport = Transport(self._session)

    def close(self) -> None:
        """Ends the connection."""
        self._session.close()

    def allowances(self, seconds: float) -> dict[str, Allowance]:
        """Of every priced workload, by identity. Raises UnreachableError."""
        status, answer = self._ask("GET", "/state", None, seconds)
        if status != 200:
            raise UnreachableError(f"{self._url}/state: {status} {answer.get('error', '')}")
        try:
            return {
                workload: Allowance(
                    int(found["max_new"]),
                    int(found["replicas"]),
                    Decimal(found.get("hold", "0")),
                    Decimal(found.get("per_hour", "0")),
                )
                for workload, found in answer["workloads"].items()
            }
        except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise UnreachableError(f"{self._url}/state: an answer of another kind ({error!r})") from None

    def hold(self, workload: str, instance: str, seconds: float, lead_seconds: float | None = None) -> Held:
        """Before an instance is asked for. Safe to repeat. Raises RefusedError, UnreachableError."""
        body: dict[str, Any] = {"kind": "replica", "workload": workload, "instance": instance}
        return self._permit(body if lead_seconds is None else {**body, "lead_seconds": lead_seconds}, seconds)

    def renew(self, workload: str, instance: str, seconds: float) -> Held:
        """While an instance runs, as often as one likes. Raises RefusedError (drain it), UnreachableError."""
        return self._permit({"kind": "replica", "workload": workload, "instance": instance, "running": True}, seconds)

    def release(self, workload: str, instance: str, seconds: float) -> None:
        """Once an instance has stopped; what it ran is posted. Safe to repeat. Raises UnreachableError."""
        body = {"kind": "replica", "workload": workload, "instance": instance}
        status, answer = self._ask("POST", "/settle", body, seconds)
        if status != 200:
            raise UnreachableError(f"{self._url}/settle: {status} {answer.get('error', '')}")

    def void(self, workload: str, instance: str, hold: str, seconds: float) -> None:
        """Of an instance that provably never started: nothing is due. Safe to repeat. Raises UnreachableError."""
        body = {"kind": "replica", "workload": workload, "instance": instance, "nothing_started": True, "hold": hold}
        status, answer = self._ask("POST", "/void", body, seconds)
        if status == 409:  # part of its time is billed already: what is left ends as a replica's does
            self.release(workload, instance, seconds)
        elif status not in (200, 404):
            raise UnreachableError(f"{self._url}/void: {status} {answer.get('error', '')}")

    def _permit(self, body: dict[str, Any], seconds: float) -> Held:
        status, answer = self._ask("POST", "/permit", body, seconds)
        if status == 402:
            raise RefusedError(str(answer.get("reason", "")), str(answer.get("message", "")))
        try:
            if status != 200 or answer["allowed"] is not True:
                raise UnreachableError(f"{self._url}/permit: {status} {answer.get('error', '')}")
            return Held(str(answer["hold"]), float(answer["expires_at"]))
        except (KeyError, TypeError, ValueError) as error:
            raise UnreachableError(f"{self._url}/permit: an answer of another kind ({error!r})") from None

    def _ask(self, method: str, path: str, body: dict[str, Any] | None, seconds: float) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer that came whole within `seconds`."""
        url = self._url + path
        try:
            token = read_token(self._token_file, "budget.token_file")
            headers = {"Authorization": f"Bearer {token}", "Accept-Encoding": "identity"}
            reply = self._transport.request(method, url, headers, max(0.001, seconds), json=body)
            answer = json.loads(reply.body)
        except TokenError as error:
            raise UnreachableError(str(error)) from None
        except (SourceError, ValueError) as error:  # ValueError: no JSON
            raise UnreachableError(str(error) if isinstance(error, SourceError) else f"{url}: {error}") from None
        if not isinstance(answer, dict):
            raise UnreachableError(f"{url}: the answer is no JSON object")
        return reply.status, answer
