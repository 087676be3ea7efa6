"""The configuration files of one run: the user's own tidewise.yaml first, then Prometheus's and Alertmanager's."""

import secrets
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from demo import settings
from demo.settings import Settings
from testbed.parts import HOST

SHIPPED = Path(__file__).resolve().parent.parent / "prometheus"
EXPORTER_JOB = "tidewise-exporter"
WORKER_RULES = Path(__file__).with_name("workers.rules.yml")
WORKER_ALERTS = ("WorkerDown", "WorkerHung")


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything of one run listens, all on 127.0.0.1."""

    redis_url: str
    prometheus_port: int
    alertmanager_port: int
    exporter_port: int
    forecast_port: int
    scale_port: int
    budget_port: int
    recovery_port: int
    fleet_port: int
    receiver_port: int
    long_term_port: int

    @property
    def prometheus_url(self) -> str:
        return f"http://{HOST}:{self.prometheus_port}"

    @property
    def alertmanager_url(self) -> str:
        return f"http://{HOST}:{self.alertmanager_port}"

    @property
    def long_term_url(self) -> str:
        return f"http://{HOST}:{self.long_term_port}"

    @property
    def budget_url(self) -> str:
        return f"http://{HOST}:{self.budget_port}"

    @property
    def exporter(self) -> str:
        return f"{HOST}:{self.exporter_port}"


def counter_labels(addresses: Addresses) -> dict[str, str]:
    """The labels that the scraped counters of arrivals and completions carry."""
    return {
        "system": settings.SYSTEM,
        "queue": settings.QUEUE,
        "instance": addresses.exporter,
        "job": EXPORTER_JOB,
    }


def token_file(folder: Path, name: str) -> Path:
    """Where the bearer token of this name is; made where there is none."""
    path = folder.resolve() / f"{name}.token"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24) + "\n", encoding="utf-8")
    return path


def tidewise(chosen: Settings, addresses: Addresses, time_zone: str = "Asia/Seoul") -> dict[str, Any]:
    """tidewise.yaml: what a user would write, with the demo's addresses and its quick intervals."""
    document = {
        "prometheus": {"url": addresses.prometheus_url},
        "exporters": _exporters(chosen, addresses),
        "workloads": [_workload(chosen)],
        "forecast": {
            "listen": [f"{HOST}:{addresses.forecast_port}"],
            "interval_seconds": settings.FORECAST_SECONDS,
        },
        "scale": {
            "listen": [f"{HOST}:{addresses.scale_port}"],
            "interval_seconds": settings.DECISION_SECONDS,
            "records": str(chosen.folder.resolve() / "decisions"),
            "record_every_seconds": 0.0,
        },
        "recovery": _recovery(chosen, addresses),
    }
    if chosen.budget:
        document["budget"] = _budget(chosen, addresses, time_zone)
    return document


def exporters(chosen: Settings) -> list[str]:
    """Which exporters run: those of which this machine has something to show."""
    return ["host", "queue", "latency", "database", *(["cost"] if chosen.budget else [])]


def _exporters(chosen: Settings, addresses: Addresses) -> dict[str, Any]:
    queue = {
        "name": settings.QUEUE,
        "active": list(settings.ACTIVE_KEYS),
        "failed": settings.FAILED_LIST,
        "counters": {
            "enqueued": settings.ENQUEUED_KEY,
            "completed": settings.COMPLETED_KEY,
            "failed": settings.FAILED_KEY,
            "process_seconds": settings.PROCESS_SECONDS_KEY,
        },
    }
    asked = {
        "forecast": addresses.forecast_port,
        "scale": addresses.scale_port,
        "recovery": addresses.recovery_port,
        **({"budget": addresses.budget_port} if chosen.budget else {}),
    }
    document: dict[str, Any] = {
        "listen": [addresses.exporter],
        "queue": {"redis": [{"url": addresses.redis_url, "queues": [queue]}]},
        "latency": {
            "probes": {
                "http": [
                    {"service": f"tidewise-{name}", "url": f"http://{HOST}:{port}/-/healthy"}
                    for name, port in asked.items()
                ]
            }
        },
        "database": {"redis": [{"url": addresses.redis_url, "name": "jobs"}]},
    }
    if chosen.budget:
        folder = chosen.folder.resolve()
        document["database"]["sqlite"] = [{"path": str(folder / "ledger.sqlite"), "name": "ledger"}]
        document["cost"] = {
            "ledger": {"url": addresses.budget_url, "token_file": str(token_file(folder, "budget"))},
        }
    return document


def _fleet(chosen: Settings, *words: str) -> list[str]:
    """The command that a controller calls."""
    return [sys.executable, "-m", "demo.fleet", *words, "--folder", str(chosen.folder.resolve())]


def _workload(chosen: Settings) -> dict[str, Any]:
    workload: dict[str, Any] = {
        "name": settings.WORKLOAD_NAME,
        "namespace": settings.WORKLOAD_NAMESPACE,
        "demand": {"queue": settings.QUEUE},
        "target": {
            "command": {
                "get": _fleet(chosen, "get"),
                "set": _fleet(chosen, "set", "{replicas}", "--first", "{victims}"),
            }
        },
        "replicas": {"min": settings.MIN_WORKERS, "max": settings.MAX_WORKERS},
        "slo": {"wait_seconds": settings.SLO_WAIT_SECONDS, "objective": settings.SLO_OBJECTIVE},
        "capacity": {"service_seconds": settings.CPU_SECONDS + settings.PAUSE_SECONDS},
        "lead_time_seconds": chosen.start_up_seconds,
        "mode": "act",
    }
    if chosen.budget:
        workload["price"] = {"per_replica_hour": settings.WORKER_HOUR}
    return workload


