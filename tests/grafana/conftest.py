"""A Prometheus with all of the project's rules and half an hour of everything that Tidewise's processes publish."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests
import yaml

from controllers.check import read
from controllers.rules import render
from exporters.registry import EXPORTERS, exporter
from grafana.queries import Prometheus as Asked
from testbed.parts import Prometheus, create_blocks

ROOT = Path(__file__).resolve().parents[2]
RULES = ROOT / "prometheus" / "rules"
STEP, MINUTES = 15, 35
WORKLOAD = {"workload": "default/video"}
CONFIG = """\
workloads:
  - name: video
    demand: {queue: demo-video-jobs}
    target: {command: {get: [replicas], set: [replicas, "{replicas}"]}}
    replicas: {max: 4}
    slo: {wait_seconds: 60}
"""
Series = tuple[str, dict[str, str], Callable[[float], float]]


def steady(value: float) -> Callable[[float], float]:
    return lambda at: value


def rising(per_second: float) -> Callable[[float], float]:
    return lambda at: per_second * (at % 1e7)  # at % 1e7: far from the precision that a float loses


def ago(seconds: float) -> Callable[[float], float]:
    """A time that many seconds before the sample."""
    return lambda at: at - seconds


def demand(at: float) -> float:
    return 5 + 2 * math.sin(at / 3600)


def exporter_series() -> Iterator[Series]:
    """What every exporter's demonstration shows, and what the collectors say of themselves."""
    on = {"job": "tidewise-exporter", "instance": "127.0.0.1:9811"}
    for (name, labels), value in demonstrated().items():
        yield name, on | dict(labels), value
    for collector in ("host.cpu", "queue.redis.127.0.0.1:6379/0"):
        yield "tidewise_exporter_collector_success", on | {"collector": collector}, steady(1)
        yield "tidewise_exporter_collector_duration_seconds", on | {"collector": collector}, steady(0.002)
        yield "tidewise_exporter_collector_last_success_timestamp_seconds", on | {"collector": collector}, ago(1)


Identity = tuple[str, tuple[tuple[str, str], ...]]


def demonstrated() -> dict[Identity, Callable[[float], float]]:
    """Each series of each exporter's demonstration, as a function of time; one page is made only once."""

    @functools.cache
    def at_time(at: float) -> dict[Identity, float]:
        return {
            (sample.name, tuple(sample.labels.items())): sample.value
            for name in EXPORTERS
            for metric in exporter(name).demo(at)
            for sample in metric.samples
        }

    def of(identity: Identity) -> Callable[[float], float]:
        return lambda at: at_time(at)[identity]

    return {identity: of(identity) for identity in at_time(float(int(time.time())))}


