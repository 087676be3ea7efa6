"""Other people's exporters beside ours, one Prometheus, all rules: the same machine and servers give the same contract.

Everything of one side has `ours` in its labels, everything of the other `theirs`, so that no adapter steps back.
"""

import json
import re
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pika
import pytest
import redis
import yaml

from testbed.parts import HOST, Part, Prometheus, free_port, http_status
from testbed.rabbitmq import RabbitMQ
from testbed.services import NodeExporter, PostgresExporter, PostgreSQL, RedisExporter

pytestmark = pytest.mark.real

ROOT = Path(__file__).parents[2]
WINDOW = "3s"  # of rates, in the copies of the rules: nobody waits five minutes here

Series = frozenset[tuple[str, str]]

# How far two values may be apart: both sides look at slightly different moments. No entry: they are equal.
TOLERANCES = {
    "node:cpu_utilization:ratio_rate5m": 0.1,
    "node:memory_utilization:ratio": 0.02,
    "node:pressure_stalled:ratio_rate5m": 0.1,
    "node_device:disk_io_time:ratio_rate5m": 0.1,
    "node_mountpoint:filesystem_avail:ratio": 0.01,
    "database:ping_seconds:max": 0.5,
    "database:connections:ratio": 0.03,
    "database:oldest_transaction_seconds:max": 2.5,
    "database:size_bytes:sum": 1e6,
    "database:memory_used:ratio": 0.05,
    "queue:oldest_age_seconds:max": 2.5,
    "queue:data_age_seconds:max": 2.5,
    "queue:arrivals:rate1m": 0.01,
    "queue:arrivals:rate5m": 0.01,
}
# What must be there of theirs; of what else they give only the values are compared.
EXPECTED = {
    "node:cpu_utilization:ratio_rate5m", "node:memory_utilization:ratio", "node_mountpoint:filesystem_avail:ratio",
    "database:up:min", "database:connections:ratio", "database:size_bytes:sum", "database:memory_used:ratio",
    "queue:messages_ready:sum", "queue:messages:sum", "queue:oldest_age_seconds:max", "queue:completions:rate1m",
    "queue:data_age_seconds:max",
}  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """All rules, with short windows; returns the pattern of their files."""
    folder = tmp_path / "rules"
    folder.mkdir()
    for file in (ROOT / "prometheus" / "rules").glob("*.yml"):
        text = re.sub(r"\[(1m|5m|15m)\]", f"[{WINDOW}]", file.read_text())
        (folder / file.name).write_text(re.sub(r"offset (1m|5m)\b", f"offset {WINDOW}", text))
    return folder / "*.yml"


