"""A panel's answers as a picture or as HTML: near enough to what Grafana would show to be judged by eye."""

import base64
import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from grafana.queries import Answer

_PIXELS_PER_COLUMN, _PIXELS_PER_ROW, _DPI = 60, 30, 110
_PALETTE = mpl.color_sequences["tab10"]
_COLOURS = {
    "transparent": "none",
    "green": "#56a64b",
    "yellow": "#e0b400",
    "orange": "#ff780a",
    "red": "#e02f44",
    "blue": "#3274d9",
}


def panel_html(panel: Mapping[str, Any], answers: Sequence[Answer], span: tuple[float, float]) -> str:
    """The inside of a panel. `span`: the range drawn, Unix seconds."""
    kind = panel["type"]
    if kind == "text":
        return f"<pre>{html.escape(panel['options']['content'])}</pre>"
    if not any(answer.series for answer in answers):
        return '<p class="empty">no data</p>'
    if kind == "stat":
        return _stat(panel, answers)
    if kind == "bargauge":
        return _bars(panel, answers)
    if kind == "table":
        matrix = any(step["id"] == "groupingToMatrix" for step in panel["transformations"])
        return _matrix(panel, answers[0]) if matrix else _table(panel, answers)
    return _picture(panel, answers, span)


def worded(value: float, defaults: Mapping[str, Any]) -> str:
    """A value with its unit or in its words."""
    for mapping in defaults.get("mappings", ()):
        option = mapping["options"].get(f"{value:g}")
        if option is not None:
            return str(option["text"])
    unit = str(defaults.get("unit", "none"))
    if unit == "percentunit":
        return f"{value * 100:.3g} %"
    if unit == "s":
        return _duration(value)
    if unit in ("bytes", "Bps", "short"):
        step = 1024.0 if unit == "bytes" else 1000.0
        for prefix in ("", "K", "M", "G", "T"):
            if abs(value) < step or prefix == "T":
                return f"{value:.3g} {prefix}{'' if unit == 'short' else 'B' if unit == 'bytes' else 'B/s'}".strip()
            value /= step
    if unit == "locale":
        return f"{value:,.0f}"
    if unit == "dateTimeFromNow":
        return datetime.fromtimestamp(value / 1000, UTC).strftime("%Y-%m-%d %H:%M")
    number = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{number}{' ' + unit.removeprefix('suffix:').strip() if unit.startswith('suffix:') else ''}"


def coloured(value: float, defaults: Mapping[str, Any], otherwise: str = "#555") -> str:
    """Its colour, by mapping or thresholds."""
    for mapping in defaults.get("mappings", ()):
        option = mapping["options"].get(f"{value:g}")
        if option is not None:
            return _COLOURS.get(str(option["color"]), str(option["color"]))
    colour = otherwise
    for step in defaults.get("thresholds", {}).get("steps", ()):
        if step["value"] is None or value >= step["value"]:
            colour = _COLOURS.get(step["color"], step["color"])
    return colour


def _stat(panel: Mapping[str, Any], answers: Sequence[Answer]) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    names = panel["options"]["textMode"] == "name"
    parts = []
    for answer in answers:
        for labels, samples in answer.series:
            value = samples[-1][1]
            text = answer.name(labels) if names else worded(value, defaults)
            parts.append(f'<div class="stat" style="background:{coloured(value, defaults)}">{html.escape(text)}</div>')
    return "".join(parts)


def _bars(panel: Mapping[str, Any], answers: Sequence[Answer]) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    high = defaults.get("max") or max(samples[-1][1] for answer in answers for _, samples in answer.series) or 1
    lines = []
    for answer in answers:
        for labels, samples in answer.series:
            value = samples[-1][1]
            lines.append(
                f"<tr><td>{html.escape(answer.name(labels))}</td><td class=bar><div style='width:"
                f"{100 * min(1.0, value / high):.1f}%;background:{coloured(value, defaults)}'>&nbsp;</div></td>"
                f"<td>{html.escape(worded(value, defaults))}</td></tr>"
            )
    return f"<table>{''.join(lines)}</table>"


