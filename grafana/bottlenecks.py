"""Bottlenecks: how near each resource is to its limit, now and over time, for one workload and every machine."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import WORKLOAD, board
from grafana.panels import (
    BLUE,
    GREEN,
    ITEMS_PER_SECOND,
    ORANGE,
    RATIO,
    RED,
    SECONDS,
    YELLOW,
    Panel,
    bars,
    lines,
    query,
    states,
)

OF = '{workload="$workload"}'
# Of its threshold, as `tidewise bottleneck` has them: 1 is the limit. (what the bar is called, series over threshold)
WORK = (
    ("work: wait", f"workload:oldest_age_seconds:max{OF} / on (workload) workload:slo_wait_seconds:max{OF}"),
    ("work: failed", f"workload:failures:ratio_rate5m{OF} / 0.05"),
    ("replicas: busy", f"workload:utilization:ratio{OF} / 0.9"),
    ("replicas: of those allowed", f"workload:replicas:desired{OF} / on (workload) workload:replicas:max{OF}"),
)
MACHINES = (
    ("$1: CPU", "node:cpu_utilization:ratio_rate5m / 0.9"),
    ("$1: memory", "node:memory_utilization:ratio / 0.9"),
    ("$1: waits for CPU", 'node:pressure_stalled:ratio_rate5m{resource="cpu", kind="some"} / 0.6'),
    ("$1: waits for memory", 'node:pressure_stalled:ratio_rate5m{resource="memory", kind="full"} / 0.2'),
    ("$1: waits for disks", 'node:pressure_stalled:ratio_rate5m{resource="io", kind="full"} / 0.2'),
    ("$1: fullest file system", "0.05 / min by (instance) (node_mountpoint:filesystem_avail:ratio > 0)"),
)
GPUS = (
    ("GPU $1: busy", "gpu:utilization:avg5m / 0.95"),
    ("GPU $1: memory", "gpu:memory_used:ratio / 0.95"),
    ("GPU $1: slowed down", "gpu:throttled:max5m"),
)
MONEY = (("budget $1: spent", "budget:spent:ratio"), ("budget $1: month-end", "budget:projected:ratio"))
LEVELS = {
    "0": ("below a quarter", "#2f6f3a"),
    "1": ("below a half", GREEN),
    "2": ("below three quarters", "#b5c334"),
    "3": ("near its limit", YELLOW),
    "4": ("at its limit", ORANGE),
    "5": ("far beyond it", RED),
}
BOUND = "max_replicas|rate_limit|budget_.+|permit_refused|action_failed|.+_unknown|demand_stale|hold"


def dashboard() -> models.Dashboard:
    """uid tidewise-bottlenecks."""
    return board(
        "bottlenecks",
        "Bottlenecks",
        "What is nearest to its limit. What to raise first, and by how much: `tidewise bottleneck WORKLOAD`.",
        [
            ("Nearest to its limit", [_ranked(), _reasons()]),
            ("Saturation over time", [_heat_map()]),
            ("Behind the replicas", _behind()),
        ],
        variables=[WORKLOAD],
        span=("now-3h", "now"),
        events='workload=~"$workload"',
    )


def _pressures() -> str:
    """Every resource's value over its threshold, with the label `resource`."""
    parts = []
    for found, label in ((WORK, "workload"), (MACHINES, "instance"), (GPUS, "uuid"), (MONEY, "budget")):
        parts += [f'label_replace(({expr}), "resource", "{name}", "{label}", "(.*)")' for name, expr in found]
    return f"max by (resource) ({' or '.join(parts)})"


def _ranked() -> Panel:
    return bars(
        "Resources, by how near they are to their limit",
        "Value over threshold: 100 % is the limit. While work waits no longer than promised, a full resource is "
        "money well spent. Missing: not measured.",
        RATIO,
        f"sort_desc({_pressures()})",
        "{{resource}}",
        limits=((None, GREEN), (0.75, YELLOW), (1, ORANGE), (1.25, RED)),
        high=1.5,
        height=10,
    )


def _reasons() -> Panel:
    return states(
        "What bound the number of replicas",
        "Reasons of the decisions that kept it from growing. Empty: nothing did, or nobody decides.",
        query(f'workload:scaling_reason:bool{{workload="$workload", reason=~"{BOUND}"}}', "{{reason}}"),
        words={"1": ("bound it", ORANGE)},
        height=10,
    )


def _heat_map() -> Panel:
    return states(
        "Resources against their limits",
        "A row a resource; the colour tells the share of its threshold in quarters. A gap: not known then.",
        query(f"clamp_max(floor(4 * {_pressures()}), 5)", "{{resource}}"),
        words=LEVELS,
        span=24,
        height=12,
    )


def _behind() -> list[Panel]:
    return [
        lines(
            "Does a replica do as much as before?",
            "Work done by one working replica. It falls as they become more: what they share is the limit.",
            ITEMS_PER_SECOND,
            query(
                f"workload:throughput:rate1m{OF} / on (workload) (workload:replicas:current{OF} > 0)",
                "one replica does",
            ),
            span=8,
        ),
        lines(
            "Time a piece takes",
            "Mean of five minutes. It grows while machines are not full: what the work calls is slow.",
            SECONDS,
            query(f"workload:service_seconds:mean5m{OF}", "now"),
            span=8,
        ),
        lines(
            "How busy replicas are",
            "Service-seconds worked, of those that the working replicas could. Near 100 % and work waits: too few.",
            RATIO,
            query(f"workload:utilization:ratio{OF}", "busy"),
            limits=((0.9, BLUE),),
            span=8,
        ),
    ]
