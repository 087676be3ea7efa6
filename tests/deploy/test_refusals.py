"""What the chart refuses, and what helm then says."""

import re
from typing import Any

import pytest

PROMETHEUS = {"url": "http://prometheus.monitoring:9090"}
GENERIC = {"kind": "Rollout", "name": "web", "api_version": "argoproj.io/v1alpha1"}


def values(**more: Any) -> dict[str, Any]:
    return {"prometheus": PROMETHEUS, **more}


def workload(target: dict[str, Any], **more: Any) -> dict[str, Any]:
    video = {"name": "video", "demand": {"queue": "video"}, "replicas": {"max": 4}, "target": {"kubernetes": target}}
    return {"workloads": [{**video, **more}]}


WORKER = {"namespace": "lab", "deployment": "worker"}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "no address of Prometheus": ({}, "prometheus.url is missing: where Prometheus is reached"),
    "an address without http": (
        {"prometheus": {"url": "prometheus:9090"}},
        "at '/prometheus/url': 'prometheus:9090' does not match",
    ),
    "a misspelt component": (values(scael={}), "additional properties 'scael' not allowed"),
    "a misspelt key of a component": (values(forecast={"enable": True}), "at '/forecast/enable': false schema"),
    "a misspelt key of the configuration": (
        values(config=workload(WORKER, replica={"max": 1})),
        "at '/config/workloads/0': additional properties 'replica' not allowed",
    ),
    "Prometheus's address in a second place": (
        values(config={"prometheus": {"url": "http://x"}}),
        "at '/config/prometheus': additional properties 'url' not allowed",
    ),
    "a right on everything": (
        values(rbac={"extraRules": [{"apiGroups": ["*"], "resources": ["pods"], "verbs": ["get"]}]}),
        "at '/rbac/extraRules/0/apiGroups/0'",
    ),
    "a right to do what others may": (
        values(rbac={"extraRules": [{"apiGroups": [""], "resources": ["users"], "verbs": ["impersonate"]}]}),
        "at '/rbac/extraRules/0/verbs/0'",
    ),
    "a label that is a number": (
        values(dashboards={"additionalLabels": {"grafana": 1}}),
        "at '/dashboards/additionalLabels/grafana': got number, want string",
    ),
    "a namespace that is not allowed": (
        values(rbac={"namespaces": ["prod"]}, config=workload(WORKER)),
        "video: its target is in the namespace 'lab', which is not in rbac.namespaces",
    ),
    "everywhere and somewhere": (
        values(rbac={"scope": "cluster", "namespaces": ["prod"]}),
        "rbac.namespaces: found with rbac.scope cluster",
    ),
    "two scalers without a lease": (values(scale={"replicas": 2}), "scale.replicas: more than one without"),
    "one volume for two": (
        values(scale={"replicas": 2, "lease": {"enabled": True}, "persistence": {"enabled": True}}),
        "scale.persistence.enabled: its volume belongs to one pod",
    ),
    "a door that leads to any of two scalers": (
        values(scale={"replicas": 2, "lease": {"enabled": True}}, config={"scale": {"external_scaler": {}}}),
        "config.scale.external_scaler: its Service leads to any of scale.replicas",
    ),
    "a ledger without a budget": (values(budget={"enabled": True}), "budget.enabled: there is no config.budget"),
    "nothing to mend": (values(recovery={"enabled": True}), "recovery.enabled: there are no config.recovery.targets"),
    "nothing to watch": (
        values(exporters={"services": {"enabled": True}}, config={"exporters": {"host": {}, "queue": None}}),
        "exporters.services.enabled: config.exporters names nothing to watch",
    ),
    "a bill of AWS that is forgotten with the pod": (
        values(exporters={"services": {"enabled": True}}, config={"exporters": {"cost": {"aws": {}}}}),
        "config.exporters.cost.aws: each question to AWS costs money",
    ),
    "spend of a ledger that is nowhere": (
        values(config={"exporters": {"cost": {"ledger": {}}}}),
        "config.exporters.cost.ledger.url: missing",
    ),
    "spend of a ledger without its token": (
        values(budget={"enabled": True}, config={"budget": {"total": "1 KRW"}, "exporters": {"cost": {"ledger": {}}}}),
        "config.exporters.cost.ledger.token_file: missing",
    ),
    "a scheme that there is not": (
        values(exporters={"web": {"scrape": {"scheme": "tls"}}}),
        "at '/exporters/web/scrape/scheme'",
    ),
    "a kind whose plural nobody knows": (
        values(config=workload({"namespace": "lab", "generic": GENERIC})),
        "for a generic target give rbac.extraRules the right on its scale",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_a_reason(rendered: Any, case: str) -> None:
    wrong, said = REFUSED[case]
    done = rendered(wrong)
    assert done.returncode != 0
    assert re.search(re.escape(said), done.stderr), done.stderr