def forecast_series() -> Iterator[Series]:
    on = {"job": "tidewise-forecast", "instance": "127.0.0.1:9812"} | WORKLOAD
    for horizon in (120, 300, 900, 1800, 3600):
        ahead = on | {"horizon_seconds": str(horizon)}
        yield "tidewise_forecast_demand", ahead, lambda at, h=horizon: demand(at + h)
        for quantile, factor in (("0.1", 0.8), ("0.9", 1.2), ("0.98", 1.4)):
            of = ahead | {"quantile": quantile}
            yield "tidewise_forecast_demand_quantile", of, lambda at, h=horizon, f=factor: f * demand(at + h)
            yield "tidewise_forecast_peak_quantile", of, lambda at, h=horizon, f=factor: f * 7
            yield "tidewise_forecast_arrivals_quantile", of, lambda at, h=horizon, f=factor: f * 5 * h
        for kind in ("value", "peak", "arrivals"):
            yield "tidewise_forecast_coverage_ratio", ahead | {"kind": kind, "quantile": "0.9"}, steady(0.91)
    for quantile, factor in (("0.1", 0.9), ("0.9", 1.1), ("0.98", 1.3)):
        yield "tidewise_forecast_window_peak_quantile", on | {"quantile": quantile}, lambda at, f=factor: f * 6
    yield "tidewise_forecast_window_begin_seconds", on, steady(40)
    yield "tidewise_forecast_window_end_seconds", on, steady(90)
    for window, ratio in (("6h", 0.8), ("1d", 0.7), ("7d", 0.6)):
        yield "tidewise_forecast_skill_ratio", on | {"window": window}, steady(ratio)
    for seconds, ratio in (("60", 0.12), ("3600", 0.02)):
        yield "tidewise_forecast_noise_floor_ratio", on | {"mean_seconds": seconds}, steady(ratio)
    yield "tidewise_forecast_series_info", on | {"series": "workload:demand:rate1m"}, steady(1)
    for kind, count in (("holiday", 1), ("event", 0), ("floor", 2)):
        yield "tidewise_forecast_calendar_ahead", on | {"kind": kind}, steady(count)
    yield "tidewise_forecast_fit_cpu_seconds", on, steady(3.5)
    process = {key: on[key] for key in ("job", "instance")}
    yield "tidewise_forecast_calendar_file_readable", process | {"file": "team.ics"}, steady(1)
    for name, seconds in (("budget", 600), ("spent", 90), ("wanted", 120)):
        yield f"tidewise_forecast_heavy_{name}_cpu_seconds", process, steady(seconds)
    yield "tidewise_forecast_made_timestamp_seconds", on, ago(20)
    yield "tidewise_forecast_valid_until_timestamp_seconds", on, ago(-900)
    yield "tidewise_forecast_gate_open", on, steady(1)
    yield "tidewise_forecast_widening_ratio", on, steady(1.1)
    yield "tidewise_forecast_trained_timestamp_seconds", on, ago(600)
    yield "tidewise_forecast_history_seconds", on, steady(86400 * 20)
    for name, value in (("model", "ridge"), ("stage", "full"), ("gate", "open")):
        label = "reason" if name == "gate" else name
        yield f"tidewise_forecast_{name}_info", on | {label: value}, steady(1)
    yield "tidewise_forecast_refused", on | {"reason": "history_short"}, steady(1)
    yield "tidewise_forecast_ensemble_member_info", on | {"model": "ridge"}, steady(1)
    yield "tidewise_forecast_model_left_out_info", on | {"model": "arima"}, steady(1)
    for model, error in (("ridge", 0.1), ("seasonal_naive", 0.3)):
        yield "tidewise_forecast_model_fit_cpu_seconds", on | {"model": model}, steady(error)
        yield "tidewise_forecast_model_trained_timestamp_seconds", on | {"model": model}, ago(600)
        yield "tidewise_forecast_backtest_wape_ratio", on | {"model": model}, steady(error)
        yield "tidewise_forecast_backtest_skill_ratio", on | {"model": model}, steady(error / 0.3)
    yield "tidewise_forecast_fit_failures_total", {k: on[k] for k in ("job", "instance")} | {"kind": "crash"}, steady(1)


def scale_series() -> Iterator[Series]:
    process = {"job": "tidewise-scale", "instance": "127.0.0.1:9813"}
    on = process | WORKLOAD
    for name, count in (
        ("wanted", 3),
        ("ready", 2),
        ("desired", 4),
        ("recommended", 5),
        ("reactive", 3),
        ("forecast", 5),
        ("unbudgeted", 6),
        ("paid", 3),
        ("refused", 0),
        ("allowed", 1),
    ):
        yield f"tidewise_scale_replicas_{name}", on, steady(count)
    yield "tidewise_scale_service_seconds", {**on, "source": "learned"}, steady(0.9)
    yield "tidewise_scale_decision_timestamp_seconds", on, ago(5)
    for quantile, seconds in (("0.5", 40), ("0.9", 60)):
        yield "tidewise_scale_lead_time_seconds", on | {"quantile": quantile}, steady(seconds)
    for reason in ("forecast", "max_replicas", "budget_cap"):
        yield "tidewise_scale_decision_reason", on | {"reason": reason}, steady(1)
        yield "tidewise_scale_decisions_total", on | {"reason": reason}, rising(0.2)
    for result in ("success", "failure"):
        yield "tidewise_scale_actions_total", on | {"result": result}, rising(0.01)
    yield "tidewise_scale_ledger_silent_seconds", process, steady(0)
    yield "tidewise_source_up", process, steady(1)
    yield "tidewise_source_errors_total", process | {"kind": "timeout"}, steady(1)


