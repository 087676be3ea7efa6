"""Queues and latency: how much waits, how long, and whether it gets less."""

from grafana_foundation_sdk.models import dashboard as models

from grafana import latency
from grafana.frame import board, choice
from grafana.panels import (
    BLUE,
    COUNT,
    GREEN,
    ITEMS,
    ITEMS_PER_SECOND,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Panel,
    dashed,
    lines,
    number,
    query,
    rows,
    states,
)

OF = '{queue=~"$queue"}'


def dashboard() -> models.Dashboard:
    """uid tidewise-queues."""
    return board(
        "queues",
        "Queues & latency",
        "How much work waits, for how long, whether more comes than goes, and how much of it fails.",
        [
            ("Now", _now()),
            ("Waiting", _waiting()),
            ("Coming and going", _flow()),
            ("Doing", _doing()),
            ("Queue by queue", _each()),
            *latency.sections(),
        ],
        variables=[choice("queue", "Queue", "As its exporter names it", "queue:messages:sum", "queue")],
        events='workload=~".+"',
    )


def _now() -> list[Panel]:
    return [
        number(
            "Waiting",
            "Ready to be taken, in all chosen queues.",
            ITEMS,
            f"sum(queue:messages_ready:sum{OF})",
            span=4,
        ),
        number(
            "Oldest",
            "How long the work that is served next has waited, in the slowest queue.",
            SECONDS,
            f"max(queue:oldest_age_seconds:max{OF})",
            span=4,
        ),
        number(
            "Time to drain",
            "The depth at the present pace, of the slowest queue. n/a: nothing gets done and something waits.",
            SECONDS,
            f"max(queue:drain_seconds:ratio{OF})",
            span=4,
        ),
        number(
            "Arrivals over completions",
            "Over five minutes; above 100 % the queues grow.",
            RATIO,
            f"sum(queue:arrivals:rate5m{OF}) / (sum(queue:completions:rate5m{OF}) > 0)",
            limits=((None, GREEN), (1.1, YELLOW), (1.5, RED)),
            span=4,
        ),
        number(
            "Jobs that succeed",
            "Of those that were finished within five minutes, in the worst queue. n/a: nobody counts failures, or "
            "nothing was finished.",
            RATIO,
            f"1 - max(queue:failures:ratio_rate5m{OF})",
            limits=((None, RED), (0.95, YELLOW), (0.99, GREEN)),
            span=4,
        ),
        number(
            "Oldest data",
            "Since the newest measurement of the queue whose data is oldest.",
            SECONDS,
            f"max(queue:data_age_seconds:max{OF})",
            limits=((None, GREEN), (30, YELLOW), (60, RED)),
            span=4,
        ),
    ]


def _waiting() -> list[Panel]:
    return [
        lines(
            "Depth by state",
            "Ready, taken by a worker (active), due later (delayed), given up (failed). A state that the source does "
            "not tell has no line.",
            ITEMS,
            query(f"sum by (queue, state) (queue_messages{OF})", "{{queue}} {{state}}"),
            span=8,
        ),
        lines(
            "Age of the oldest",
            "Of the message that is served next. Dashed: the objectives of the workloads that name one.",
            SECONDS,
            query(f"queue:oldest_age_seconds:max{OF}", "{{queue}}"),
            query("workload:slo_wait_seconds:max", "allowed: {{workload}}"),
            span=8,
        ).override_by_regexp("/^allowed/", dashed(RED)),
        lines(
            "Time to drain",
            "The depth at the present pace. A gap: nothing gets done and something waits.",
            SECONDS,
            query(f"queue:drain_seconds:ratio{OF}", "{{queue}}"),
            span=8,
        ),
    ]


