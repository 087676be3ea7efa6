"""POST /alerts: what Alertmanager delivers. A hint, and nothing more: its labels only look up declared targets.

200 is answered when it is on the disk; 503 when it cannot be kept now, since Alertmanager asks again after a 5xx and
gives up after a 4xx.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, Field, ValidationError

from controllers.config.recovery import RecoveryTarget, is_instance
from controllers.recovery.journal import Alert, Journal, JournalError
from exporters.runtime.bearer import refused
from exporters.runtime.endpoint import Request, Response, json_response

ALERTS_A_DELIVERY = 1000

_Short = Annotated[str, Field(min_length=1, max_length=100)]


class _Delivered(BaseModel):
    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    startsAt: _Short  # noqa: N815 - Alertmanager's name
    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{1,64}$")]


class _Delivery(BaseModel):
    alerts: list[_Delivered]
    truncatedAlerts: Annotated[int, Field(ge=0)] = 0  # noqa: N815 - Alertmanager's name


log = structlog.get_logger()


class Webhook:
    """The route. `journal()` is None while recovery has none it may write to; `clock` gives Unix seconds.

    `declared(target)`: the instances that the target has now, None while nobody knows them.
    `counts`: deliveries and alerts, by what became of them.
    """

    def __init__(
        self,
        targets: Mapping[str, RecoveryTarget],
        token_file: Path | None,
        journal: Callable[[], Journal | None],
        declared: Callable[[str], frozenset[str] | None],
        clock: Callable[[], float],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()  # deliveries come in several threads
        self._by_alert: dict[str, list[RecoveryTarget]] = {}
        for target in targets.values():
            for symptom in target.symptoms:
                self._by_alert.setdefault(symptom.alert, []).append(target)
        self._token_file = token_file
        self._journal = journal
        self._declared = declared
        self._clock = clock

    def receive(self, request: Request) -> Response:
        """One delivery."""
        response = self._received(request)
        if response.status != 200:
            self._count({"refused": 1})
            log.warning("delivery_refused", status=response.status, answer=str(response.body).strip())
        return response

    def _received(self, request: Request) -> Response:
        refusal = refused(request, self._token_file, "recovery.token_file")
        if refusal is not None:
            return refusal
        try:
            delivery = _Delivery.model_validate_json(request.body)
        except ValidationError as error:
            where = ".".join(str(part) for part in error.errors()[0]["loc"]) or "the body"
            return _error(400, f"{where}: {error.errors()[0]['msg']}; this takes Alertmanager's webhook, version 4")
        if len(delivery.alerts) > ALERTS_A_DELIVERY:
            return _error(
                413,
                f"{len(delivery.alerts)} alerts in one delivery, at most {ALERTS_A_DELIVERY} are taken; "
                "set max_alerts in Alertmanager's receiver",
            )
        journal = self._journal()
        if journal is None:
            return _error(503, "recovery cannot write its journal now")
        alerts = [alert for one in delivery.alerts for alert in self._looked_up(one)]
        try:
            new = journal.deliver(alerts, self._clock()) if alerts else 0
        except JournalError as error:
            return _error(503, str(error))
        told = {
            "accepted": new,
            "duplicate": len(alerts) - new,
            "undeclared": sum(not list(self._looked_up(one)) for one in delivery.alerts),
            "truncated": delivery.truncatedAlerts,  # nothing is lost by it: every declared symptom is read anyway
        }
        self._count(told)
        return json_response(told)

    def _count(self, told: Mapping[str, int]) -> None:
        with self._lock:
            self.counts.update(told)

    def _looked_up(self, delivered: _Delivered) -> list[Alert]:
        """The declared targets it may be about. What it says of itself beyond that is not believed."""
        found: list[Alert] = []
        name = delivered.labels.get("alertname", "")
        for target in self._by_alert.get(name, []):
            instance = delivered.labels.get(target.label, "")
            known = self._declared(target.name)
            if is_instance(instance) and (known is None or instance in known):
                fingerprint = f"{delivered.fingerprint}@{target.name}"
                found.append(Alert(fingerprint, delivered.startsAt, delivered.status, target.name, name, instance))
        return found


def _error(status: int, text: str) -> Response:
    return json_response({"error": text}, status)
