"""The landing page: every workload with its reasons in words, trouble first, and nothing of a user's text as markup."""

import re
from dataclasses import replace

from controllers.domain import Direction, Mode, Override, Reason, Sample
from controllers.scale.landing import Row, page
from controllers.scale.records import Record
from controllers.scale.state import Decision, Rules, State

NOW = 1_800_000_000.0
RULES = Rules(
    "default/video", True, 1, 20, 5.0, 0.95, 1, None, 60.0, 60.0, 300.0, None, 4, 15.0, 120.0, Mode.ACT
)  # fmt: skip
SURGE = Override("a", NOW, NOW + 8040, "ann@desk", 5, None, "<b>launch</b>")
PAUSE = Override("b", NOW, NOW + 600, "bob@desk", 0, Direction.DOWN)


def record(current: int | None = 4, ready: int | None = 4, desired: int | None = 6, age: float | None = 4) -> Record:
    reasons = (Reason.FORECAST, Reason.LATE_WORK)
    state = State(now=NOW, demand=None if age is None else Sample(3.0, NOW - age))
    return Record(
        state,
        RULES,
        Decision("default/video", NOW, desired, current, ready, desired, desired, desired, reasons),
        Reason.APPLIED,
    )


def text(found: str) -> str:
    """What a reader sees, the style left out."""
    without_style = re.sub(r"<style>.*</style>", "", found, flags=re.DOTALL)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without_style)).strip()


def test_a_page_without_a_decision() -> None:
    assert text(page({}, NOW)) == "No decision yet."


def test_a_workload_in_words() -> None:
    found = page({"default/video": Row(record(ready=3), None)}, NOW)
    for part in (
        "1 workload: 1 in act; none in trouble.",
        "default/video act",
        "3 of 4",
        "forecast , late_work , applied",
        "the forecast of the decision&#x27;s window needs this many",
        "the target was told",
        "4 s old",
    ):
        assert part in text(found), text(found)
    assert 'title="the target was told"' in found
    assert "<b>6</b>" in found


def test_overrides_are_told_with_what_is_left_of_them_and_are_no_markup() -> None:
    one = record()
    found = page({"default/video": Row(replace(one, state=replace(one.state, overrides=(SURGE, PAUSE))), None)}, NOW)
    assert "+5 for 2 h 14 min more, by ann@desk: &lt;b&gt;launch&lt;/b&gt;" in found
    assert "paused down for 10 min more, by bob@desk" in found


def test_trouble_comes_first_and_unknown_is_no_number() -> None:
    well, bad = record(), record(None, None, None, None)
    found = page({"a": Row(well, None), "z": Row(bad, "no answer from <fleet>")}, NOW, {"The ledger": "is gone"})
    assert found.index(">z ") < found.index(">a ")
    assert "no answer from &lt;fleet&gt;" in found
    assert text(found).count("unknown") == 3
    assert "The ledger: is gone" in text(found)


def test_data_that_is_old_by_now_stands_out() -> None:
    fresh, old = (page({"w": Row(record(age=age), None)}, NOW) for age in (100, 400))
    assert '<span class="bad">' not in fresh
    assert '<span class="bad">7 min old</span>' in old
