"""An explanation for people: the week as a heat map, bars of what mattered, the table of the models."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from controllers.forecast.explain import Explanation, Tried, gate_sentence
from controllers.forecast.history import Floats
from controllers.forecast.predict import Outlook
from controllers.forecast.selection import Fitted

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
BLOCKS = "▁▂▃▄▅▆▇█"
UNKNOWN = "·"
BAR = 24
MOST_FEATURES = 6
LEAST_SHARE = 0.005  # of the error: what matters less is not shown


def text(found: Explanation, made: Outlook, fitted: Fitted) -> str:
    days = fitted.history_seconds / 86_400
    lines = [
        f"{found.workload}: {fitted.model}, stage {fitted.stage.value}, learned from {days:.1f} days",
        *f"gate {gate_sentence(made, fitted)}".replace("; ", "\n     ").splitlines(),
        "",
        f"The week as it was, demand per second by hour ({found.time_zone})",
        *heat_map(found.profile),
        "",
        *models(found.tried),
    ]
    for model, groups in found.features.items():
        lines += ["", f"What mattered to {model}: its error an hour ahead grows by so much without", *bars(groups)]
    if not found.features:
        lines += ["", f"{fitted.model} knows no features: it goes by level and season alone"]
    if found.floors:
        floors = ", ".join(
            f"{ratio:.1%} of {'single minutes' if seconds == 60 else f'means over {seconds} s'}"
            for seconds, ratio in found.floors.items()
        )
        lines += ["", f"Chance alone leaves an error of {floors}"]
    lines += ["", *calendar(found)]
    return "\n".join(line.rstrip() for line in lines)


def heat_map(profile: Floats) -> list[str]:
    """A row a weekday, a column an hour; the heights go from 0 to the largest hour."""
    known = np.isfinite(profile)
    most = float(np.nanmax(profile)) if known.any() else 0.0
    lines = ["     " + "".join(f"{hour:<6}" for hour in range(0, 24, 3)) + "    mean"]
    for name, row in zip(DAYS, profile, strict=True):
        cells = "".join(2 * _block(value, most) for value in row.tolist())
        mean = _rate(float(np.nanmean(row))) if np.isfinite(row).any() else "–"
        lines.append(f"{name}  {cells}  {mean:>6}")
    return [*lines, f"{'':5}{BLOCKS[0]} 0   {BLOCKS[-1]} {_rate(most)} per second   {UNKNOWN} unknown"]


def _rate(demand: float) -> str:
    return f"{demand:,.0f}" if demand >= 1000 else f"{demand:.3g}"


def _block(value: float, most: float) -> str:
    if not math.isfinite(value):
        return UNKNOWN
    return BLOCKS[min(len(BLOCKS) - 1, int(value / most * len(BLOCKS)))] if most > 0 else BLOCKS[0]


def models(tried: tuple[Tried, ...]) -> list[str]:
    """Errors by horizon. `*` is in use; a share is that of a member of the ensemble in use."""
    horizons = sorted({horizon for one in tried for horizon in one.wape})
    shown = [one for one in tried if one.wape]
    lines = [
        "Models by their error (WAPE) in the backtest; skill: relative to the best naive one's, below 1 is better",
        f"  {'':<20}" + "".join(f"{f'{h} s':>9}" for h in horizons) + f"{'skill':>8}{'CPU s':>8}{'share':>8}",
    ]
    for one in shown:
        errors = "".join(f"{_percent(one.wape.get(horizon)):>9}" for horizon in horizons)
        cost = "–" if one.cpu_seconds is None else f"{one.cpu_seconds:.2f}"
        skill = "–" if one.skill is None or not math.isfinite(one.skill) else f"{one.skill:.2f}"
        share = "" if one.share is None else f"{one.share:.0%}"
        lines.append(f"{'*' if one.chosen else ' '} {one.model:<20}{errors}{skill:>8}{cost:>8}{share:>8}")
    if not shown:
        lines.append("  none could be tried yet: the history is too short")
    for one in tried:
        if not one.wape:
            lines.append(f"{'*' if one.chosen else ' '} {one.model:<20} {one.left_out}")
    return lines


def bars(groups: Mapping[str, float]) -> list[str]:
    shown = [(name, grows) for name, grows in groups.items() if grows >= LEAST_SHARE][:MOST_FEATURES]
    if not shown:
        return ["  nothing in particular"]
    most = shown[0][1]
    return [f"  {name:<36}{grows:>+7.0%}  {'█' * max(1, round(BAR * grows / most))}" for name, grows in shown]


def calendar(found: Explanation) -> list[str]:
    if not found.coming:
        return ["The calendar has no holiday and no event within two days"]
    zone = ZoneInfo(found.time_zone)
    lines = ["Within two days the calendar has"]
    for one in found.coming:
        begin, end = (datetime.fromtimestamp(at, tz=zone) for at in (one.begin, one.end))
        effect = "never seen before" if one.effect is None else f"so far × {one.effect:.2f}, seen {one.seen} times"
        lines.append(f"  {begin:%a %d %b %H:%M} to {end:%a %H:%M}  {one.kind} ({effect})")
    return lines


def as_json(found: Explanation, made: Outlook, fitted: Fitted) -> dict[str, Any]:
    return {
        "workload": found.workload,
        "time_zone": found.time_zone,
        "model": fitted.model,
        "stage": fitted.stage.value,
        "history_seconds": fitted.history_seconds,
        "gate": {"open": made.forecast.gate_open, "reason": made.gate.value, "why": gate_sentence(made, fitted)},
        "week_profile": {
            day: [value if math.isfinite(value) else None for value in row]
            for day, row in zip(DAYS, found.profile.tolist(), strict=True)
        },
        "features": {model: dict(groups) for model, groups in found.features.items()},
        "models": [_finite(asdict(one)) for one in found.tried],
        "noise_floor": {str(seconds): ratio for seconds, ratio in found.floors.items()},
        "coming": [asdict(one) for one in found.coming],
    }


def _finite(value: Any) -> Any:
    """JSON has no infinity, and its keys are text."""
    if isinstance(value, dict):
        return {str(key): _finite(each) for key, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _percent(ratio: float | None) -> str:
    return "–" if ratio is None or not math.isfinite(ratio) else f"{ratio:.1%}"
