"""Kubernetes' external metrics API, as far as an HorizontalPodAutoscaler asks it.

The API server comes here by an APIService, over TLS, after it has checked the asker's rights itself. There is one
metric; which workload is said by labels, whose values can hold no slash: `workload` is its name, `namespace` that of
its identity, where it is not the HPA's own.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import unquote

from prometheus_client import CollectorRegistry

from controllers.config import ConfigError, ExternalMetrics
from controllers.scale.following.answers import METRIC_NAME, NotPublishedError, Numbers, UnknownNumberError
from exporters.runtime.endpoint import Endpoint, Request, Response, Route, json_response
from exporters.runtime.web import Web

GROUP = "external.metrics.k8s.io"
VERSION = f"{GROUP}/v1beta1"
ROOT = f"/apis/{VERSION}"
_EQUALS = re.compile(r"\s*([\w./-]+)\s*(?:==?\s*([\w.-]+)|in\s*\(\s*([\w.-]+)\s*\))\s*")


def endpoint(settings: ExternalMetrics, numbers: Numbers) -> Endpoint:
    """The endpoint, not listening yet. Raises ConfigError."""
    try:
        web = Web(settings.web_config)
    except ConfigError as error:
        raise ConfigError([f"scale.external_metrics.web_config: {problem}" for problem in error.problems]) from None
    if web.now().context is None:
        where = f"scale.external_metrics.web_config: {settings.web_config}"
        raise ConfigError([f"{where}: no tls_server_config, and the API server comes by TLS only; add one"])
    return Endpoint(
        settings.listen,
        CollectorRegistry(),
        process="scale, external metrics",
        ready=lambda: None,
        routes=routes(numbers),
        web=web,
    )


def routes(numbers: Numbers) -> Mapping[tuple[str, str], Route]:
    """What the API server and the HPA ask."""

    def metric(request: Request) -> Response:
        parts = request.path.removeprefix(f"{ROOT}/namespaces/").split("/")
        if len(parts) != 2 or unquote(parts[1]) != METRIC_NAME:
            return _failure(404, "NotFound", f"{request.path}: there is only {METRIC_NAME} here, in every namespace")
        try:
            workload = selected(request.query.get("labelSelector", ""), parts[0])
        except ValueError as error:
            return _failure(400, "BadRequest", str(error))
        try:
            return _value(workload, numbers.of(workload))
        except NotPublishedError as error:
            return _failure(404, "NotFound", str(error))
        except UnknownNumberError as error:
            return _failure(503, "ServiceUnavailable", str(error))

    return {
        ("GET", f"/apis/{GROUP}"): lambda _: json_response(_group()),
        ("GET", ROOT): lambda _: json_response(_resources()),
        ("GET", f"{ROOT}/namespaces/*"): metric,
    }


def selected(selector: str, namespace: str) -> str:
    """The identity of the workload that a label selector names. Raises ValueError with what to write."""
    labels: dict[str, str] = {}
    rest = selector
    while rest:
        found = _EQUALS.match(rest)
        if found is None or (found.end() < len(rest) and rest[found.end()] != ","):
            raise ValueError(f"'{selector}': write matchLabels with one value each; others cannot name one workload")
        labels[found[1]] = found[2] or found[3]
        rest = rest[found.end() + 1 :]
    unknown = sorted(labels.keys() - {"workload", "namespace"})
    if unknown:
        raise ValueError(f"'{selector}': label {unknown[0]} is unknown here; there are workload and namespace")
    if "workload" not in labels:
        raise ValueError(
            f"'{selector}': no label workload; an HPA adds up all it gets, so name the one it is to follow"
        )
    return f"{labels.get('namespace', namespace)}/{labels['workload']}"


def _value(workload: str, replicas: int) -> Response:
    namespace, _, name = workload.partition("/")
    item = {
        "metricName": METRIC_NAME,
        "metricLabels": {"workload": name, "namespace": namespace},
        "timestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "value": str(replicas),
    }
    return json_response({"kind": "ExternalMetricValueList", "apiVersion": VERSION, "metadata": {}, "items": [item]})


def _group() -> dict[str, object]:
    version = {"groupVersion": VERSION, "version": "v1beta1"}
    return {
        "kind": "APIGroup",
        "apiVersion": "v1",
        "name": GROUP,
        "versions": [version],
        "preferredVersion": version,
    }


def _resources() -> dict[str, object]:
    one = {
        "name": METRIC_NAME,
        "singularName": "",
        "namespaced": True,
        "kind": "ExternalMetricValueList",
        "verbs": ["get"],
    }
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": VERSION, "resources": [one]}


def _failure(code: int, reason: str, message: str) -> Response:
    """As the API server words a refusal, so that `kubectl describe hpa` shows the sentence."""
    return json_response(
        {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": reason,
            "code": code,
        },
        code,
    )