def budget_series() -> Iterator[Series]:
    on = {"job": "tidewise-budget", "instance": "127.0.0.1:9814"}
    amounts = {
        "limit": 1.0,
        "held": 0.02,
        "committed": 0.1,
        "spent": 0.6,
        "remaining": 0.3,
        "projected": 1.1,
        "pace": 0.5,
    }
    for budget, limit in (("usage", 15000.0), ("total", 24900.0)):
        for name, share in amounts.items():
            yield f"tidewise_budget_{name}", on | {"budget": budget, "currency": "KRW"}, steady(limit * share)
        yield "tidewise_budget_posted", on | {"budget": budget, "currency": "KRW"}, rising(0.01)
        yield "tidewise_budget_level", on | {"budget": budget}, steady(1)
        for window in (300, 3600):
            yield "tidewise_budget_burn_rate", on | {"budget": budget, "window_seconds": str(window)}, steady(1.4)
    who = {"currency": "KRW", "provider": "google", "model": "gemini", "workload": "default/video"}
    yield "tidewise_budget_spend", on | who, steady(4000)
    yield "tidewise_budget_open_holds", on, steady(3)
    yield "tidewise_budget_permits_total", on | {"result": "allowed", "reason": "granted"}, rising(0.1)
    yield "tidewise_budget_permits_total", on | {"result": "denied", "reason": "deferred"}, rising(0.02)
    yield "tidewise_budget_entries_total", on | {"state": "posted"}, rising(0.1)
    yield "tidewise_budget_ledger_errors_total", on | {"kind": "locked"}, steady(0)


def recovery_series() -> Iterator[Series]:
    process = {"job": "tidewise-recovery", "instance": "127.0.0.1:9815"}
    on = process | {"target": "workers"}
    yield "tidewise_recovery_operations", on | {"step": "restart", "state": "acting"}, steady(1)
    yield "tidewise_recovery_operations", process | {"target": "api", "step": "none", "state": "none"}, steady(0)
    for health, count in (("healthy", 3), ("sick", 1), ("unknown", 0)):
        yield "tidewise_recovery_instances", on | {"health": health}, steady(count)
    yield "tidewise_recovery_decision_reason", on | {"reason": "peers_fine"}, steady(1)
    yield "tidewise_recovery_attempts", on | {"step": "restart"}, steady(1)
    yield "tidewise_recovery_actions_total", on | {"remedy": "restart", "result": "done"}, rising(0.001)
    yield "tidewise_recovery_repair_seconds_sum", on, rising(0.05)
    yield "tidewise_recovery_repair_seconds_count", on, rising(0.0005)
    yield "tidewise_recovery_page", on | {"alert": "RecoveryFailed", "reason": "ladder_end"}, steady(1)
    yield "tidewise_recovery_pages_undelivered", process, steady(0)
    yield "tidewise_recovery_journal_up", process, steady(1)
    yield "tidewise_recovery_alerts_total", process | {"result": "accepted"}, rising(0.01)


def process_series() -> Iterator[Series]:
    names = ("exporter", "forecast", "scale", "budget", "recovery")
    for place, name in enumerate(names):
        on = {"job": f"tidewise-{name}", "instance": f"127.0.0.1:{9811 + place}"}
        yield "up", on, steady(1)
        yield "scrape_duration_seconds", on, steady(0.01)
        yield "scrape_samples_scraped", on, steady(200)
        yield "process_cpu_seconds_total", on, rising(0.01)
        yield "process_resident_memory_bytes", on, steady(6e7)
        yield "process_open_fds", on, steady(20)
        yield "process_max_fds", on, steady(1024)
        yield "process_start_time_seconds", on, lambda at: 1.7e9
        yield "tidewise_build_info", on | {"version": "0.1.0", "python": "3.11", "process": name}, steady(1)
        if name != "exporter":
            loop = on | {"controller": name}
            yield "tidewise_loop_last_success_timestamp_seconds", loop, ago(3)
            yield "tidewise_loop_duration_seconds", loop, steady(0.2)
            yield "tidewise_loop_interval_seconds", loop, steady(15)
            yield "tidewise_loop_failures_total", loop | {"kind": "TimeoutError"}, steady(1)


def published() -> Iterator[Series]:
    """What the processes publish, as Prometheus stores it."""
    for family in (
        exporter_series,
        forecast_series,
        scale_series,
        budget_series,
        recovery_series,
        process_series,
    ):
        yield from family()


def history() -> Iterator[Series]:
    """What rules recorded long before: a rule does not fill in the past, and some look an hour or a day back."""
    yield "workload:demand:rate1m", WORKLOAD, demand
    yield "workload:oldest_age_seconds:max", WORKLOAD, steady(30)
    yield "workload:failures:ratio_rate5m", WORKLOAD, steady(0.02)
    yield "workload:service_seconds:mean5m", WORKLOAD, steady(0.8)
    yield "workload:utilization:ratio", WORKLOAD, steady(0.7)
    yield "workload:replicas:current", WORKLOAD, steady(2)
    yield "workload:replicas:desired", WORKLOAD, steady(3)  # another one than now: a decision
    yield "node:cpu_utilization:ratio_rate5m", {"instance": "127.0.0.1:9811"}, steady(0.5)
    recorded = {
        "tidewise_forecast_demand": "demand:value",
        "tidewise_forecast_demand_quantile": "demand:quantile",
        "tidewise_forecast_peak_quantile": "peak:quantile",
    }
    for name, labels, value in forecast_series():
        if name in recorded:
            kept = {key: text for key, text in labels.items() if key not in ("job", "instance")}
            yield f"workload:forecast_{recorded[name]}", kept, value
    yield from forecast_hours()