def _table(panel: Mapping[str, Any], answers: Sequence[Answer]) -> str:
    options = panel["transformations"][1]["options"]
    order: dict[str, int] = options["indexByName"]
    names = {field: str(options["renameByName"][field]) for field in sorted(order, key=lambda field: order[field])}
    settings = {
        override["matcher"]["options"]: {one["id"]: one["value"] for one in override["properties"]}
        for override in panel["fieldConfig"]["overrides"]
    }
    shown_labels = [field for field in names if not field.startswith("Value")]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for answer in answers:
        field = "Value" if len(answers) == 1 else f"Value #{answer.query.letter}"
        for labels, samples in answer.series:
            row = cells.setdefault(tuple(labels.get(label, "") for label in shown_labels), {})
            row[field] = worded(samples[-1][1], settings.get(names.get(field, ""), {}))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names.values())
    body = ""
    for key, values in sorted(cells.items()):
        row = {**dict(zip(shown_labels, key, strict=True)), **values}
        body += "<tr>" + "".join(f"<td>{html.escape(row.get(field, ''))}</td>" for field in names) + "</tr>"
    return f"<table><tr>{head}</tr>{body}</table>"


def _matrix(panel: Mapping[str, Any], answer: Answer) -> str:
    options = panel["transformations"][1]["options"]
    row_label, column_label = options["rowField"], options["columnField"]
    override = {one["id"]: one["value"] for one in panel["fieldConfig"]["overrides"][0]["properties"]}
    rows = sorted({labels[row_label] for labels, _ in answer.series})
    columns = sorted({labels[column_label] for labels, _ in answer.series})
    values = {(labels[row_label], labels[column_label]): samples[-1][1] for labels, samples in answer.series}
    low, high = min(values.values()), max(values.values())
    scale = mpl.colormaps["RdYlBu_r"]
    defaults = {"unit": panel["fieldConfig"]["defaults"]["unit"]}
    unit = html.escape(defaults["unit"].removeprefix("suffix: "))
    body = ""
    for row in rows:
        body += f"<tr><td>{worded(float(row), override)}</td>"
        for column in columns:
            value = values.get((row, column))
            if value is None:
                body += "<td></td>"
            else:
                share = (value - low) / (high - low) if high > low else 0.5
                colour = mpl.colors.to_hex(scale(0.1 + 0.8 * share))
                body += f'<td class="cell" style="background:{colour}">{worded(value, defaults).split(" ")[0]}</td>'
        body += "</tr>"
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f"<table class=matrix><tr><th></th>{head}</tr>{body}</table><small>{unit}</small>"


@mpl.rc_context({"font.size": 7, "axes.spines.top": False, "axes.spines.right": False})
def _picture(panel: Mapping[str, Any], answers: Sequence[Answer], span: tuple[float, float]) -> str:
    box = panel["gridPos"]
    size = (box["w"] * _PIXELS_PER_COLUMN / _DPI, (box["h"] - 1) * _PIXELS_PER_ROW / _DPI)
    figure = Figure(figsize=size, dpi=_DPI, layout="constrained")
    axes = figure.subplots()
    if panel["type"] == "state-timeline":
        _timeline(axes, panel, answers)
    else:
        _lines(axes, panel, answers)
    axes.set_xlim(_day(span[0]), _day(span[1]))
    locator = dates.AutoDateLocator(tz=UTC)  # type: ignore[no-untyped-call]  # matplotlib leaves it untyped
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator, tz=UTC))  # type: ignore[no-untyped-call]
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    return f'<img src="data:image/png;base64,{base64.b64encode(picture.getvalue()).decode()}">'


