"""System overview: is everything well, and if not, where to look."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import WORKLOADS, board
from grafana.panels import (
    GREEN,
    ITEMS,
    ITEMS_PER_SECOND,
    ORANGE,
    RATIO,
    RED,
    REPLICAS,
    SECONDS,
    STATE,
    YELLOW,
    Column,
    Panel,
    lines,
    number,
    query,
    rows,
    states,
)

NONE_IS_GOOD = ((None, GREEN), (1, RED))
ALL_IS_GOOD = ((None, RED), (1, GREEN))


def dashboard() -> models.Dashboard:
    """uid tidewise-overview."""
    return board(
        "overview",
        "Overview",
        "The health of the whole system. Each number leads to the dashboard that explains it.",
        [
            ("Is everything well?", _health()),
            ("Work", _work()),
            ("Machines: utilisation, saturation, errors", _machines()),
            ("Alerts", _alerts()),
        ],
        variables=[WORKLOADS],
        events='workload=~"$workload"',
    )


def _health() -> list[Panel]:
    # Where nothing matches, "none" is told from "unknown" by a series that is there whenever somebody looks.
    return [
        number(
            "Alerts firing",
            "Without the Watchdog, which always fires. n/a: the alert rules are not loaded.",
            STATE,
            'count(ALERTS{alertstate="firing", severity!="none"})'
            ' or 0 * count(ALERTS{alertname="Watchdog", alertstate="firing"})',
            limits=NONE_IS_GOOD,
            span=4,
        ),
        number(
            "Processes up",
            "Share of Tidewise's own processes that Prometheus can scrape.",
            RATIO,
            'avg(up{job=~"tidewise-.+"})',
            limits=ALL_IS_GOOD,
            link=("health", "Tidewise itself"),
            span=4,
        ),
        number(
            "Collectors failing",
            "Parts of exporters that could not read their source; their series are suppressed, not 0.",
            STATE,
            "count(tidewise_exporter_collector_success == 0) or 0 * count(tidewise_exporter_collector_success)",
            limits=NONE_IS_GOOD,
            link=("health", "Tidewise itself"),
            span=4,
        ),
        number(
            "Oldest data",
            "Age of the newest measurement of the workload whose data is oldest. Beyond its limit replicas are held.",
            SECONDS,
            "max(workload:data_age_seconds:max)",
            limits=((None, GREEN), (30, YELLOW), (60, RED)),
            link=("queues", "Queues"),
            span=4,
        ),
        number(
            "Wait, of what is allowed",
            "Age of the oldest waiting work over the workload's objective; above 100 % users feel it.",
            RATIO,
            "max(workload:oldest_age_seconds:max / on (workload) workload:slo_wait_seconds:max)",
            limits=((None, GREEN), (0.7, YELLOW), (1, RED)),
            link=("queues", "Queues"),
            span=4,
        ),
        number(
            "Forecasts that count",
            "Share of the workloads whose forecast has skill and may decide; the others are scaled reactively.",
            RATIO,
            "sum(workload:forecast_gate:bool) / count(workload:replicas:max)",
            limits=((None, YELLOW), (1, GREEN)),
            link=("forecast", "Forecast"),
            span=4,
        ),
        number(
            "Workloads at maximum",
            "They need every replica they may have; more demand will wait.",
            STATE,
            "count(workload:replicas:desired >= on (workload) workload:replicas:max)"
            " or 0 * count(workload:replicas:desired)",
            limits=((None, GREEN), (1, ORANGE)),
            link=("scaling", "Scaling"),
            span=4,
        ),
        number(
            "Slowest loop",
            "Of all controllers, the longest time since a step succeeded.",
            SECONDS,
            "max(time() - tidewise_loop_last_success_timestamp_seconds)",
            limits=((None, GREEN), (60, YELLOW), (180, RED)),
            link=("health", "Tidewise itself"),
            span=4,
        ),
        number(
            "Budget spent",
            "Of this month's limit, of the budget that is nearest to its own. n/a: there is no budget.",
            RATIO,
            "max(budget:spent:ratio)",
            limits=((None, GREEN), (0.75, YELLOW), (0.9, ORANGE), (1, RED)),
            link=("budget", "Cost & budget"),
            span=4,
        ),
        number(
            "Month-end, of the budget",
            "Foreseen at the recent rate over the demand that is left. n/a: there is no budget, or it is too early.",
            RATIO,
            "max(budget:projected:ratio)",
            limits=((None, GREEN), (1, ORANGE), (1.1, RED)),
            link=("budget", "Cost & budget"),
            span=4,
        ),
        number(
            "Sick instances",
            "Of what recovery looks after. n/a: it looks after nothing.",
            STATE,
            'sum(target:recovery_instances:sum{health="sick"})',
            limits=NONE_IS_GOOD,
            link=("recovery", "Recovery"),
            span=4,
        ),
        number(
            "Recoveries under way",
            "Open operations, whether something is being done or not. n/a: recovery looks after nothing.",
            STATE,
            "sum(target:recovery_operations:sum)",
            limits=((None, GREEN), (1, YELLOW)),
            link=("recovery", "Recovery"),
            span=4,
        ),
    ]


def _work() -> list[Panel]:
    chosen = '{workload=~"$workload"}'

    return [
        rows(
            "Workloads now",
            "One line a workload. Empty: unknown, which is not 0.",
            [
                Column("Workload", label="workload", link=("scaling", "Why this many replicas?")),
                Column("Demand", ITEMS_PER_SECOND, f"workload:demand:rate1m{chosen}"),
                Column("Backlog", ITEMS, f"workload:backlog:sum{chosen}"),
                Column("Oldest waits", SECONDS, f"workload:oldest_age_seconds:max{chosen}"),
                Column("Allowed", SECONDS, f"workload:slo_wait_seconds:max{chosen}"),
                Column("Succeeds", RATIO, f"1 - workload:failures:ratio_rate5m{chosen}"),
                Column("Busy", RATIO, f"workload:utilization:ratio{chosen}"),
                Column("Working", REPLICAS, f"workload:replicas:current{chosen}"),
                Column("Told", REPLICAS, f"workload:replicas:wanted{chosen}"),
                Column("Desired", REPLICAS, f"workload:replicas:desired{chosen}"),
                Column("At most", REPLICAS, f"workload:replicas:max{chosen}"),
            ],
            key="workload",
            height=7,
        ),
        lines(
            "Demand",
            "Work that arrives, by workload.",
            ITEMS_PER_SECOND,
            query(f"workload:demand:rate1m{chosen}", "{{workload}}"),
            span=6,
        ),
        lines(
            "Backlog",
            "Work that waits, is under way or due later.",
            ITEMS,
            query(f"workload:backlog:sum{chosen}", "{{workload}}"),
            span=6,
        ),
        lines(
            "Wait, of what is allowed",
            "Age of the oldest waiting work over the workload's objective.",
            RATIO,
            query(
                f"workload:oldest_age_seconds:max{chosen} / on (workload) workload:slo_wait_seconds:max",
                "{{workload}}",
            ),
            limits=((1, RED),),
            span=6,
        ),
        lines(
            "Replicas that work",
            "As the target says.",
            REPLICAS,
            query(f"workload:replicas:current{chosen}", "{{workload}}"),
            steps=True,
            span=6,
        ),
    ]


def _machines() -> list[Panel]:
    return [
        lines(
            "CPU in use",
            "Of all CPU time, by machine.",
            RATIO,
            query("node:cpu_utilization:ratio_rate5m", "{{instance}}"),
            limits=((0.9, RED),),
            high=1,
            span=6,
        ),
        lines(
            "Memory in use",
            "What is not available, of all, by machine.",
            RATIO,
            query("node:memory_utilization:ratio", "{{instance}}"),
            limits=((0.9, RED),),
            high=1,
            span=6,
        ),
        lines(
            "Pressure",
            "Share of time in which some tasks stood still for want of the resource: saturation.",
            RATIO,
            query('node:pressure_stalled:ratio_rate5m{kind="some"}', "{{instance}} {{resource}}"),
            span=6,
        ),
        lines(
            "File system left",
            "Of each machine's fullest file system.",
            RATIO,
            query("min by (instance) (node_mountpoint:filesystem_avail:ratio)", "{{instance}}"),
            limits=((0.05, RED),),
            high=1,
            span=6,
        ),
    ]


def _alerts() -> list[Panel]:
    words = {"1": ("pending", YELLOW), "2": ("firing", RED)}
    state = '2 * ALERTS{alertstate="firing", severity!="none"} or ALERTS{alertstate="pending", severity!="none"}'
    return [
        rows(
            "Alerts now",
            "What each means and what to do: dashboard Runbooks. Empty: none, if Alerts firing shows a number.",
            [
                Column("Alert", label="alertname", link=("runbooks", "What to do")),
                Column("Severity", label="severity"),
                Column("State", expr=state, words=words),
                Column("Workload", label="workload"),
                Column("Queue", label="queue"),
                Column("Machine or process", label="instance"),
                Column("Collector", label="collector"),
            ],
            key="alert",
            span=12,
        ),
        states(
            "Alerts over time",
            "A row for each alert that was pending or firing in this time.",
            query(f"max by (alertname) ({state})", "{{alertname}}"),
            words=words,
        ),
    ]
