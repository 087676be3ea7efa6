"""How long a workflow may be silent, by the nodes that n8n stores."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.workflow.schedule import cron_seconds, expected_seconds
from tests.exporters.workflow.tables import schedule

HOUR, DAY = 3600, 86_400


def old_cron(*items: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"type": "n8n-nodes-base.cron", "parameters": {"triggerTimes": {"item": list(items)}}}]


@pytest.mark.parametrize(
    ("nodes", "seconds"),
    [
        pytest.param(schedule(), DAY, id="a trigger at its defaults fires daily"),
        pytest.param(schedule(field="seconds"), 30, id="seconds at their default"),
        pytest.param(schedule(field="minutes", minutesInterval=7), 420, id="minutes"),
        pytest.param(schedule(field="hours", hoursInterval=18), 18 * HOUR, id="hours"),
        pytest.param(schedule(field="days", daysInterval=3, triggerAtHour=5), 3 * DAY, id="days"),
        pytest.param(schedule(field="weeks"), 7 * DAY, id="once a week"),
        pytest.param(schedule(field="weeks", triggerAtDay=[1, 2, 5]), 3 * DAY, id="three days a week: the longest gap"),
        pytest.param(schedule(field="weeks", weeksInterval=2, triggerAtDay=[1]), 14 * DAY, id="every other week"),
        pytest.param(schedule(field="months"), 31 * DAY, id="months: the longest"),
        pytest.param(schedule(field="cronExpression", expression="0 9 * * 1-5"), 3 * DAY, id="cron: over the weekend"),
        pytest.param(schedule(field="cronExpression", expression="={{ $vars.x }}"), None, id="cron of an expression"),
        pytest.param(schedule(field="minutes", minutesInterval="={{ 5 }}"), None, id="minutes of an expression"),
        pytest.param(schedule(field="eons"), None, id="a field that is not known here"),
        pytest.param([{**schedule()[0], "disabled": True}], None, id="a trigger that is switched off"),
        pytest.param(schedule(field="hours") + schedule(field="minutes"), 300, id="of two triggers the more frequent"),
        pytest.param(schedule(field="hours") + schedule(field="eons"), None, id="one of two that is unclear: unknown"),
        pytest.param([{"type": "n8n-nodes-base.webhook", "parameters": {}}], None, id="a webhook is awaited by nobody"),
        pytest.param(old_cron({"mode": "everyX", "value": 10, "unit": "minutes"}), 600, id="the older cron: every X"),
        pytest.param(old_cron({"hour": 3}, {"mode": "everyHour"}), HOUR, id="the older cron: the more frequent item"),
        pytest.param(old_cron({"mode": "everyWeek", "weekday": "1"}), 7 * DAY, id="the older cron: weekly"),
        pytest.param(old_cron({"mode": "everyMonth", "dayOfMonth": 1}), 31 * DAY, id="the older cron: monthly"),
        pytest.param(old_cron({"mode": "custom", "cronExpression": " */2 * * * * "}), 120, id="the older cron: custom"),
        pytest.param(
            [{"type": "n8n-nodes-base.interval", "parameters": {"interval": 3, "unit": "hours"}}], 3 * HOUR,
            id="the older interval",
        ),
        pytest.param("[{", None, id="no JSON"),
        pytest.param("7", None, id="no list"),
        pytest.param([None, 3, {"type": None}], None, id="no nodes"),
    ],
)  # fmt: skip
def test_the_longest_time_between_two_runs(nodes: Any, seconds: float | None) -> None:
    assert expected_seconds(nodes) == seconds


@pytest.mark.parametrize(
    ("expression", "seconds"),
    [
        ("* * * * *", 60),
        ("* * * * * *", 1),
        ("*/7 * * * *", 420),
        ("0 9-17 * * mon-fri", 64 * HOUR),
        ("0 0 13 * 5", 7 * DAY),  # the 13th or a Friday
        ("15 10 ? * 6#3", None),  # not of this kind of cron
        ("0 0 1 1 *", 366 * DAY),
        ("0 0 30 2 *", None),  # never
        ("61 * * * *", None),
        ("*/0 * * * *", None),
        ("5-1 * * * *", None),
        ("0 0 * * 7", 7 * DAY),
        ("0 0 1 jan,jul *", 184 * DAY),
        ("", None),
    ],
)
def test_the_longest_gap_of_a_cron_expression(expression: str, seconds: float | None) -> None:
    if seconds is None:
        with pytest.raises(ValueError):  # noqa: PT011 - any of them
            cron_seconds(expression)
    else:
        assert cron_seconds(expression) == seconds


@settings(max_examples=50, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["field", "x"]), inner, max_size=3),
        max_leaves=8,
    )
)
def test_whatever_stands_in_a_node_is_no_crash(anything: Any) -> None:
    for nodes in (anything, [{**schedule()[0], "parameters": anything}], schedule(field=anything), old_cron(anything)):
        found = expected_seconds(nodes)
        assert found is None or found > 0
