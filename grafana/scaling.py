"""Scaling decisions of one workload: how many replicas, on what grounds, and what was done about it."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import WORKLOAD, board
from grafana.panels import (
    BLUE,
    COUNT,
    GREEN,
    ITEMS,
    ITEMS_PER_SECOND,
    ORANGE,
    RATIO,
    RED,
    REPLICAS,
    SECONDS,
    Panel,
    dashed,
    lines,
    number,
    query,
    states,
)

OF = '{workload="$workload"}'


def dashboard() -> models.Dashboard:
    """uid tidewise-scaling."""
    return board(
        "scaling",
        "Scaling decisions",
        "How many replicas one workload has and should have, why, and what came of it. `tidewise why` says more.",
        [
            ("Now", _now()),
            ("Replicas", _replicas()),
            ("Why", _why()),
            ("Money", _money()),
            ("What it was decided on", _inputs()),
            ("What was done", _actions()),
        ],
        variables=[WORKLOAD],
        events='workload="$workload"',
    )


def _now() -> list[Panel]:
    def replicas(title: str, description: str, expr: str) -> Panel:
        return number(title, description, REPLICAS, expr)

    return [
        replicas("Working", "Replicas that work, as the target says.", f"workload:replicas:current{OF}"),
        replicas("Told", "What the target was last told.", f"workload:replicas:wanted{OF}"),
        replicas("Desired", "The decision. n/a: undecided, everything is held.", f"workload:replicas:desired{OF}"),
        replicas("At most", "Configured.", f"workload:replicas:max{OF}"),
        number(
            "Waits for its start",
            "Told and not yet working.",
            REPLICAS,
            f"workload:replicas:wanted{OF} - workload:replicas:current{OF}",
        ),
        number(
            "Lead time",
            "From asking for a replica to its first work; nine of ten were as quick. n/a: too few starts were seen, "
            "the configured one counts.",
            SECONDS,
            'workload:lead_time_seconds:quantile{workload="$workload", quantile="0.9"}',
        ),
        number(
            "Last decision",
            "How long ago.",
            SECONDS,
            f"time() - max(tidewise_scale_decision_timestamp_seconds{OF})",
            limits=((None, GREEN), (60, ORANGE), (180, RED)),
        ),
        number(
            "Failed attempts",
            "To set the replicas, within ten minutes.",
            COUNT,
            f"workload:scaling_failures:increase10m{OF}",
            limits=((None, GREEN), (1, RED)),
        ),
    ]


def _replicas() -> list[Panel]:
    return [
        lines(
            "Replicas",
            "Working, told and desired, under the configured maximum.",
            REPLICAS,
            query(f"workload:replicas:current{OF}", "working"),
            query(f"workload:replicas:wanted{OF}", "told"),
            query(f"workload:replicas:desired{OF}", "desired"),
            query(f"workload:replicas:max{OF}", "at most"),
            steps=True,
            height=9,
        ).override_by_name("at most", dashed(RED)),
        lines(
            "The two answers, and what became of them",
            "What present demand and the forecast each ask for; the recommendation of both; the decision after rate "
            "limits and stabilisation.",
            REPLICAS,
            query(f"tidewise_scale_replicas_reactive{OF}", "present demand asks"),
            query(f"tidewise_scale_replicas_forecast{OF}", "forecast asks"),
            query(f"workload:replicas:recommended{OF}", "recommended"),
            query(f"workload:replicas:desired{OF}", "desired"),
            steps=True,
            height=9,
        ),
    ]


def _why() -> list[Panel]:
    return [
        states(
            "Reasons",
            "A row for each reason in this time; filled while it was one of the last decision's. The words are those "
            "of `tidewise why` and of the log.",
            query(f"max by (reason) (tidewise_scale_decision_reason{OF})", "{{reason}}"),
            words={"1": ("was a reason", BLUE)},
            span=16,
            height=10,
        ),
        lines(
            "Reasons by how often",
            "Decisions a minute for each reason.",
            "suffix: /min",
            query(f"60 * sum by (reason) (rate(tidewise_scale_decisions_total{OF}[$__rate_interval]))", "{{reason}}"),
            span=8,
            height=10,
        ),
    ]


def _money() -> list[Panel]:
    return [
        lines(
            "With and without the budget",
            "Desired, and what the same decision would have been without the budget. n/a: the workload has no price.",
            REPLICAS,
            query(f"workload:replicas:unbudgeted{OF}", "without"),
            query(f"workload:replicas:desired{OF}", "desired"),
            steps=True,
            span=9,
        ),
        lines(
            "What the ledger says",
            "Replicas that it pays for, and those whose renewal it refused: some of these are drained at once.",
            REPLICAS,
            query(f"max by (workload) (tidewise_scale_replicas_paid{OF})", "paid for"),
            query(f"max by (workload) (tidewise_scale_replicas_refused{OF})", "refused"),
            steps=True,
            span=9,
        ),
        number(
            "More admitted",
            "Replicas that the ledger would hold money for beyond those that run. n/a: no price, or it is silent.",
            REPLICAS,
            f"max(tidewise_scale_replicas_allowed{OF})",
            limits=((None, RED), (1, GREEN)),
            height=8,
        ),
        number(
            "Ledger silent",
            "Since when it has not answered the scaler; 0 while it does. Nothing with a price grows meanwhile.",
            SECONDS,
            "max(tidewise_scale_ledger_silent_seconds)",
            limits=((None, GREEN), (30, ORANGE), (180, RED)),
            height=8,
        ),
    ]


def _inputs() -> list[Panel]:
    return [
        lines(
            "Demand and throughput",
            "Work that arrives and work that is done.",
            ITEMS_PER_SECOND,
            query(f"workload:demand:rate1m{OF}", "arrives"),
            query(f"workload:throughput:rate1m{OF}", "done"),
            span=6,
        ),
        lines(
            "Backlog",
            "Work that waits, is under way or due later.",
            ITEMS,
            query(f"workload:backlog:sum{OF}", "backlog"),
            span=6,
        ),
        lines(
            "Oldest waits",
            "Age of the oldest waiting work, and what is allowed.",
            SECONDS,
            query(f"workload:oldest_age_seconds:max{OF}", "oldest"),
            query(f"workload:slo_wait_seconds:max{OF}", "allowed"),
            span=6,
        ).override_by_name("allowed", dashed(RED)),
        lines(
            "Failed jobs",
            "Of those that were finished within five minutes. n/a: nobody counts them, or nothing was finished.",
            RATIO,
            query(f"workload:failures:ratio_rate5m{OF}", "failed"),
            span=6,
        ),
        lines(
            "Lead time",
            "From asking for a replica to its first work, as learned.",
            SECONDS,
            query(f"workload:lead_time_seconds:quantile{OF}", "quantile {{quantile}}"),
            span=6,
        ),
        lines(
            "Time a job takes",
            "As measured within five minutes, and as the decision used it.",
            SECONDS,
            query(f"workload:service_seconds:mean5m{OF}", "measured"),
            query(f"max by (workload) (tidewise_scale_service_seconds{OF})", "used"),
            span=6,
        ),
        lines(
            "Age of the data",
            "Since the newest measurement of the demand. Beyond the limit replicas are held.",
            SECONDS,
            query(f"workload:data_age_seconds:max{OF}", "age"),
            query(f"workload:data_age_limit_seconds:max{OF}", "limit"),
            span=6,
        ).override_by_name("limit", dashed(RED)),
        states(
            "May the forecast decide?",
            "No: its skill gate is closed, and present demand alone counts. Empty: there is no forecast.",
            query(f"workload:forecast_gate:bool{OF}", "forecast"),
            words={"1": ("yes", GREEN), "0": ("no", ORANGE)},
            span=6,
        ),
    ]


def _actions() -> list[Panel]:
    return [
        lines(
            "Numbers told to the target",
            "Within each interval, by result.",
            COUNT,
            query(
                f"sum by (result) (increase(tidewise_scale_actions_total{OF}[$__rate_interval]))",
                "{{result}}",
            ),
        ),
        lines(
            "Failed attempts",
            "To set the replicas, within ten minutes; ScalingActionFailed fires above 0.",
            COUNT,
            query(f"workload:scaling_failures:increase10m{OF}", "failed"),
            limits=((1, RED),),
        ),
    ]
