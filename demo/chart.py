"""The hour before and the hour ahead, drawn with characters."""

from collections.abc import Sequence
from itertools import pairwise

from rich.text import Text

from demo.reading import Ahead

MINUTES_SHOWN = 60  # to either side of now
CELLS = 30  # to either side of now
ROWS = 8
EIGHTHS = " ▁▂▃▄▅▆▇█"


def chart(past: Sequence[tuple[float, float]], ahead: Sequence[Ahead], at: float) -> list[Text]:
    """Demand of the last hour and the forecast of the next, with its band, as rows of a chart.

    past: (Unix time, jobs per second). Columns without data stay empty.
    """
    step = MINUTES_SHOWN * 60 / CELLS
    columns: list[tuple[float | None, float | None]] = []
    for cell in range(CELLS):
        start = at - (CELLS - cell) * step
        inside = [value for time_, value in past if start <= time_ < start + step]
        columns.append((sum(inside) / len(inside) if inside else None, None))
    for cell in range(CELLS):
        seconds = (cell + 0.5) * step
        columns.append((_between(ahead, seconds, "value"), _between(ahead, seconds, "high")))
    top = max([1.0, *(value for column in columns for value in column if value is not None)])
    rows = []
    for row in range(ROWS, 0, -1):
        label = f"{top:5.0f} ┤" if row == ROWS else f"{0:5d} ┤" if row == 1 else "      │"
        text = Text.assemble((label, "dim"))
        for index, (value, high) in enumerate(columns):
            if index == CELLS:
                text.append("│", style="bold")
            text.append(*_cell(value, high, top, row, ahead=index >= CELLS))
        rows.append(text)
    axis = f"{'-60 min':<{CELLS}}now{'+60 min':>{CELLS - 2}}"
    rows.append(Text(" " * 7 + axis + "   jobs/s", style="dim"))
    return rows


def _cell(value: float | None, high: float | None, top: float, row: int, *, ahead: bool) -> tuple[str, str]:
    if value is None:
        return " ", ""
    eighths = round(value / top * ROWS * 8) - (row - 1) * 8
    if eighths > 0:
        return EIGHTHS[min(8, eighths)], "cyan" if ahead else "green"
    if high is not None and round(high / top * ROWS * 8) > (row - 1) * 8:
        return "░", "cyan"
    return " ", ""


def _between(ahead: Sequence[Ahead], seconds: float, field: str) -> float | None:
    """The forecast's value or upper bound, linear between horizons."""
    points = [(a.seconds, a.value if field == "value" else a.high) for a in ahead]
    known = [(second, value) for second, value in points if value is not None]
    if not known:
        return None
    for (left, low), (right, high) in pairwise(known):
        if left <= seconds <= right:
            return low + (high - low) * (seconds - left) / (right - left)
    return known[0][1] if seconds < known[0][0] else known[-1][1]
