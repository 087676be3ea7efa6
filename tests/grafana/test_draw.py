"""The page that shows what the dashboards would show."""

import html
from pathlib import Path

import pytest

from grafana import registry
from grafana.__main__ import main
from grafana.draw import worded
from grafana.page import draw
from grafana.queries import Prometheus, panels, queries

NAMES = ["overview", "forecast", "patterns"]  # all kinds of panel


@pytest.mark.real
def test_a_page_has_every_panel_and_says_that_grafana_was_not_run(answering: Prometheus, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert draw(answering.url, page, answering.at, NAMES, {"horizon": "900"}, minutes=30) == []
    text = page.read_text()
    assert "Grafana itself was not run" in text.replace("\n", " ")
    assert "horizon = 900" in text
    assert "no data" not in text
    for name in NAMES:
        kinds = [panel["type"] for panel in panels(registry.written()[name])]
        assert all(f">{html.escape(panel['title'])}</h3>" in text for panel in panels(registry.written()[name]))
        assert text.count("<img ") >= kinds.count("timeseries")


@pytest.mark.real
def test_what_has_no_answer_is_shown_as_no_data_and_named(answering: Prometheus, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    empty = draw(answering.url, page, 1.6e9, ["scaling"], {})
    asked = [query for query in queries(registry.written()["scaling"]) if query.what != "annotation"]
    assert empty == asked
    assert page.read_text().count("no data") == len(list(panels(registry.written()["scaling"])))


def test_a_prometheus_that_is_not_there_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["draw", "--prometheus", "http://127.0.0.1:1", "--out", str(tmp_path / "page.html")]) == 1
    assert "http://127.0.0.1:1 does not answer like a Prometheus; is the address right?" in capsys.readouterr().err


def test_writing_says_which_files_changed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out.count("written") == len(registry.DASHBOARDS)
    assert main(["--out", str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.825, "percentunit", "82.5 %"),
        (0.004, "s", "4 ms"),
        (75, "s", "75 s"),
        (7200, "s", "2 h"),
        (3 * 1024**3, "bytes", "3 GB"),
        (24900, "locale", "24,900"),
        (12345, "suffix: items", "12,345 items"),
        (1500, "short", "1.5 K"),
    ],
)
def test_a_value_is_written_with_its_unit(value: float, unit: str, text: str) -> None:
    assert worded(value, {"unit": unit}) == text


def test_a_value_with_a_word_is_that_word() -> None:
    assert worded(1, {"unit": "none", "mappings": [{"options": {"1": {"text": "yes", "color": "green"}}}]}) == "yes"
