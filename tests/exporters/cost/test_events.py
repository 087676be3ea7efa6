"""Usage events from files: each counted once, in its month, whatever happens to the file."""

import json
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.cost import events
from exporters.cost.events import Events, UsageFiles, event_of
from tests.exporters.cost.conftest import Page

SEOUL = ZoneInfo("Asia/Seoul")
NOW = datetime(2026, 11, 22, 12, tzinfo=SEOUL).timestamp()
At = Callable[[float], None]


def line(event_id: str, occurred: str = "2026-11-20T10:00:00+09:00", **more: Any) -> str:
    event = {"event_id": event_id, "provider": "google", "model": "flash", "workflow": "n8n-7", "occurred_at": occurred}
    return json.dumps({**event, "cost": "2.5 KRW", "units": {"input_tokens": 100, "seconds": "0.5"}, **more}) + "\n"


@pytest.fixture
def file(tmp_path: Path, at: At) -> Path:
    at(NOW)
    return tmp_path / "usage.jsonl"


@pytest.fixture
def page(file: Path) -> Page:
    return Page({"usage": {"path": f"{file}*"}, "time_zone": "Asia/Seoul"})


SPEND = "cost_spend KRW google - flash n8n-7 -"


def test_spend_and_units_are_summed_by_scope_and_an_event_counts_once(file: Path, page: Page) -> None:
    file.write_text(line("a") + line("b", workload="default/video") + line("a"))
    found = page.look()
    assert found[SPEND] == 2.5
    assert found["cost_spend KRW google - flash n8n-7 default/video"] == 2.5
    assert found["cost_units google - flash n8n-7 - input_tokens"] == 100
    assert found["cost_units google - flash n8n-7 - seconds"] == 0.5
    assert found["cost_period_start_timestamp_seconds"] == datetime(2026, 11, 1, tzinfo=SEOUL).timestamp()
    assert found["cost_usage_lines_total counted"] == 2
    assert found["cost_usage_lines_total repeated"] == 1


def test_a_line_that_is_still_being_written_waits_for_its_end(file: Path, page: Page) -> None:
    whole = line("b")
    file.write_text(line("a") + whole[:40])
    assert page.look()[SPEND] == 2.5
    with file.open("a") as end:
        end.write(whole[40:])
    found = page.look()
    assert (found[SPEND], found["cost_usage_lines_total refused"]) == (5, 0)


def test_a_file_that_is_renamed_truncated_or_begun_anew_loses_and_doubles_nothing(file: Path, page: Page) -> None:
    file.write_text(line("a") + line("b"))
    page.look()
    file.rename(file.with_name("usage.jsonl.1"))
    file.write_text(line("c"))
    assert page.look()[SPEND] == 7.5
    file.write_text(line("c"))  # truncated and written again
    file.with_name("usage.jsonl.1").unlink()
    assert page.look()[SPEND] == 7.5
    assert Page({"usage": {"path": str(file)}, "time_zone": "Asia/Seoul"}).look()[SPEND] == 2.5  # as after a restart


def test_a_month_begins_in_the_time_zone_of_the_budget_and_what_was_ahead_of_it_is_there(
    file: Path, page: Page, at: At
) -> None:
    file.write_text(
        line("last", "2026-10-31T23:59:59+09:00")
        + line("first", "2026-10-31T15:00:00Z")
        + line("next", "2026-12-01T00:00:01+09:00", cost="9 KRW")
        + line("never", "2027-03-01T00:00:00+09:00")
    )
    found = page.look()
    assert found[SPEND] == 2.5
    assert (found["cost_usage_lines_total other_month"], found["cost_usage_lines_total refused"]) == (1, 1)
    at(datetime(2026, 12, 1, 0, 1, tzinfo=SEOUL).timestamp())
    assert page.look()[SPEND] == 9
    at(NOW)  # the clock was set back: the month that was let go is read again
    assert page.look()[SPEND] == 2.5


def test_lines_that_are_no_events_are_refused_and_counted(file: Path, page: Page) -> None:
    bad = [
        "no json", "[]", "3", '{"event_id": "x"}', line("x", cost=None, units={}).strip(),
        line("x", cost="2 won").strip(), line("x", cost="-2 KRW").strip(), line("x", "yesterday").strip(),
        line("x", "2026-11-20T10:00:00").strip(), line("x", units={"a": "NaN"}).strip(),
        line("x", units={"a": True}).strip(), line("x", units={"a": -5}).strip(),
        '{"event_id": 7}', "[" * 5000, line("x" * 70_000).strip(),
    ]  # fmt: skip
    file.write_bytes("\n".join(bad).encode() + b"\n\xff\xfe\n\n" + line("a").encode())
    found = page.look()
    assert found["cost_usage_lines_total refused"] == len(bad) + 1
    assert found[SPEND] == 2.5


def test_names_of_ten_kilobytes_with_line_breaks_are_cut_and_what_was_not_priced_has_units_only(
    file: Path, page: Page
) -> None:
    file.write_text(line("a", workflow='7"\n' + "w" * 10_000, cost=None))
    [name] = [name for name in page.look() if name.startswith("cost_units") and name.endswith("seconds")]
    assert len(name) < 300
    assert not [name for name in page.look() if name.startswith("cost_spend")]


def test_the_dearest_scopes_are_shown_and_the_rest_is_one(file: Path) -> None:
    file.write_text("".join(line(str(n), workflow=f"w{n}", cost=f"{n} KRW") for n in range(1, 101)))
    found = Page({"usage": {"path": str(file)}, "time_zone": "Asia/Seoul", "lines_max": 2}).look()
    spend = {name: value for name, value in found.items() if name.startswith("cost_spend")}
    assert spend == {
        "cost_spend KRW google - flash w100 -": 100,
        "cost_spend KRW google - flash w99 -": 99,
        "cost_spend KRW other other other other other": 98 * 99 / 2,
    }


def test_memory_is_bounded(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "IDS_MOST", 10)
    monkeypatch.setattr(events, "SCOPES_MOST", 10)
    file.write_text("".join(line(str(n), workflow=f"w{n}") for n in range(500)))
    reader = Events(UsageFiles(path=str(file)), SEOUL, 100)
    list(reader.collect(float("inf")))
    assert len(reader._ids) == 10
    [totals] = reader._totals.values()
    assert len(totals) == 11


def test_nothing_is_shown_before_all_is_read(file: Path, page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "CHUNK", 1000)
    file.write_text("".join(line(str(n)) for n in range(20)))
    with pytest.raises(OSError, match="bytes are still to be read"):
        page.look(seconds=0.1)
    assert page.look()[SPEND] == 50


def test_no_file_is_said(page: Page) -> None:
    with pytest.raises(FileNotFoundError, match=r"check exporters\.cost\.usage\.path"):
        page.look()


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=300).map(lambda text: json.dumps({"event_id": text}).encode()))
def test_whatever_stands_in_a_line_is_an_event_or_refused(anything: bytes) -> None:
    try:
        event_of(anything)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError):
        return
    raise AssertionError("an event without a time")