def forecast_hours() -> Iterator[Series]:
    """How good forecasts were in the hours before."""
    for horizon in (120, 300, 900, 1800, 3600):
        on = WORKLOAD | {"horizon_seconds": str(horizon)}
        for name, value in (("outcome", 5.0), ("error", 0.1), ("abs_error", 0.4)):
            yield f"workload:forecast_{name}:mean1h", on, steady(value)
        for naive, value in (("last", 0.6), ("day", 0.5), ("week", 0.7)):
            yield "workload:forecast_naive_abs_error:mean1h", on | {"naive": naive}, steady(value)
        for quantile in ("0.1", "0.9", "0.98"):
            yield "workload:forecast_pinball:mean1h", on | {"quantile": quantile}, steady(0.2)
            yield "workload:forecast_coverage:ratio_1h", on | {"quantile": quantile}, steady(float(quantile))
            yield "workload:forecast_peak_coverage:ratio_1h", on | {"quantile": quantile}, steady(float(quantile))


def openmetrics(now: float) -> Iterator[str]:
    for series, seconds, step in ((published(), 60 * MINUTES, STEP), (history(), 26 * 3600, 60)):
        for name, labels, value in series:
            inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
            start = int(now) - seconds
            for at in range(start, int(now), step):
                yield f"{name}{{{inside}}} {value(at):.10g} {at}\n"
    yield "# EOF\n"


@pytest.fixture
def seeded() -> list[tuple[str, set[str]]]:
    """What is published there: names and their labels, without those that Prometheus adds."""
    return [(name, set(labels) - {"job", "instance"}) for name, labels, _ in published()]


@pytest.fixture(scope="session")
def answering(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    """That Prometheus, as the dashboards ask it, at a moment at which every rule has been evaluated."""
    folder = tmp_path_factory.mktemp("dashboards")
    (folder / "tidewise.yaml").write_text(CONFIG)
    (folder / "workloads.yml").write_text(render(read(folder / "tidewise.yaml")))
    rules = [str(_quick(path, folder)) for path in RULES.glob("*.yml") if path.name != "workloads.yml"]
    (folder / "samples.txt").write_text("".join(openmetrics(time.time())))
    config = folder / "prometheus.yml"
    server = Prometheus(folder / "server", config, root=parts_root)
    scrape = {"job_name": "prometheus", "static_configs": [{"targets": [f"127.0.0.1:{server.port}"]}]}
    document = {
        "global": {"evaluation_interval": "1s", "scrape_interval": "1s"},
        "rule_files": [*rules, str(folder / "workloads.yml")],
        "scrape_configs": [scrape],
    }
    config.write_text(yaml.safe_dump(document))
    create_blocks(folder / "samples.txt", server.data_folder, root=parts_root)
    with server:
        yield Asked(server.url, _settled(server))


def _quick(path: Path, folder: Path) -> Path:
    """The same rules without intervals of their own, which a test would have to wait for."""
    document = yaml.safe_load(path.read_text())
    for group in document["groups"]:
        group.pop("interval", None)
    copy = folder / path.name
    copy.write_text(yaml.safe_dump(document))
    return copy


def _settled(server: Prometheus) -> float:
    """Waits until each rule group was evaluated, and Prometheus scraped itself, four times: groups read each other."""
    series = "prometheus_rule_group_iterations_total"
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if min(_value(server, series), _value(server, f"count_over_time({series}[1m])")) >= 4:
            return time.time()
        time.sleep(0.5)
    raise TimeoutError(f"the rules were not evaluated within 40 s; {server.log_path}:\n{server.log_tail()}")


def _value(server: Prometheus, expr: str) -> float:
    """The smallest value now; 0 where there is none."""
    answer = requests.get(f"{server.url}/api/v1/query", params={"query": f"min({expr})"}, timeout=10).json()
    return min((float(one["value"][1]) for one in answer["data"]["result"]), default=0.0)