def _flow() -> list[Panel]:
    return [
        lines(
            "Arrivals and completions",
            "Work that comes and work that is done, over one minute.",
            ITEMS_PER_SECOND,
            query(f"queue:arrivals:rate1m{OF}", "{{queue}} arrives"),
            query(f"queue:completions:rate1m{OF}", "{{queue}} done"),
        ),
        lines(
            "Growth",
            "Arrivals less what was finished or failed, over five minutes: above 0 it grows, below it shrinks.",
            ITEMS_PER_SECOND,
            query(
                f"queue:arrivals:rate5m{OF} - "
                f"(queue:completions:rate5m{OF} / (1 - queue:failures:ratio_rate5m{OF} > 0) "
                f"or queue:completions:rate5m{OF})",
                "{{queue}}",
            ),
            limits=((0, BLUE),),
            low=None,
        ),
    ]


def _doing() -> list[Panel]:
    return [
        lines(
            "Jobs that succeed",
            "Of those that were finished within five minutes. n/a: nobody counts failures, or nothing was finished.",
            RATIO,
            query(f"1 - queue:failures:ratio_rate5m{OF}", "{{queue}}"),
            limits=((0.95, RED),),
            high=1,
            span=8,
        ),
        lines(
            "Consumers",
            "Workers or connections that take from the queue. No line: its system does not tell them.",
            COUNT,
            query(f"queue:consumers:sum{OF}", "{{queue}}"),
            limits=((1, RED),),
            steps=True,
            span=8,
        ),
        states(
            "Are arrivals known?",
            "At least: more left the queue than was finished, so what arrived is a lower bound, and the forecast takes "
            "it as one.",
            query(f"queue:arrivals_censored:bool{OF}", "{{queue}}"),
            words={"0": ("known", GREEN), "1": ("at least", ORANGE)},
            span=8,
        ),
        lines(
            "Wait before it is taken",
            "Of what was finished within five minutes: half of it waited less (p50), all but one in twenty (p95). Only "
            "where the system keeps the times of finished jobs.",
            SECONDS,
            query(f"queue:wait_seconds:p50_5m{OF}", "{{queue}} p50"),
            query(f"queue:wait_seconds:p95_5m{OF}", "{{queue}} p95"),
            query(f"queue:wait_seconds:p99_5m{OF}", "{{queue}} p99"),
            span=8,
        ),
        lines(
            "Time a job takes",
            "Of what was finished within five minutes: the mean, and where the system keeps each job's times, what "
            "half of them (p50) and all but one in twenty (p95) took at most.",
            SECONDS,
            query(f"queue:process_seconds:mean5m{OF}", "{{queue}} mean"),
            query(f"queue:process_seconds:p50_5m{OF}", "{{queue}} p50"),
            query(f"queue:process_seconds:p95_5m{OF}", "{{queue}} p95"),
            query(f"queue:process_seconds:p99_5m{OF}", "{{queue}} p99"),
            span=8,
        ),
        lines(
            "Oldest by state",
            "Ready: the message that is served next. Active: under way for longest; one that only grows is stuck.",
            SECONDS,
            query(f"max by (queue, state) (queue_oldest_message_age_seconds{OF})", "{{queue}} {{state}}"),
            span=8,
        ),
    ]


def _each() -> list[Panel]:
    return [
        rows(
            "Queues",
            "One row a queue. Empty: its system does not tell.",
            [
                Column("Queue", label="queue"),
                Column("System", label="system"),
                Column("Ready", ITEMS, f"queue:messages_ready:sum{OF}"),
                Column("Depth", ITEMS, f"queue:messages:sum{OF}"),
                Column("Oldest", SECONDS, f"queue:oldest_age_seconds:max{OF}"),
                Column("Consumers", COUNT, f"queue:consumers:sum{OF}", limits=((None, RED), (1, GREEN))),
                Column("Arrive", ITEMS_PER_SECOND, f"queue:arrivals:rate5m{OF}"),
                Column("Done", ITEMS_PER_SECOND, f"queue:completions:rate5m{OF}"),
                Column("Fail", RATIO, f"queue:failures:ratio_rate5m{OF}", limits=((None, GREEN), (0.05, RED))),
                Column("Wait p95", SECONDS, f"queue:wait_seconds:p95_5m{OF}"),
                Column("Takes p95", SECONDS, f"queue:process_seconds:p95_5m{OF}"),
            ],
            key="queue",
            height=10,
        ),
    ]
