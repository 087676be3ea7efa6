"""Tidewise itself: do its processes run, do their loops succeed, do its exporters read what they should."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import board
from grafana.panels import (
    BYTES,
    COUNT,
    GREEN,
    RATIO,
    RED,
    SECONDS,
    Column,
    Panel,
    dashed,
    lines,
    query,
    rows,
    states,
)

OURS = 'job=~"tidewise-.+"'
RATE = "[$__rate_interval]"


def dashboard() -> models.Dashboard:
    """uid tidewise-health."""
    return board(
        "health",
        "Tidewise itself",
        "Controllers, exporters and the Prometheus they share.",
        [
            ("Processes", _processes()),
            ("Loops of the controllers", _loops()),
            ("Collectors of the exporters", _collectors()),
            ("Prometheus", _prometheus()),
        ],
    )


def _processes() -> list[Panel]:
    return [
        states(
            "Up",
            "Whether Prometheus can scrape each process. Empty: it does not know of it.",
            query(f"up{{{OURS}}}", "{{job}} {{instance}}"),
            words={"1": ("up", GREEN), "0": ("down", RED)},
        ),
        rows(
            "What runs",
            "Versions of the processes that run now.",
            [
                Column("Process", label="process"),
                Column("Address", label="instance"),
                Column("Version", label="version"),
                Column("Python", label="python"),
                Column(
                    "Up since",
                    "dateTimeFromNow",
                    "1000 * process_start_time_seconds * on (job, instance) "
                    "group_left (process, version, python) tidewise_build_info",
                ),
            ],
            key="instance",
            span=12,
        ),
        lines(
            "CPU",
            "CPUs' worth of time of each process.",
            "suffix: CPUs",
            query(f"rate(process_cpu_seconds_total{{{OURS}}}{RATE})", "{{job}} {{instance}}"),
            span=8,
        ),
        lines(
            "Memory",
            "Resident memory of each process.",
            BYTES,
            query(f"process_resident_memory_bytes{{{OURS}}}", "{{job}} {{instance}}"),
            span=8,
        ),
        lines(
            "Open files, of what is allowed",
            "File descriptors in use over the process's limit.",
            RATIO,
            query(f"process_open_fds{{{OURS}}} / process_max_fds", "{{job}} {{instance}}"),
            span=8,
        ),
    ]


def _loops() -> list[Panel]:
    return [
        lines(
            "Since the last success",
            "Of each controller's loop. Dashed: LoopStalled fires beyond three intervals and half a minute.",
            SECONDS,
            query("time() - tidewise_loop_last_success_timestamp_seconds", "{{controller}}"),
            query("3 * tidewise_loop_interval_seconds + 30", "limit: {{controller}}"),
            span=8,
        ).override_by_regexp("/^limit/", dashed(RED)),
        lines(
            "Duration of a step, of its interval",
            "Near 100 % the loop cannot keep its pace.",
            RATIO,
            query(
                "tidewise_loop_duration_seconds / on (job, instance, controller) tidewise_loop_interval_seconds",
                "{{controller}}",
            ),
            limits=((1, RED),),
            span=8,
        ),
        lines(
            "Steps that failed",
            "Within each interval, by kind. Empty: none has failed since the process began.",
            COUNT,
            query(f"increase(tidewise_loop_failures_total{RATE})", "{{controller}} {{kind}}"),
            span=8,
        ),
        states(
            "Does Prometheus answer the scaler?",
            "No: it holds, or follows the last forecast upwards.",
            query("tidewise_source_up", "{{instance}}"),
            words={"1": ("yes", GREEN), "0": ("no", RED)},
            span=8,
            height=6,
        ),
        lines(
            "Questions without an answer",
            "Steps of the scaler in which Prometheus did not answer, within each interval, by kind. Empty: none yet.",
            COUNT,
            query(f"increase(tidewise_source_errors_total{RATE})", "{{kind}}"),
            span=8,
            height=6,
        ),
        lines(
            "Fits that failed",
            "Of the forecaster, within each interval, by kind; the last good model stays in use. Empty: none yet.",
            COUNT,
            query(f"increase(tidewise_forecast_fit_failures_total{RATE})", "{{kind}}"),
            span=8,
            height=6,
        ),
    ]


def _collectors() -> list[Panel]:
    return [
        states(
            "Could it be read?",
            "Each collector of each exporter. No: its series are suppressed, so that nothing looks empty or idle.",
            query("tidewise_exporter_collector_success", "{{collector}}"),
            words={"1": ("yes", GREEN), "0": ("no", RED)},
            span=8,
            height=10,
        ),
        lines(
            "Age of what was read",
            "Since each collector last read its source to the end. Dashed: DataStale fires.",
            SECONDS,
            query("source:data_age_seconds:max", "{{collector}}"),
            limits=((300, RED),),
            span=8,
            height=10,
        ),
        lines(
            "Time to read",
            "Of each collector, in the last scrape.",
            SECONDS,
            query("tidewise_exporter_collector_duration_seconds", "{{collector}}"),
            span=8,
            height=10,
        ),
    ]


def _prometheus() -> list[Panel]:
    return [
        lines(
            "Time to scrape",
            "Of each process; Prometheus gives up at its scrape timeout.",
            SECONDS,
            query(f"scrape_duration_seconds{{{OURS}}}", "{{job}} {{instance}}"),
            span=6,
        ),
        lines(
            "Series scraped",
            "Samples of each process's last scrape.",
            COUNT,
            query(f"scrape_samples_scraped{{{OURS}}}", "{{job}} {{instance}}"),
            span=6,
        ),
        lines(
            "Rules: time to evaluate",
            "Of each group of rules, the last time.",
            SECONDS,
            query(
                'label_replace(prometheus_rule_group_last_duration_seconds, "group", "$1", "rule_group", ".*;(.*)")',
                "{{group}}",
            ),
            span=6,
        ),
        lines(
            "Rules that failed",
            "Evaluations that failed, within each interval; any is a mistake in a rule or in what it reads.",
            COUNT,
            query(
                f"label_replace(sum by (rule_group) (increase(prometheus_rule_evaluation_failures_total{RATE})),"
                ' "group", "$1", "rule_group", ".*;(.*)")',
                "{{group}}",
            ),
            span=6,
        ),
    ]
