"""The page of a run: one self-contained HTML file with pictures, said so that a newcomer can judge it."""

import base64
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from controllers.scale.records import RecordError, read
from demo import pictures, settings
from demo.recording import Recording

FILE_NAME = "report.html"
TEMPLATE = Path(__file__).with_name("page.html.j2")


@dataclass(frozen=True, slots=True)
class Change:
    """A decision that differs from the one before it, as a line of the page."""

    clock: str
    minute: str
    current: str
    desired: str
    reactive: str
    forecast: str
    reasons: str
    outcome: str


def write(recording: Recording, figures: Mapping[str, Any], comparison: Mapping[str, Any] | None, path: Path) -> None:
    """Write the page. figures: as `demo.summary.summary` gives them."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = figure
    environment.filters["clock"] = clock
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    horizon = horizon_shown(recording)
    decisions, decisions_made = changes(recording)
    html = template.render(
        r=recording,
        s=figures,
        comparison=comparison,
        horizon_seconds=horizon,
        decisions=decisions,
        decisions_made=decisions_made,
        accuracy=accuracy(recording, horizon),
        every=settings.PAID_EVERY,
        fails_every=settings.FAILS_EVERY,
        model=settings.MODEL,
        usd=settings.USD_IN_KRW,
        pictures={
            "history": picture(pictures.history(recording)),
            "demand": picture(pictures.demand(recording, horizon)),
            "workers": picture(pictures.workers(recording)),
            "waits": picture(pictures.waits(recording)),
            "hour": picture(pictures.hour_ahead(recording)),
            "money": picture(pictures.money(recording)),
            "repairs": picture(pictures.repairs(recording)),
        },
    )
    path.write_text(html, encoding="utf-8")


def picture(svg: str | None) -> Markup | None:
    """The picture as an address that holds it, so that the page needs no other file."""
    if svg is None:
        return None
    return Markup("data:image/svg+xml;base64,") + base64.b64encode(svg.encode()).decode()


def horizon_shown(recording: Recording) -> int | None:
    """The first published horizon no shorter than a start-up: what was known when workers had to be asked for."""
    horizons = sorted({int(s.labels["horizon_seconds"]) for s in recording.named("workload:forecast_demand:value")})
    return next((h for h in horizons if h >= recording.start_up_seconds), horizons[-1] if horizons else None)


def accuracy(recording: Recording, horizon: int | None) -> float | None:
    """1 - WAPE of the forecasts so far, as Prometheus had it before the burst; None where it had none yet."""
    found = recording.named("workload:forecast_accuracy:ratio_1h", horizon_seconds=str(horizon))
    return found[0].at(recording.normal_end) if found else None


def changes(recording: Recording) -> tuple[list[Change], int]:
    """The decisions that changed something, and how many were made in all."""
    try:
        records = list(read(Path(recording.decisions), recording.live_start, recording.live_end))
    except RecordError:
        return [], 0
    found: list[Change] = []
    last: tuple[object, ...] = ()
    for record in records:
        decision = record.decision
        now = (decision.desired, decision.reasons, record.outcome)
        if now == last:
            continue
        last = now
        found.append(
            Change(
                clock=clock(decision.at),
                minute=f"{(decision.at - recording.live_start) / 60:.1f}",
                current=_number(decision.current),
                desired=_number(decision.desired),
                reactive=_number(decision.reactive),
                forecast=_number(decision.forecast),
                reasons=", ".join(decision.reasons),
                outcome=record.outcome,
            )
        )
    return found, len(records)


def _number(value: int | None) -> str:
    return "unknown" if value is None else str(value)


def figure(value: float | None, digits: int = 2, unit: str = "") -> str:
    """A figure as text; unknown where it is."""
    return "unknown" if value is None else f"{value:,.{digits}f}{unit}"


def clock(at: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))
