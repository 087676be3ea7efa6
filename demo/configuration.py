"""The configuration files of one run: the user's own tidewise.yaml first, then Prometheus's and Alertmanager's."""

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


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything of one run listens, all on 127.0.0.1."""

    redis_url: str
    prometheus_port: int
    alertmanager_port: int
    exporter_port: int
    forecast_port: int
    scale_port: int
    receiver_port: int

    @property
    def prometheus_url(self) -> str:
        return f"http://{HOST}:{self.prometheus_port}"

    @property
    def exporter(self) -> str:
        return f"{HOST}:{self.exporter_port}"


def counter_labels(addresses: Addresses) -> dict[str, str]:
    """The labels that the scraped counter of arrivals carries."""
    return {
        "system": settings.SYSTEM,
        "queue": settings.QUEUE,
        "instance": addresses.exporter,
        "job": EXPORTER_JOB,
    }


def tidewise(chosen: Settings, addresses: Addresses) -> dict[str, Any]:
    """tidewise.yaml: what a user would write, with the demo's addresses and its quick intervals."""
    folder = chosen.folder.resolve()
    fleet = [sys.executable, "-m", "demo.fleet"]
    return {
        "prometheus": {"url": addresses.prometheus_url},
        "exporters": {
            "listen": [addresses.exporter],
            "queue": {
                "redis": [
                    {
                        "url": addresses.redis_url,
                        "queues": [
                            {
                                "name": settings.QUEUE,
                                "active": list(settings.ACTIVE_KEYS),
                                "counters": {
                                    "enqueued": settings.ENQUEUED_KEY,
                                    "completed": settings.COMPLETED_KEY,
                                    "process_seconds": settings.PROCESS_SECONDS_KEY,
                                },
                            }
                        ],
                    }
                ]
            },
        },
        "workloads": [
            {
                "name": settings.WORKLOAD_NAME,
                "namespace": settings.WORKLOAD_NAMESPACE,
                "demand": {"queue": settings.QUEUE},
                "target": {
                    "command": {
                        "get": [*fleet, "get", "--folder", str(folder)],
                        "set": [*fleet, "set", "{replicas}", "--folder", str(folder)],
                    }
                },
                "replicas": {"min": settings.MIN_WORKERS, "max": settings.MAX_WORKERS},
                "slo": {"wait_seconds": settings.SLO_WAIT_SECONDS, "objective": settings.SLO_OBJECTIVE},
                "capacity": {"service_seconds": settings.CPU_SECONDS + settings.PAUSE_SECONDS},
                "lead_time_seconds": chosen.start_up_seconds,
                "mode": "act",
            }
        ],
        "forecast": {
            "listen": [f"{HOST}:{addresses.forecast_port}"],
            "interval_seconds": settings.FORECAST_SECONDS,
        },
        "scale": {
            "listen": [f"{HOST}:{addresses.scale_port}"],
            "interval_seconds": settings.DECISION_SECONDS,
            "records": str(folder / "decisions"),
            "record_every_seconds": 0.0,
        },
    }


def prometheus(addresses: Addresses, workload_rules: Path) -> dict[str, Any]:
    """prometheus.yml as shipped, with this run's addresses, and everything each five seconds."""
    targets = {
        EXPORTER_JOB: addresses.exporter_port,
        "tidewise-forecast": addresses.forecast_port,
        "tidewise-scale": addresses.scale_port,
        "prometheus": addresses.prometheus_port,
    }
    document = _shipped("prometheus.yml")
    every = f"{settings.SCRAPE_SECONDS:g}s"
    document["global"] = {"scrape_interval": every, "scrape_timeout": "4s", "evaluation_interval": every}
    rules = [str(path) for path in sorted((SHIPPED / "rules").glob("*.yml")) if path.name != "workloads.yml"]
    document["rule_files"] = [*rules, str(workload_rules)]
    document["alerting"]["alertmanagers"] = [{"static_configs": [_targets(addresses.alertmanager_port)]}]
    for job in document["scrape_configs"]:
        job["static_configs"] = [_targets(targets[job["job_name"]])]
    return document


def alertmanager(addresses: Addresses) -> dict[str, Any]:
    """alertmanager.yml as shipped, its messages to this run's receiver and without the pauses that spare people."""
    document = _shipped("alertmanager/alertmanager.yml")
    document["route"] |= {"group_wait": "1s", "group_interval": "5s"}
    for receiver in document["receivers"]:
        for webhook in receiver.get("webhook_configs", []):
            webhook["url"] = f"http://{HOST}:{addresses.receiver_port}/"
    return document


def _shipped(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((SHIPPED / name).read_text(encoding="utf-8")))


def _targets(port: int) -> dict[str, list[str]]:
    return {"targets": [f"{HOST}:{port}"]}


def write(document: dict[str, Any], path: Path, comment: str) -> None:
    """As YAML, the comment above it."""
    path.write_text(f"# {comment}\n{yaml.safe_dump(document, sort_keys=False, width=110)}", encoding="utf-8")