@pytest.fixture
def work(rabbitmq: RabbitMQ, redis_url: str) -> Iterator[None]:
    """Five messages that wait and two that somebody works on in RabbitMQ, three that wait in Redis; nothing moves."""
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", "64mb")
        client.lpush("video", *(json.dumps({"enqueued_at": time.time() - 500}) for _ in range(3)))
    with pika.BlockingConnection(pika.URLParameters(rabbitmq.url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders")
        for _ in range(7):
            channel.basic_publish("", "orders", b"job", pika.BasicProperties(timestamp=int(time.time()) - 500))
        channel.basic_qos(prefetch_count=2)
        taken: list[object] = []
        channel.basic_consume("orders", lambda *arguments: taken.append(arguments))
        while len(taken) < 2:
            connection.process_data_events(0.05)
        yield
        channel.queue_delete("orders")
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory", "0")


@pytest.fixture
def sides(
    tmp_path: Path, services_root: Path, rabbitmq: RabbitMQ, postgresql: PostgreSQL, redis_url: str, work: None
) -> Iterator[dict[str, Any]]:
    """What Prometheus scrapes: our exporters in one process, theirs in one each and RabbitMQ's plugin."""
    ours = {
        "host": {},
        "database": {
            "postgresql": [{"url": postgresql.dsn(), "name": "ours"}], "redis": [{"url": redis_url, "name": "ours"}]
        },
        "queue": {
            "redis": [{"url": redis_url, "queues": [{"name": "ours-video", "ready": "video"}]}],
            "rabbitmq": [{"url": rabbitmq.management_url, "label_prefix": "ours-", "match": "orders"}],
        },
    }  # fmt: skip
    (tmp_path / "tidewise.yaml").write_text(yaml.safe_dump({"exporters": ours}))
    port = free_port()
    log = (tmp_path / "exporter.log").open("wb")
    exporter = subprocess.Popen(
        [sys.executable, "-m", "exporters", *ours, "--config", str(tmp_path / "tidewise.yaml"),
         "--web.listen-address", f"{HOST}:{port}"],
        cwd=tmp_path, stderr=log,
    )  # fmt: skip
    theirs: dict[str, Part] = {
        "node": NodeExporter(tmp_path / "node", root=services_root),
        "redis": RedisExporter(
            tmp_path / "redis",
            flags=[f"--redis.addr={redis_url}", "--check-single-keys=db0=video", "--ping-on-connect"],
            root=services_root,
        ),
        "postgres": PostgresExporter(tmp_path / "postgres", postgresql.dsn(), root=services_root),
    }
    with ExitStack() as running:
        running.callback(log.close)
        running.callback(exporter.wait)
        running.callback(exporter.kill)
        for part in theirs.values():
            running.enter_context(part)
        while http_status(port, "/-/ready") != 200:
            assert exporter.poll() is None, (tmp_path / "exporter.log").read_text()
            time.sleep(0.05)
        key_is_queue = [
            {"source_labels": ["key"], "regex": "(.+)", "target_label": "queue", "replacement": "theirs-$1"}
        ]
        renamed = [{"source_labels": ["queue"], "regex": "(.+)", "target_label": "queue", "replacement": "theirs-$1"}]
        yield {
            "ours": {"port": port, "instance": "ours"},
            "node": {"port": theirs["node"].port, "instance": "theirs"},
            "redis": {"port": theirs["redis"].port, "instance": "theirs", "relabel": key_is_queue},
            "postgres": {"port": theirs["postgres"].port, "instance": "theirs"},
            "rabbitmq": {
                "port": rabbitmq.metrics_port, "instance": "theirs", "relabel": renamed, "path": "/metrics/per-object"
            },
        }  # fmt: skip


def scrape_config(name: str, side: dict[str, Any]) -> dict[str, Any]:
    return {
        "job_name": name,
        "metrics_path": side.get("path", "/metrics"),
        "static_configs": [{"targets": [f"{HOST}:{side['port']}"], "labels": {"instance": side["instance"]}}],
        "metric_relabel_configs": side.get("relabel", []),
    }


def contract(prometheus: Prometheus) -> dict[str, dict[Series, float]]:
    """The contract's series of both sides, by side; a name of that side stands as `it` in the labels."""
    asked = urllib.parse.urlencode({"query": '{__name__=~"(node|node_device|node_mountpoint|database|queue):.+"}'})
    with urllib.request.urlopen(f"{prometheus.url}/api/v1/query?{asked}") as answer:
        found = json.load(answer)["data"]["result"]
    sides: dict[str, dict[Series, float]] = {"ours": {}, "theirs": {}}
    for series in found:
        labels = json.dumps(series["metric"])
        for side, values in sides.items():
            if re.search(rf'"{side}(-\w+)?"', labels):
                named = json.loads(re.sub(rf'"{side}((-\w+)?)"', r'"it\1"', labels))
                values[frozenset(named.items())] = float(series["value"][1])
    return sides


def differences(sides: dict[str, dict[Series, float]]) -> list[str]:
    """Where theirs is missing, ours is missing beside theirs, or both say something else."""
    theirs, ours = sides["theirs"], sides["ours"]
    missing = EXPECTED - {dict(series)["__name__"] for series in theirs}
    said = [f"theirs has no {name}" for name in sorted(missing)]
    for series, value in theirs.items():
        name = dict(series)["__name__"]
        other = ours.get(series)
        if other is None:
            said.append(f"ours has no {dict(series)}")
        elif abs(value - other) > TOLERANCES.get(name, 0):
            said.append(f"{dict(series)}: theirs {value}, ours {other}")
    return said


@pytest.mark.timeout(100)
def test_both_sides_give_the_same_contract(
    sides: dict[str, Any], rules: Path, tmp_path: Path, prometheus_factory: Callable[..., Prometheus]
) -> None:
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [scrape_config(name, side) for name, side in sides.items()],
    }
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    prometheus = prometheus_factory(tmp_path / "prometheus.yml")
    deadline = time.monotonic() + 45
    while said := differences(found := contract(prometheus)):
        assert time.monotonic() < deadline, "\n".join(said)
        time.sleep(0.3)
    assert len(found["theirs"]) >= len(EXPECTED)
