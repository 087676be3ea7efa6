"""What the terminal shows while the demo runs: read from Prometheus, so it is what a dashboard would show.

What Prometheus does not know is shown as unknown, never as 0.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo import settings
from demo.chart import chart
from demo.reading import Purse, Reading, forecast_shown

PLAIN_SECONDS = 5.0
NEWS_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Clock:
    """Where the run stands, in seconds from its live start. budget: whether it has one."""

    now: float
    end: float
    rise: float
    burst: float | None
    budget: bool = False

    @property
    def phase(self) -> str:
        if self.now < self.rise:
            return f"the rise begins in {_minutes(self.rise - self.now)}"
        if self.burst is not None and self.now < self.burst:
            return f"the rise is on; the burst comes in {_minutes(self.burst - self.now)}"
        if self.now < self.end:
            return "the rise and a burst are on" if self.burst is not None else "the rise is on"
        return "the workers finish what waits"


def number(value: float | None, digits: int = 0, unit: str = "") -> str:
    """As text; unknown where it is."""
    return "unknown" if value is None else f"{value:.{digits}f}{unit}"


def _minutes(seconds: float) -> str:
    whole = max(0, round(seconds))
    return f"{whole // 60}:{whole % 60:02d}"


def forecast_text(now: Reading) -> str:
    ahead = forecast_shown(now)
    if ahead is None:
        return "unknown"
    band = f" ({ahead.low:.1f}–{ahead.high:.1f})" if ahead.low is not None and ahead.high is not None else ""
    return f"{ahead.value:.1f}{band}"


def forecast_horizon_text(now: Reading) -> str:
    ahead = forecast_shown(now)
    return "ahead" if ahead is None else f"in {ahead.seconds / 60:g} min"


def plain_line(now: Reading, clock: Clock) -> str:
    """One line of a run without a terminal."""
    return (
        f"{_minutes(clock.now)}/{_minutes(clock.end)}"
        f"  demand {number(now.demand, 1)}/s"
        f"  {forecast_horizon_text(now)} {forecast_text(now)}"
        f"  waiting {number(now.backlog)}, oldest {number(now.oldest_seconds, 1, ' s')}"
        f"  workers {number(now.ready)} of {number(now.wanted)} -> {number(now.desired)}"
        f" [{', '.join(now.reasons) or 'no decision yet'}]"
        f"{_plain_money(now.usage, budget=clock.budget)}"
        f"{'  mending: ' if now.mending else ''}{', '.join(now.mending)}"
    )


def _plain_money(usage: Purse, *, budget: bool) -> str:
    return f"  spent {number(usage.posted)} of {number(usage.limit)} KRW" if budget else ""


def money_text(usage: Purse) -> str:
    """Posted spend against the limit, for the picture."""
    if usage.posted is None or usage.limit is None:
        return "unknown"
    share = f" ({usage.posted / usage.limit:.1%})" if usage.limit > 0 else ""
    return f"{usage.posted:,.1f} of {usage.limit:,.0f} KRW{share}"


class Screen(Protocol):
    """Where a run is shown."""

    def say(self, text: str) -> None: ...
    def begin(self) -> None: ...
    def show(self, now: Reading | None, past: Sequence[tuple[float, float]], clock: Clock) -> None: ...
    def end(self) -> None: ...


class PlainScreen:
    """Lines for CI and pipes: each piece of news, and the reading every few seconds."""

    def __init__(self) -> None:
        self._shown_at = float("-inf")

    def say(self, text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def begin(self) -> None:
        """Nothing to prepare."""

    def show(self, now: Reading | None, past: Sequence[tuple[float, float]], clock: Clock) -> None:
        if time.monotonic() - self._shown_at < PLAIN_SECONDS:
            return
        self._shown_at = time.monotonic()
        self.say(plain_line(now, clock) if now is not None else "Prometheus does not answer: everything is unknown")

    def end(self) -> None:
        """Nothing to put back."""


class LiveScreen:
    """A picture on the terminal that is drawn anew in place, the news below it."""

    def __init__(self, title: str) -> None:
        self.title = title
        self._console = Console()
        self._live: Live | None = None
        self._news: list[str] = []

    def say(self, text: str) -> None:
        line = f"{time.strftime('%H:%M:%S')}  {text}"
        if self._live is None:
            self._console.print(line, markup=False, highlight=False)
        else:
            self._news.append(line)

    def begin(self) -> None:
        self._live = Live(console=self._console, auto_refresh=False, transient=False)
        self._live.start()

    def show(self, now: Reading | None, past: Sequence[tuple[float, float]], clock: Clock) -> None:
        if self._live is not None:
            self._live.update(picture(self.title, now, past, clock, self._news), refresh=True)

    def end(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None


def picture(
    title: str, now: Reading | None, past: Sequence[tuple[float, float]], clock: Clock, news: Sequence[str]
) -> Panel:
    """The whole picture of one moment."""
    shown = now or Reading()
    late = shown.oldest_seconds is not None and shown.oldest_seconds > settings.SLO_WAIT_SECONDS
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", width=10)
    table.add_column(width=30)
    table.add_column()
    table.add_row("demand", f"{number(shown.demand, 1)} jobs/s", "")
    table.add_row("forecast", forecast_text(shown), f"{forecast_horizon_text(shown)}{_model_text(shown)}")
    table.add_row(
        "queue",
        "unknown" if shown.backlog is None else f"{shown.backlog:.0f} jobs, in hand or waiting",
        Text(
            f"oldest waits {number(shown.oldest_seconds, 1, ' s')}  (SLO {settings.SLO_WAIT_SECONDS:g} s)",
            style="bold red" if late else "",
        ),
    )
    table.add_row(
        "workers",
        f"{number(shown.ready)} ready of {number(shown.wanted)}",
        f"→ {number(shown.desired)} desired; without forecast {number(shown.reactive)}",
    )
    if clock.budget:
        usage = shown.usage
        held, foreseen = number(usage.held, 1), number(usage.projected)
        level = usage.level or "unknown"
        table.add_row("spent", money_text(usage), f"held {held}; month-end {foreseen}; level {level}")
    if shown.mending:
        table.add_row("recovery", ", ".join(shown.mending), "")
    parts: list[RenderableType] = [
        Text(f"{_minutes(clock.now)} of {_minutes(clock.end)}: {clock.phase}", style="bold"),
        Text(),
        table,
        Text.assemble(("because     ", "bold"), ", ".join(shown.reasons) or "no decision yet"),
        Text(),
        *chart(past, shown.ahead, time.time()),
    ]
    if now is None:
        parts.append(Text("Prometheus does not answer: everything is unknown", style="bold red"))
    if shown.firing:
        parts.append(Text(f"firing: {', '.join(shown.firing)}", style="bold red"))
    parts += [Text(line, style="dim") for item in news[-NEWS_SHOWN:] for line in item.splitlines()[:4]]
    return Panel(Group(*parts), title=title, title_align="left", border_style="blue")


def _model_text(now: Reading) -> str:
    if now.model is None:
        return ""
    gate = "" if now.gate_open in (None, True) else ", no skill: not used"
    return f", by {now.model}{gate}"


def screen(title: str) -> Screen:
    """A live picture on a terminal, plain lines elsewhere."""
    return LiveScreen(title) if sys.stdout.isatty() else PlainScreen()
