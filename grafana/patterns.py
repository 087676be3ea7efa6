"""Patterns: hour by weekday, what demand, waiting and the machines are usually like."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import WORKLOAD, board
from grafana.panels import ITEMS_PER_SECOND, RATIO, SECONDS, Panel, matrix

DAYS = 28
WEEKDAYS = ("Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday")


def dashboard() -> models.Dashboard:
    """uid tidewise-patterns."""
    return board(
        "patterns",
        "Patterns of the week",
        f"Means of each hour of the week over the last {DAYS} days, whatever range is chosen above.",
        [
            (
                "What comes",
                [
                    _profile(
                        "Demand",
                        "Work that arrives, mean of each hour of the week.",
                        ITEMS_PER_SECOND,
                        'workload:demand:rate1m{workload="$workload"}',
                    )
                ],
            ),
            (
                "What it feels like",
                [
                    _profile(
                        "Longest wait",
                        "Age of the oldest waiting work, mean of each hour of the week.",
                        SECONDS,
                        'workload:oldest_age_seconds:max{workload="$workload"}',
                    ),
                    _profile(
                        "Time a piece takes",
                        "Of a job, or of a request until its answer; mean of each hour of the week.",
                        SECONDS,
                        'workload:service_seconds:mean5m{workload="$workload"}',
                    ),
                    _profile(
                        "Work that fails",
                        "Of what is finished, mean of each hour of the week. Empty: nobody counts what fails.",
                        RATIO,
                        'workload:failures:ratio_rate5m{workload="$workload"}',
                    ),
                ],
            ),
            (
                "What it takes",
                [
                    _profile(
                        "CPU in use",
                        "Mean of all machines, of each hour of the week.",
                        RATIO,
                        "node:cpu_utilization:ratio_rate5m",
                    ),
                    _profile(
                        "How busy replicas are",
                        "Service-seconds worked, of those they could; mean of each hour of the week.",
                        RATIO,
                        'workload:utilization:ratio{workload="$workload"}',
                    ),
                    _profile(
                        "Replicas that work",
                        "Mean of each hour of the week.",
                        "none",
                        'workload:replicas:current{workload="$workload"}',
                    ),
                ],
            ),
        ],
        variables=[
            WORKLOAD,
            builders.TextBoxVariable("utc_offset")
            .label("Hours from UTC")
            .description("Prometheus only knows the hours of UTC; 9 for Korea")
            .default_value("0")
            .current(models.VariableOption(selected=True, text="0", value="0")),
        ],
        span=("now-7d", "now"),
        refresh="",
    )


def _profile(title: str, description: str, unit: str, series: str) -> Panel:
    # Each hour's mean gets the hour and the weekday in which it lies as labels; then the means of each pair of labels.
    local = "vector(time() - 1800 + 3600 * ($utc_offset))"  # the middle of the hour that ends at the step
    expr = f"""
        avg by (weekday, hour) (
          avg_over_time((
            avg_over_time({series}[1h])
            * on () group_left (hour) label_replace(
              count_values("hour", hour({local})), "hour", "0$1", "hour", "(.)"
            )
            * on () group_left (weekday) count_values("weekday", day_of_week({local}))
          )[{DAYS}d:1h])
        )
    """
    return matrix(title, description, unit, expr, row="weekday", column="hour", names=WEEKDAYS)