def _lines(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    series = [(answer.name(labels), samples) for answer in answers for labels, samples in answer.series]
    drawstyle = "steps-post" if custom.get("lineInterpolation") == "stepAfter" else "default"
    if custom.get("stacking", {}).get("mode") == "normal":
        _stack(axes, series)
    else:
        for place, (name, samples) in enumerate(series):
            style = _style(panel, name)
            fixed = style.get("color", {}).get("fixedColor")
            colour = mpl.colors.to_hex(_COLOURS.get(fixed, fixed) if fixed else _PALETTE[place % len(_PALETTE)])
            dashes = "--" if "custom.lineStyle" in style else "-"
            times, values = _gapped(samples)
            axes.plot(
                times,
                values,
                dashes,
                drawstyle=drawstyle,
                color=colour,
                linewidth=0.6 + 0.6 * float(style.get("custom.lineWidth", 1)),
                marker="." if len(samples) < 3 else None,
                label=name,
            )
            lower = dict(series).get(str(style.get("custom.fillBelowTo")))
            if lower is not None:
                _band(axes, samples, lower, colour)
    for step in defaults.get("thresholds", {}).get("steps", ()):
        if step["value"] is not None and "thresholdsStyle" in custom:
            axes.axhline(step["value"], color=_COLOURS.get(step["color"], step["color"]), linestyle="--", linewidth=0.8)
    if "min" in defaults:
        axes.set_ylim(bottom=defaults["min"])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: worded(value, defaults)))
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", fontsize=6, ncols=max(1, min(3, len(series))), framealpha=0.6).set_in_layout(False)


def _band(axes: Axes, upper: Sequence[tuple[float, float]], lower: Sequence[tuple[float, float]], colour: str) -> None:
    below = dict(lower)
    both = [(_day(at), below[at], value) for at, value in upper if at in below]
    axes.fill_between(
        [at for at, _, _ in both], [low for _, low, _ in both], [high for _, _, high in both], color=colour, alpha=0.2
    )


def _stack(axes: Axes, series: Sequence[tuple[str, list[tuple[float, float]]]]) -> None:
    times = sorted({at for _, samples in series for at, _ in samples})
    columns = [[dict(samples).get(at, 0.0) for at in times] for _, samples in series]
    axes.stackplot([_day(at) for at in times], columns, labels=[name for name, _ in series], alpha=0.6)


def _timeline(axes: Axes, panel: Mapping[str, Any], answers: Sequence[Answer]) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    series = [(answer.name(labels), samples) for answer in answers for labels, samples in answer.series]
    for row, (_, samples) in enumerate(series):
        step = min((b[0] - a[0] for a, b in itertools.pairwise(samples)), default=15.0)
        for at, value in samples:
            bar = (_day(at), step / 86400)
            axes.broken_barh([bar], (row - 0.4, 0.8), facecolors=coloured(value, defaults), linewidth=0)
    axes.set_yticks(range(len(series)), [name for name, _ in series])
    axes.set_ylim(len(series) - 0.5, -0.5)


def _style(panel: Mapping[str, Any], name: str) -> dict[str, Any]:
    for override in panel["fieldConfig"]["overrides"]:
        matcher = override["matcher"]
        wanted = str(matcher["options"])
        if wanted == name or (matcher["id"] == "byRegexp" and re.search(wanted.strip("/"), name)):
            return {one["id"]: one["value"] for one in override["properties"]}
    return {}


def _gapped(samples: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Times and values with a break (NaN) wherever a sample is missing."""
    steps = [b[0] - a[0] for a, b in itertools.pairwise(samples)]
    usual = min(steps, default=0.0)
    times, values = [], []
    for place, (at, value) in enumerate(samples):
        if place and steps[place - 1] > 1.5 * usual:
            times.append(_day(samples[place - 1][0] + usual))
            values.append(float("nan"))
        times.append(_day(at))
        values.append(value)
    return times, values


def _day(at: float) -> float:
    return at / 86400  # matplotlib counts days since 1970


def _duration(seconds: float) -> str:
    size = abs(seconds)
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if size >= 2 * length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.3g} s" if size >= 0.1 or size == 0 else f"{seconds * 1000:.3g} ms"
