"""A forecast for people and programs: as JSON, and as a table for the terminal."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from controllers.forecast.predict import Outlook
from controllers.forecast.selection import Fitted


def as_json(workload: str, made: Outlook, fitted: Fitted | None) -> dict[str, Any]:
    """Everything about one forecast, for people and programs; times in Unix seconds, demand per second."""
    return {
        "workload": workload,
        "made_at": made.forecast.made_at,
        "valid_until": made.forecast.valid_until,
        "model": made.forecast.model,
        "stage": fitted.stage.value if fitted else None,
        "trained_at": fitted.trained_at if fitted else None,
        "history_seconds": fitted.history_seconds if fitted else None,
        "seasonal_naive_days": fitted.naive.days if fitted and fitted.naive else None,
        "backtest_wape": {model: finite(error) for model, error in fitted.wape.items()} if fitted else {},
        "gate": {"open": made.forecast.gate_open, "reason": made.gate.value},
        "skill": {  # named as on /metrics
            window: None if ratio is None else finite(ratio)
            for window, ratio in (("6h", made.skill.quarter), ("1d", made.skill.day), ("7d", made.skill.week))
        },
        "last_hour": {kind: finite(error) for kind, error in asdict(made.live).items()} if made.live else None,
        "data_age_seconds": made.data_age_seconds,
        "widened": made.widened,
        "horizons": [
            {
                "seconds": horizon.seconds,
                "value": horizon.value,
                "quantiles": named(horizon.quantiles),
                "peak": named(horizon.peak),
                "arrivals": named(horizon.arrivals),
            }
            for horizon in made.forecast.horizons
        ],
        "window": {
            "begin_seconds": window.begin_seconds,
            "end_seconds": window.end_seconds,
            "peak": named(window.peak),
        }
        if (window := made.forecast.window)
        else None,
        "path": [{"at": at, "value": value, "quantiles": named(band)} for at, value, band in made.path],
    }


def table(answer: Mapping[str, Any]) -> str:
    """One forecast as text."""
    known = {model: error for model, error in answer["backtest_wape"].items() if error is not None}
    best = sorted(known.items(), key=lambda item: item[1])
    errors = ", ".join(f"{model} {error:.1%}" for model, error in best) or "none yet"
    gate = "open" if answer["gate"]["open"] else f"closed ({answer['gate']['reason']})"
    quantiles = list(answer["horizons"][0]["quantiles"])
    days = answer["history_seconds"] / 86_400
    lines = [
        f"{answer['workload']}: {answer['model']}, gate {gate}, {days:.1f} days of history",
        f"  backtest error: {errors}",
        "  " + f"{'in':>7}{'per s':>10}" + "".join(f"{'q' + q:>10}" for q in quantiles) + "   peak until then",
    ]
    for horizon in answer["horizons"]:
        band = "".join(f"{horizon['quantiles'][q]:>10.3g}" for q in quantiles)
        peak = "  ".join(f"q{q} {horizon['peak'][q]:.3g}" for q in quantiles)
        lines.append(f"  {horizon['seconds']:>6}s{horizon['value']:>10.3g}{band}   {peak}")
    window = answer["window"]
    if window:
        peak = "  ".join(f"q{q} {value:.3g}" for q, value in window["peak"].items())
        lines.append(
            f"  a decision made now covers {window['begin_seconds']:.0f} s to {window['end_seconds']:.0f} s from now, "
            f"whose peak is {peak}"
        )
    return "\n".join(lines)


def named(values: Mapping[float, float]) -> dict[str, float]:
    return {f"{q:g}": value for q, value in values.items()}


def finite(error: float) -> float | None:
    """JSON has no infinity: an error where there was no demand has no ratio."""
    return error if math.isfinite(error) else None
