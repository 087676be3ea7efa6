"""Workflows & databases: what ran, what failed, what is late; and the databases that everything stands on."""

from grafana_foundation_sdk.models import dashboard as models

from grafana import databases
from grafana.frame import board, choice
from grafana.panels import (
    BLUE,
    COUNT,
    GREEN,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Column,
    Panel,
    bars,
    lines,
    number,
    query,
    rows,
    states,
)

RATE = "[$__rate_interval]"
CHOSEN = 'max by (system, workflow_id, name) (workflow_info{name=~"$workflow"})'
INTERVALS = "suffix: ×"


def dashboard() -> models.Dashboard:
    """uid tidewise-workflows."""
    return board(
        "workflows",
        "Workflows & databases",
        "Whether each workflow runs as often as it should, and how it ends; and the databases below everything.",
        [
            ("Workflows now", _now()),
            ("Late and failing", _wrong()),
            ("What runs", _runs()),
            *databases.sections(),
        ],
        variables=[choice("workflow", "Workflow", "Its name in n8n", "workflow_info", "name")],
    )


def _of(expr: str) -> str:
    """`expr` of the chosen workflows, with their names."""
    return f"{expr} * on (system, workflow_id) group_left (name) {CHOSEN}"


def _largest(name: str) -> str:
    return _of(f"max by (system, workflow_id) ({name})")


def _now() -> list[Panel]:
    return [
        rows(
            "Workflows",
            "Late: time since the last success, in expected intervals. Failed: of the production executions that ended "
            "within a quarter of an hour. Last run: how the one that ended last ended. n/a: not known, or nothing ran.",
            [
                Column("Workflow", label="name"),
                Column("Id", label="workflow_id"),
                Column(
                    "Active",
                    expr=_of('max by (system, workflow_id) (workflow_info{active="true"})')
                    + f' or 0 * {CHOSEN} unless on (system, workflow_id) workflow_info{{active="true"}}',
                    words={"0": ("off", YELLOW), "1": ("active", GREEN)},
                ),
                Column("Succeeded, ago", SECONDS, _of("workflow:last_success_age_seconds:max")),
                Column("Failed, ago", SECONDS, f"time() - {_largest('workflow_last_failure_timestamp_seconds')}"),
                Column("Expected every", SECONDS, _largest("workflow_expected_interval_seconds")),
                Column(
                    "Late",
                    INTERVALS,
                    _of("workflow:overdue:ratio"),
                    limits=((None, GREEN), (1, YELLOW), (2, RED)),
                ),
                Column(
                    "Failed",
                    RATIO,
                    _of("workflow:failures:ratio_rate15m"),
                    limits=((None, GREEN), (0.05, YELLOW), (0.5, RED)),
                ),
                Column(
                    "Last run",
                    expr=_of("workflow:failing:bool"),
                    words={"0": ("succeeded", GREEN), "1": ("failed", RED)},
                ),
                Column("Running", COUNT, _largest("workflow_running")),
            ],
            key="workflow",
            span=18,
            height=9,
        ),
        number(
            "Overdue",
            "Workflows that have not succeeded for more than two expected intervals. n/a: nothing is expected of any.",
            COUNT,
            "sum(workflow:overdue:ratio > bool 2)",
            limits=((None, GREEN), (1, RED)),
            height=9,
        ),
        number(
            "Failing",
            "Active workflows whose last execution failed.",
            COUNT,
            'sum(workflow:failing:bool and on (system, workflow_id) workflow_info{active="true"})',
            limits=((None, GREEN), (1, RED)),
            height=9,
        ),
    ]


def _wrong() -> list[Panel]:
    return [
        lines(
            "Late",
            "Time since the last success, in expected intervals. Above the dashed line people are told.",
            INTERVALS,
            query(_of("workflow:overdue:ratio"), "{{name}}"),
            limits=((2, RED),),
            span=8,
        ),
        lines(
            "Failed executions",
            "Of the production executions that ended within a quarter of an hour. A gap: none ended.",
            RATIO,
            query(_of("workflow:failures:ratio_rate15m"), "{{name}}"),
            limits=((0.5, RED),),
            high=1,
            span=8,
        ),
        states(
            "How the last run ended",
            "Of production executions.",
            query(_of("workflow:failing:bool"), "{{name}}"),
            words={"0": ("succeeded", GREEN), "1": ("failed", RED)},
            span=8,
        ),
    ]


def _runs() -> list[Panel]:
    ended = f"rate(workflow_executions_total{RATE})"
    return [
        lines(
            "Executions",
            "That ended, a minute, by mode: production ones were started by a trigger, manual ones by somebody.",
            "suffix: /min",
            query(_of(f"60 * sum by (system, workflow_id, mode) ({ended})"), "{{name}} {{mode}}"),
            span=8,
        ),
        lines(
            "Failures and crashes",
            "A minute. Crashed: n8n gave the execution up, after a restart or for want of memory.",
            "suffix: /min",
            query(
                _of(f"60 * sum by (system, workflow_id, mode) (rate(workflow_execution_failures_total{RATE}))"),
                "{{name}} {{mode}}",
            ),
            query(_of(f"60 * sum by (system, workflow_id) (rate(workflow_crashes_total{RATE}))"), "{{name}} crashed"),
            span=8,
        ),
        lines(
            "How long executions take",
            "The time within which 95 of 100 ended in the last hour, waiting included. A gap: none ended.",
            SECONDS,
            query(_of("workflow:duration_seconds:p95_1h"), "{{name}}"),
            span=8,
        ),
        lines(
            "Running and waiting",
            "Running: in queue mode also those that no worker has taken yet. Waiting: for a time or an event.",
            COUNT,
            query(_largest("workflow_running"), "{{name}} running"),
            query(_largest("workflow_waiting"), "{{name}} waiting"),
            steps=True,
            span=12,
        ),
        bars(
            "Oldest that runs",
            "How long it has run: what grows and grows hangs, or was lost in a restart. 0: none runs.",
            SECONDS,
            f"topk(10, {_largest('workflow_running_oldest_seconds')})",
            "{{name}}",
            limits=((None, BLUE), (3600, ORANGE), (86_400, RED)),
            span=12,
        ),
    ]
