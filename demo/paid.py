"""A worker's way to the ledger: a permit before each paid call, a settlement after it. Imports next to nothing.

The call itself is only waited for: nobody's API is asked. What the ledger does not permit, or does not answer in time,
is not called.
"""

import http.client
import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from demo import settings

ANSWER_SECONDS = 0.4  # of one request: within a job's pause


class Permit(StrEnum):
    """What became of asking."""

    GRANTED = "granted"
    DENIED = "denied"
    UNANSWERED = "unanswered"


@dataclass(frozen=True, slots=True)
class Call:
    """One paid call. Its id is source, execution, node, item and attempt: told twice, it counts once."""

    job: str
    attempt: int

    @property
    def event_id(self) -> str:
        return f"demo/live/vision/{self.job}/{self.attempt}"


def most_units() -> dict[str, int]:
    """What a call may use at its most."""
    return {"input_tokens": settings.INPUT_TOKENS, "output_tokens": settings.MOST_OUTPUT_TOKENS}


def used_units(number: int) -> dict[str, int]:
    """What the call of job `number` used: answers differ, by a rule, so that the same run costs the same."""
    return {"input_tokens": settings.INPUT_TOKENS, "output_tokens": 1 + number // settings.PAID_EVERY % 11}


class Payer:
    """Asks the ledger at `url`. One connection is kept; an answer that is late or odd is no answer."""

    def __init__(self, url: str, token_file: Path) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=ANSWER_SECONDS)
        self._token_file = token_file

    def permit(self, call: Call) -> Permit:
        """May it be made?"""
        status = self._ask(
            "/permit",
            {
                "event_id": call.event_id,
                "provider": settings.PROVIDER,
                "model": settings.MODEL,
                "units": most_units(),
                "workflow": "live",
                "workload": settings.WORKLOAD,
                "priority": "critical",
                "hold_seconds": settings.HOLD_SECONDS,
            },
        )
        if status is None or status == 503:
            return Permit.UNANSWERED
        return Permit.GRANTED if status == 200 else Permit.DENIED

    def settle(self, call: Call, units: dict[str, int]) -> bool:
        """What it really used. What is not settled counts as spent in full once its hold ends."""
        return self._ask("/settle", {"hold": call.event_id, "units": units}) == 200

    def _ask(self, path: str, body: dict[str, object]) -> int | None:
        """The answer's status, None without one. Asked again at most once, where a kept connection had ended."""
        kept = self._connection.sock is not None
        try:
            headers = {
                "Authorization": f"Bearer {self._token_file.read_text(encoding='utf-8').strip()}",
                "Content-Type": "application/json",
            }
            self._connection.request("POST", path, json.dumps(body), headers)
            response = self._connection.getresponse()
            response.read()
        except TimeoutError:
            self._connection.close()
            return None
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return self._ask(path, body) if kept else None
        return response.status
