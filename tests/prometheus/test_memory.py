"""Two real Prometheus servers: the first sends the contract, the second keeps it for a year."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from testbed.parts import Prometheus, promtool

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "prometheus"
CONTRACT = "[^:]+:[^:]+:[^:]+"
KEPT = "workload:replicas:max"  # recorded at each evaluation: one sample a second for each of three workloads
BEHIND = "prometheus_remote_storage_highest_timestamp_in_seconds - on (instance) group_right () \
prometheus_remote_storage_queue_highest_sent_timestamp_seconds"


def two_tier() -> str:
    """As docs/memory.md says: one file after the other."""
    return (SHIPPED / "prometheus.yml").read_text() + (SHIPPED / "remote-write.yml").read_text()


@pytest.fixture(scope="module")
def tiers(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Prometheus, Prometheus]]:
    """The short tier and the long one, as shipped but for addresses and one evaluation a second."""
    folder = tmp_path_factory.mktemp("tiers")
    long = Prometheus(
        folder / "long",
        SHIPPED / "longterm.yml",
        retention="1y",
        flags=("--web.enable-remote-write-receiver",),
        root=parts_root,
    )
    config = folder / "two-tier.yml"
    short = Prometheus(
        folder / "short", config, retention="30d", flags=("--storage.remote.flush-deadline=1s",), root=parts_root
    )
    document = yaml.safe_load(two_tier())
    document["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s", "scrape_timeout": "1s"}
    document["rule_files"] = [str(SHIPPED / "rules" / "memory.yml"), str(SHIPPED / "tests" / "example.rules.yml")]
    own = {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{short.port}"]}]}
    document |= {"alerting": {}, "scrape_configs": [own]}
    document["remote_write"][0]["url"] = f"{long.url}/api/v1/write"
    config.write_text(yaml.safe_dump(document))
    short.stop_seconds = 55.0
    with long, short:
        yield short, long


def ask(server: Prometheus, query: str, at: float | None = None) -> list[dict[str, Any]]:
    answer = requests.get(
        f"{server.url}/api/v1/query", params={"query": query} | ({"time": at} if at else {}), timeout=10
    )
    found: list[dict[str, Any]] = answer.json()["data"]["result"]
    return found


def value(server: Prometheus, query: str) -> float:
    """0 where there is nothing."""
    return max((float(one["value"][1]) for one in ask(server, query)), default=0.0)


def samples(server: Prometheus, at: float) -> dict[str, list[tuple[float, str]]]:
    """By workload, every sample of the series until then."""
    return {one["metric"]["workload"]: one["values"] for one in ask(server, f"{KEPT}[1h]", at)}


def until(done: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.5)


@pytest.mark.real
def test_promtool_takes_each_file_and_both_together(parts_root: Path, tmp_path: Path) -> None:
    (tmp_path / "two-tier.yml").write_text(two_tier())
    (tmp_path / "rules").symlink_to(SHIPPED / "rules")
    for path in (SHIPPED / "longterm.yml", tmp_path / "two-tier.yml"):
        done = promtool("check", "config", path, root=parts_root)
        assert done.returncode == 0, done.stdout + done.stderr


def test_only_names_of_the_contract_are_sent() -> None:
    (remote,) = yaml.safe_load((SHIPPED / "remote-write.yml").read_text())["remote_write"]
    assert remote["write_relabel_configs"] == [{"source_labels": ["__name__"], "regex": CONTRACT, "action": "keep"}]
    assert "remote_write" not in yaml.safe_load((SHIPPED / "prometheus.yml").read_text())


@pytest.mark.real
def test_the_contract_arrives_and_raw_metrics_do_not(tiers: tuple[Prometheus, Prometheus]) -> None:
    short, long = tiers
    until(lambda: value(long, f"min(count_over_time({KEPT}[1h]))") >= 3, "contract series in the long tier")
    names = f'count by (__name__) ({{__name__=~".+",__name__!~"{CONTRACT}"}})'
    until(lambda: len(ask(short, names)) > 100, "raw metrics in the short tier")
    assert ask(long, names) == []
    recorded = 'group by (__name__) ({__name__=~".+:.+:.+"})'
    assert {one["metric"]["__name__"] for one in ask(short, recorded)} == {
        one["metric"]["__name__"] for one in ask(long, recorded)
    }


@pytest.mark.real
def test_a_receiver_that_was_away_for_ten_seconds_has_every_sample_in_the_end(
    tiers: tuple[Prometheus, Prometheus],
) -> None:
    short, long = tiers
    until(lambda: value(long, f"min(count_over_time({KEPT}[1h]))") >= 3, "contract series in the long tier")
    away = time.time()
    long.stop()
    until(lambda: time.time() - away >= 10 and value(short, BEHIND) >= 5, "ten seconds without the long tier")
    long.start()
    back = time.time()
    until(lambda: min((s[-1][0] for s in samples(long, time.time()).values()), default=0) > back, "it has caught up")
    sent, kept = samples(short, back), samples(long, back)
    assert len(sent) == 3
    assert all(sum(away <= at <= back for at, _ in one) >= 8 for one in sent.values())  # recorded while it was away
    assert kept == sent
    assert value(short, "prometheus_remote_storage_samples_failed_total") == 0


@pytest.mark.real
def test_the_first_server_ends_soon_even_if_the_second_is_gone(tiers: tuple[Prometheus, Prometheus]) -> None:
    """Without the flag it tries for a minute: in compose or systemd that is a kill."""
    short, long = tiers
    long.stop()
    began = time.monotonic()
    short.stop()
    assert time.monotonic() - began < 50
    assert "See you next time!" in short.log_tail(3)  # it was not killed
    assert "--storage.remote.flush-deadline=1s" in (SHIPPED / "remote-write.yml").read_text()
