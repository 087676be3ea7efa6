"""One HTML page with every panel's answer, laid out as the dashboards are. Grafana itself is not run."""

import html
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from grafana import registry
from grafana.draw import panel_html
from grafana.queries import Prometheus, Query, fill, panel_queries, panels

_STYLE = """
body { font: 13px/1.4 "DejaVu Sans", sans-serif; margin: 16px; background: #f4f5f5; color: #222; width: 1460px }
h1 { margin: 40px 0 2px } .note { background: #fff3cd; padding: 8px 12px; border-radius: 4px }
.board { display: grid; grid-template-columns: repeat(24, 60px); grid-auto-rows: 30px; gap: 0 }
.row { grid-column: 1 / -1; font-weight: bold; padding-top: 6px }
.panel { background: #fff; border: 1px solid #ddd; overflow: hidden; padding: 2px 4px; box-sizing: border-box }
.panel h3 { font-size: 12px; margin: 0; white-space: nowrap; overflow: hidden; text-overflow: ellipsis }
.stat { color: #fff; font-size: 20px; text-align: center; padding: 18px 2px; margin-top: 4px; border-radius: 3px }
.empty { color: #999; text-align: center; padding-top: 12px } img { max-width: 100% }
table { border-collapse: collapse; font-size: 11px; width: 100% } td, th { padding: 2px 5px; text-align: left }
tr { border-bottom: 1px solid #eee } .bar { width: 60% } .cell { text-align: center } pre { font-size: 10px }
"""
_RANGES = {
    "now": 0.0,
    "now-1h": -3600.0,
    "now-3h": -10800.0,
    "now-24h": -86400.0,
    "now-7d": -604800.0,
    "now+1h": 3600.0,
}
_SAMPLES = 240  # of a line


def draw(
    url: str, page: Path, at: float, names: Sequence[str], chosen: Mapping[str, str], minutes: float | None = None
) -> list[Query]:
    """Writes the page. `at`: Unix time taken for now; `minutes`: of the past, None: as each dashboard says.

    Returns the queries that found no series.
    """
    prometheus = Prometheus(url, at)
    dashboards = registry.written()
    empty: list[Query] = []
    parts = []
    for name in names:
        parts.append(_board(prometheus, dashboards[name], chosen, minutes, empty))
    when = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    note = (
        f"Drawn by <code>python -m grafana draw</code> from what {html.escape(url)} answered at {when}. Grafana itself "
        "was not run: queries, titles and units are the dashboards' own, the pictures are not."
    )
    page.write_text(
        f"<!doctype html><meta charset=utf-8><title>Dashboards</title><style>{_STYLE}</style>"
        f"<p class=note>{note}</p>{''.join(parts)}",
        encoding="utf-8",
    )
    return empty


def _board(
    prometheus: Prometheus,
    dashboard: Mapping[str, Any],
    chosen: Mapping[str, str],
    minutes: float | None,
    empty: list[Query],
) -> str:
    values = prometheus.variables(dashboard, chosen)
    span = (_RANGES[dashboard["time"]["from"]], _RANGES[dashboard["time"]["to"]])
    if minutes is not None:
        span = (-60 * minutes, min(span[1], 60 * minutes))
    step = max(5.0, (span[1] - span[0]) // _SAMPLES)
    shown = ", ".join(f"{name} = {value}" for name, value in values.items())
    parts = [
        f"<h1>{html.escape(dashboard['title'])}</h1>{html.escape(dashboard['description'])} <i>{html.escape(shown)}</i>"
    ]
    parts.append('<div class="board">')
    for heading in (panel for panel in dashboard["panels"] if panel["type"] == "row"):
        parts.append(_box(heading, "row", html.escape(heading["title"])))
    for panel in panels(dashboard):
        answers = [prometheus.answer(one, values, span, step) for one in panel_queries(dashboard["uid"], panel)]
        empty += [answer.query for answer in answers if not answer.series]
        inside = panel_html(panel, answers, (prometheus.at + span[0], prometheus.at + span[1]))
        title = html.escape(fill(panel["title"], values))
        about = html.escape(panel.get("description", ""), quote=True)
        parts.append(_box(panel, "panel", f'<h3 title="{about}">{title}</h3>{inside}'))
    return "".join([*parts, "</div>"])


def _box(panel: Mapping[str, Any], kind: str, inside: str) -> str:
    place = panel["gridPos"]
    style = f"grid-column:{place['x'] + 1}/span {place['w']};grid-row:{place['y'] + 1}/span {place['h']}"
    return f'<div class="{kind}" style="{style}">{inside}</div>'
