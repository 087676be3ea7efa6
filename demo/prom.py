"""Reads Prometheus for the demo's view and recording: two questions, plain answers."""

import http.client
import json
import math
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demo.recording import Series

# What is shown and recorded: the contract, and what scale and forecast say of themselves.
SHOWN = (
    '{__name__=~"queue:.+|workload:.+|ALERTS'
    "|tidewise_scale_decision_reason|tidewise_scale_replicas_reactive|tidewise_forecast_model_info"
    "|tidewise_exporter_collector_success|budget:.+|tidewise_budget_(limit|posted|held|projected)"
    '|target:recovery_operations:sum|target:recovery_instances:sum|fleet_worker_up"}'
)

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: never through a proxy


class PrometheusError(Exception):
    """Prometheus does not answer, or refuses the question."""


@dataclass(frozen=True, slots=True)
class Value:
    """One series' newest value; `at`: the time it was asked for."""

    name: str
    labels: Mapping[str, str]
    value: float
    at: float


def instant(url: str, query: str, timeout_seconds: float = 2.0) -> list[Value]:
    """The values now. NaN and infinities are left out: they are no figures. Raises PrometheusError."""
    found = []
    for item in _ask(f"{url}/api/v1/query", {"query": query}, timeout_seconds):
        at, text = item["value"]
        if math.isfinite(value := float(text)):
            found.append(Value(*_identity(item), value, float(at)))
    return found


def span(url: str, query: str, start: float, end: float, step_seconds: float) -> list[Series]:
    """The series over [start, end]. Raises PrometheusError."""
    asked = {"query": query, "start": f"{start:.3f}", "end": f"{end:.3f}", "step": f"{step_seconds:g}"}
    found = []
    for item in _ask(f"{url}/api/v1/query_range", asked, 10.0):
        pairs = [(float(at), float(text)) for at, text in item["values"]]
        pairs = [(at, value) for at, value in pairs if math.isfinite(value)]
        found.append(Series(*_identity(item), [at for at, _ in pairs], [value for _, value in pairs]))
    return found


def _identity(item: Mapping[str, Any]) -> tuple[str, dict[str, str]]:
    labels = dict(item["metric"])
    return labels.pop("__name__", ""), labels


def _ask(url: str, asked: Mapping[str, str], timeout_seconds: float) -> list[dict[str, Any]]:
    body = urllib.parse.urlencode(asked).encode()
    try:
        with _OPENER.open(url, body, timeout=timeout_seconds) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        raise PrometheusError(f"{url}: {error.read(300).decode(errors='replace')}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise PrometheusError(f"{url}: {error}") from None
    return list(answer["data"]["result"])
