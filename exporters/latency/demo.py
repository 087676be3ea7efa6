"""Requests that nobody made: what the exporter would show of a service with three routes, two of them asked often."""

import math
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from exporters.latency import logs, probes
from exporters.latency.counts import BOUNDS, DURATION, FAILURES, REASONS, code_class

SERVICE = "demo-api"
LOG = "/var/log/nginx/demo-access.log"
# route, status, requests/s, how much of that comes and goes (0 to 1), within how long, seconds that each takes
REQUESTS: tuple[tuple[str, int | None, float, float, float, float], ...] = (
    ("/demo/videos/:id", 200, 6.0, 0.5, 3600, 0.02),
    ("/demo/videos/:id", 200, 2.0, 0.9, 1500, 0.08),
    ("/demo/videos/:id", 200, 0.5, 1.0, 2100, 0.4),
    ("/demo/videos/:id", 404, 0.2, 0.5, 3600, 0.01),
    ("/demo/videos/:id", 500, 0.03, 1.0, 1800, 0.3),
    ("/demo/search", 200, 1.5, 0.6, 3600, 0.3),
    ("/demo/search", 200, 0.2, 1.0, 1200, 1.5),
    ("/demo/search", 504, 0.01, 1.0, 5400, 30.0),
    ("/demo/health", 200, 0.2, 0.0, 3600, 0.002),
    ("other", 404, 0.05, 0.8, 4800, 0.004),
    ("other", None, 0.02, 0.5, 3600, 2.0),
)
WHOM = ((SERVICE, "http", "https://demo-api.example/healthz"), (SERVICE, "tcp", "demo-api.example:443"),
        (SERVICE, "grpc", "demo-api.example:50051"))  # fmt: skip


def demo(at: float) -> Iterator[Metric]:
    """Plausible values at that Unix time: every series at each time, no counter ever falling."""
    durations, failures = DURATION.metric(), FAILURES.metric()
    seen: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for route, status, per_second, swing, period, seconds in REQUESTS:
        key = (route, code_class(status))
        seen.setdefault(key, []).append((counted(at, per_second, swing, period), seconds))
    for (route, kind), rows in seen.items():
        buckets = [
            (f"{bound:.1f}" if bound >= 1 else repr(bound), float(sum(n for n, took in rows if took <= bound)))
            for bound in BOUNDS
        ]
        buckets.append(("+Inf", float(sum(n for n, _ in rows))))
        durations.add_metric((SERVICE, route, kind, LOG), buckets, sum(n * took for n, took in rows))
    yield durations
    of = {"server_error": 500, "timeout": 504, "client_aborted": None}
    for reason in REASONS:
        failed = [row for row in REQUESTS if reason in of and row[1] == of[reason]]
        failures.add_metric((SERVICE, reason, LOG), sum(counted(at, *row[2:5]) for row in failed))
    yield failures
    total = sum(counted(at, *row[2:5]) for row in REQUESTS)
    malformed = counted(at, 0.01, 0.0, 3600)
    for family, value in (
        (logs.LINES, total + malformed),
        (logs.MALFORMED, malformed),
        (logs.BEHIND, 500 * (1 + math.sin(at / 40))),
        (logs.GAPS, 1),
        (logs.STATE_ERRORS, 0),
    ):
        metric = family.metric()
        metric.add_metric((LOG,), value)
        yield metric
    for place, whom in enumerate(WHOM):
        took = 0.01 * (place + 2) * (1.2 + math.sin(at / 600 + place))
        up = place < 2  # the same series at each time: the third is always down
        yield from probes.probe_metrics(
            whom, probes.Outcome(took, None if up else "not_serving", at + 2e6 if place == 0 else None)
        )


def counted(at: float, per_second: float, swing: float, period: float) -> int:
    """How many came until then, at a rate that swings around its mean within the period. Never less than before."""
    wave = 2 * math.pi / period
    return math.floor(per_second * (at + swing / wave * (1 - math.cos(wave * at))))