def _budget(chosen: Settings, addresses: Addresses, time_zone: str) -> dict[str, Any]:
    folder = chosen.folder.resolve()
    return {
        "total": f"{settings.TOTAL_BUDGET} KRW",
        "usage": f"{settings.USAGE_BUDGET} KRW",
        "fixed": [{"name": "server", "monthly": f"{settings.SERVER_COST} KRW"}],
        "time_zone": time_zone,
        "listen": [f"{HOST}:{addresses.budget_port}"],
        "url": addresses.budget_url,
        "token_file": str(token_file(folder, "budget")),
        "ledger": str(folder / "ledger.sqlite"),
        "interval_seconds": settings.BUDGET_SECONDS,
        "hold_seconds": settings.HOLD_SECONDS,
        "replica_hold": {"ttl_seconds": 30.0, "grace_seconds": 90.0},
        "fx": {"USD": f"{settings.USD_IN_KRW} KRW"},
    }


def _recovery(chosen: Settings, addresses: Addresses) -> dict[str, Any]:
    folder = chosen.folder.resolve()
    progress = "fleet_worker_last_progress_timestamp_seconds"
    return {
        "listen": [f"{HOST}:{addresses.recovery_port}"],
        "token_file": str(token_file(folder, "recovery")),
        "alertmanager": addresses.alertmanager_url,
        "journal": str(folder / "recovery.db"),
        "interval_seconds": settings.RECOVERY_SECONDS,
        "targets": [
            {
                "name": "workers",
                "workload": settings.WORKLOAD,
                "mode": "act",
                "instances": {"promql": "fleet_worker_up"},
                "label": "worker",
                "symptoms": [{"alert": alert} for alert in WORKER_ALERTS],
                "healthy": f"timestamp({progress}) - {progress} <= {settings.HUNG_SECONDS:g}",
                "liveness": "fleet_worker_up",
                "restart": {"argv": _fleet(chosen, "restart", "{instance}"), "timeout_seconds": 10.0},
                "verify_seconds": chosen.restart_seconds + 30.0,
                "stability_seconds": settings.STABILITY_SECONDS,
            }
        ],
    }


def prometheus(chosen: Settings, addresses: Addresses, workload_rules: Path) -> dict[str, Any]:
    """prometheus.yml as shipped, with this run's addresses and processes, and everything each five seconds."""
    targets = {
        EXPORTER_JOB: addresses.exporter_port,
        "tidewise-forecast": addresses.forecast_port,
        "tidewise-scale": addresses.scale_port,
        **({"tidewise-budget": addresses.budget_port} if chosen.budget else {}),
        "tidewise-recovery": addresses.recovery_port,
        "demo-fleet": addresses.fleet_port,
        "prometheus": addresses.prometheus_port,
    }
    document = _shipped("prometheus.yml")
    every = f"{settings.SCRAPE_SECONDS:g}s"
    document["global"] = {"scrape_interval": every, "scrape_timeout": "4s", "evaluation_interval": every}
    rules = [str(path) for path in sorted((SHIPPED / "rules").glob("*.yml")) if path.name != "workloads.yml"]
    document["rule_files"] = [*rules, str(workload_rules), str(WORKER_RULES)]
    document["alerting"]["alertmanagers"] = [{"static_configs": [_targets(addresses.alertmanager_port)]}]
    document["scrape_configs"] = [
        {"job_name": name, "static_configs": [_targets(port)]} for name, port in targets.items()
    ]
    if chosen.long_term:
        document |= _shipped("remote-write.yml")
        document["remote_write"][0]["url"] = f"{addresses.long_term_url}/api/v1/write"
    return document


def long_term() -> dict[str, Any]:
    """longterm.yml as shipped: it scrapes nothing, so there is nothing of this run in it."""
    return _shipped("longterm.yml")


def alertmanager(chosen: Settings, addresses: Addresses) -> dict[str, Any]:
    """alertmanager.yml as shipped, its messages to this run's receiver and without the pauses that spare people.

    What is wrong with a worker goes to recovery as well as to people.
    """
    document = _shipped("alertmanager/alertmanager.yml")
    for receiver in document["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            webhook["url"] = f"http://{HOST}:{addresses.receiver_port}/"
    document["route"] |= {"group_wait": "1s", "group_interval": "5s"}
    document["route"]["group_by"] = [*document["route"]["group_by"], "worker"]
    for_recovery = {
        "receiver": "recovery",
        "matchers": [f'alertname =~ "{"|".join(WORKER_ALERTS)}"'],
        "continue": True,
    }
    document["route"]["routes"] = [
        for_recovery,
        {"receiver": document["route"]["receiver"], "matchers": for_recovery["matchers"]},
        *document["route"]["routes"],
    ]
    webhook = {
        "url": f"http://{HOST}:{addresses.recovery_port}/alerts",
        "max_alerts": 100,
        "http_config": {"authorization": {"credentials_file": str(token_file(chosen.folder, "recovery"))}},
    }
    document["receivers"] = [*document["receivers"], {"name": "recovery", "webhook_configs": [webhook]}]
    return document


def _shipped(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((SHIPPED / name).read_text(encoding="utf-8")))


def _targets(port: int) -> dict[str, list[str]]:
    return {"targets": [f"{HOST}:{port}"]}


def write(document: dict[str, Any], path: Path, comment: str) -> None:
    """As YAML, the comment above it."""
    path.write_text(f"# {comment}\n{yaml.safe_dump(document, sort_keys=False, width=110)}", encoding="utf-8")
