"""Recovery timeline: what is sick, what is being done about it, whether it helps, and who was called."""

from grafana_foundation_sdk.models import dashboard as models

from grafana.frame import board, choice
from grafana.panels import (
    BLUE,
    COUNT,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
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

OF = 'target=~"$target"'
# Of several operations of one target the gravest is shown.
STATES = {
    "0": ("nothing to do", GREEN),
    "1": ("waiting", YELLOW),
    "2": ("verifying", BLUE),
    "3": ("acting", PURPLE),
    "4": ("suggested", ORANGE),
    "5": ("frozen", GREY),
    "6": ("handed over", RED),
}


def dashboard() -> models.Dashboard:
    """uid tidewise-recovery."""
    return board(
        "recovery",
        "Recovery",
        "What is sick, what is being done, and whether it helps. `tidewise recovery why TARGET` tells each step.",
        [("Now", _now()), ("Timeline", _timeline()), ("Does it help?", _outcome()), ("People", _people())],
        variables=[choice("target", "Target", "As configured", "target:recovery_instances:sum", "target")],
        span=("now-3h", "now"),
    )


def _now() -> list[Panel]:
    return [
        number(
            "Sick",
            "Instances with a symptom.",
            STATE,
            f'sum(target:recovery_instances:sum{{{OF}, health="sick"}})',
            limits=((None, GREEN), (1, RED)),
            span=4,
        ),
        number(
            "Unknown",
            "Instances of which nothing is known. Nothing is done to them.",
            STATE,
            f'sum(target:recovery_instances:sum{{{OF}, health="unknown"}})',
            limits=((None, GREEN), (1, ORANGE)),
            span=4,
        ),
        number(
            "Open operations",
            "Begun and not ended, whether something is being done or not.",
            STATE,
            f"sum(target:recovery_operations:sum{{{OF}}})",
            limits=((None, GREEN), (1, YELLOW)),
            span=4,
        ),
        number(
            "Time to repair",
            "From an operation's opening until the symptom was away for good, mean of the last day. n/a: none ended.",
            SECONDS,
            f"max(target:recovery_repair_seconds:mean1d{{{OF}}})",
            span=4,
        ),
        number(
            "People are told",
            "Things that people are told now.",
            STATE,
            f"count(tidewise_recovery_page{{{OF}}}) or 0 * max(tidewise_recovery_journal_up)",
            limits=((None, GREEN), (1, RED)),
            span=4,
        ),
        number(
            "Journal",
            "Whether it can be written. Without it recovery acts on nothing.",
            STATE,
            "min(tidewise_recovery_journal_up)",
            words={"1": ("works", GREEN), "0": ("broken", RED)},
            span=4,
        ),
    ]


def _timeline() -> list[Panel]:
    def stage(value: str) -> str:
        state = "none" if value == "0" else STATES[value][0].replace(" ", "_")
        return f'{value} * clamp_max(target:recovery_operations:sum{{{OF}, state="{state}"}}, 1)'

    return [
        states(
            "Operations",
            "A row a target: what is going on with the gravest of its open operations.",
            query(f"max by (target) ({' or '.join(map(stage, STATES))})", "{{target}}"),
            words=STATES,
            span=24,
        ),
        states(
            "Why",
            "A row for each reason; filled while it was one of the last decision's, for any instance.",
            query(
                f"clamp_max(max by (target, reason) (tidewise_recovery_decision_reason{{{OF}}}), 1)",
                "{{target}} {{reason}}",
            ),
            words={"1": ("was a reason", BLUE)},
        ),
        lines(
            "Instances by health",
            "As the last reading says; missing: neither sick nor shown healthy.",
            COUNT,
            query(f"sum by (health) (target:recovery_instances:sum{{{OF}}})", "{{health}}"),
            stacked=True,
            steps=True,
        ),
    ]


def _outcome() -> list[Panel]:
    return [
        lines(
            "Attempts by outcome",
            "That ended within the hour before each moment. Done only means carried out: the symptom decides.",
            COUNT,
            query(
                f"sum by (target, remedy, result) (target:recovery_actions:increase1h{{{OF}}}) > 0"
                f' or 0 * sum by (target, remedy, result) (target:recovery_actions:increase1h{{{OF}, result="done"}})',
                "{{target}} {{remedy}}: {{result}}",
            ),
            steps=True,
            span=8,
        ),
        lines(
            "Attempts of open operations",
            "By target and step of the ladder; three a step, then the next one.",
            COUNT,
            query(f"sum by (target, step) (tidewise_recovery_attempts{{{OF}}})", "{{target}} {{step}}"),
            limits=((3, ORANGE),),
            steps=True,
            span=8,
        ),
        lines(
            "Time to repair",
            "Mean of the operations that ended within a day. A gap: none ended.",
            SECONDS,
            query(f"target:recovery_repair_seconds:mean1d{{{OF}}}", "{{target}}"),
            span=8,
        ),
    ]


def _people() -> list[Panel]:
    return [
        rows(
            "People are told now",
            "Empty: nothing. What to do: dashboard Runbooks.",
            [
                Column("Alert", label="alert", link=("runbooks", "What to do")),
                Column("Target", label="target"),
                Column("Reason", label="reason"),
                Column("Instances", COUNT, f"max by (alert, target, reason) (tidewise_recovery_page{{{OF}}})"),
            ],
            key="alert",
            span=8,
        ),
        states(
            "People were told",
            "A row for each page that stood in this time.",
            query(
                f"clamp_max(max by (alert, target) (tidewise_recovery_page{{{OF}}}), 1)",
                "{{alert}} {{target}}",
            ),
            words={"1": ("told", RED)},
            span=8,
        ),
        lines(
            "Alerts that came, and pages that did not go",
            "Deliveries of Alertmanager within each interval by what became of them; pages that it has not taken.",
            COUNT,
            query("sum by (result) (increase(tidewise_recovery_alerts_total[$__rate_interval]))", "{{result}}"),
            query("max(tidewise_recovery_pages_undelivered)", "pages not taken"),
            span=8,
        ),
    ]
