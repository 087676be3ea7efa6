"""docs/one-job.md names what is really there: its series in the live demo, its job's rows in the ledger."""

import re
import sqlite3
from pathlib import Path

from tests.live_demo import LiveDemo

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "one-job.md").read_text()
SERIES = re.compile(r"`((?:[a-z]+:[a-z0-9_]+:[a-z0-9_]+)|(?:(?:tidewise|queue|fleet)_[a-z_]+))[`{]")


def test_each_series_of_the_page_is_in_the_live_demo(live_demo: LiveDemo) -> None:
    named = set(SERIES.findall(PAGE))
    assert len(named) > 20
    assert sorted(name for name in named if not live_demo.now(name)) == []


def test_each_label_of_the_page_is_on_its_series(live_demo: LiveDemo) -> None:
    told = re.findall(r"`([a-z_:0-9]+)\{([^`]*)\}`", PAGE)
    assert len(told) > 8
    for name, text in told:
        labels = dict(re.findall(r'(\w+)="([^"]*)"', text))
        assert live_demo.now(name, **labels), f"{name}{labels}"


def test_a_paid_job_is_a_hold_and_its_settlement_in_the_ledger(live_demo: LiveDemo) -> None:
    with sqlite3.connect(live_demo.folder / "ledger.sqlite") as db:
        rows = db.execute(
            "SELECT state, held, posted FROM entry WHERE hold_id = 'demo/live/vision/job-000500/1' ORDER BY id"
        ).fetchall()
    assert [state for state, _, _ in rows] == ["held", "posted"]
    assert rows[0][1] == -rows[1][1] == 108150, "as the page says"
    assert rows[1][2] == 90125
    assert "google/gemini-2.5-flash  live " in (live_demo.tools["budget statement"] or "")
