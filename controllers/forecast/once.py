"""Answers on the terminal, from a history that is read and models that are fitted here and now."""

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

from controllers.config import Config
from controllers.forecast import lead_time
from controllers.forecast.almanac import Calendar
from controllers.forecast.calendars import Calendars
from controllers.forecast.explain import explain
from controllers.forecast.explain_text import as_json as explanation_json
from controllers.forecast.explain_text import text
from controllers.forecast.facts import facts
from controllers.forecast.history import History, Refusal
from controllers.forecast.observe import Observer
from controllers.forecast.predict import Outlook
from controllers.forecast.run import forecast_of
from controllers.forecast.selection import Fitted, select
from controllers.forecast.show import as_json, table
from controllers.sources.prometheus import Source, SourceError

READ_TIMEOUTS = 10.0  # of the configured ones, for reading a month of all workloads


@dataclass(frozen=True, slots=True)
class Answer:
    """One workload's forecast with everything that led to it."""

    history: History
    hours: History | None
    calendar: Calendar
    fitted: Fitted
    made: Outlook
    cpu_seconds: float


class Reading:
    """What Prometheus says now. Raises SourceError."""

    def __init__(self, config: Config, source: Source) -> None:
        self.now = time.time()
        self._config = config
        self._observer = Observer(source, config)
        self._calendars = Calendars(config)
        until = time.monotonic() + READ_TIMEOUTS * config.prometheus.timeout_seconds
        self._observer.read(self.now, lambda: until - time.monotonic())
        try:
            self._windows = lead_time.read_windows(source, config, self.now, max(1.0, until - time.monotonic()))
        except SourceError:
            self._windows = lead_time.configured(config)

    def answer(self, workload: str, *, heavy: bool) -> Answer:
        """Raises Refusal."""
        history = self._observer.history(workload).until(self.now)
        hours = self._observer.hours(workload)
        calendar = self._calendars.of(workload, self.now)
        began = time.process_time()
        fitted = select(
            history,
            calendar,
            self._config.forecast.horizons_seconds,
            hours=hours,
            window=self._windows[workload],
            heavy=heavy,
            counter=time.process_time,
        )
        cpu_seconds = time.process_time() - began
        made = forecast_of(self._config, calendar, history, fitted, self.now, None)
        return Answer(history, hours, calendar, fitted, made, cpu_seconds)


def once(config: Config, source: Source, form: str, *, heavy: bool = False) -> int:
    """One forecast of every workload. 1 when one of them has none."""
    if not config.workloads:
        print("the configuration has no workload; write one under 'workloads'", file=sys.stderr)
        return 1

    def show(reading: Reading, workload: str) -> dict[str, object]:
        found = reading.answer(workload, heavy=heavy)
        return as_json(workload, found.made, found.fitted)

    return _tell(config, source, form, [w.identity for w in config.signals()], show, table, many=True)


def explained(config: Config, source: Source, asked: str, form: str, *, heavy: bool = True) -> int:
    """Why the forecast of one workload is as it is; '' is the only one there is. 1 when there is none."""
    signals = config.signals()
    only = signals[0] if len(signals) == 1 and not asked else None
    workload = only or config.signal(asked)
    if workload is None:
        known = ", ".join(w.identity for w in signals) or "none"
        problem = f"found no workload '{asked}'" if asked else "which workload?"
        print(f"{problem}; the configuration has: {known}", file=sys.stderr)
        return 2

    def show(reading: Reading, name: str) -> dict[str, object]:
        found = reading.answer(name, heavy=heavy)
        known = facts(
            found.history,
            found.hours,
            found.calendar,
            reading.now,
            counted=workload.demand.promql is None,
            cpu_seconds=found.cpu_seconds,
        )
        whole = explain(name, found.history, found.calendar, found.fitted, known, reading.now)
        told = explanation_json(whole, found.made, found.fitted)
        return told if form == "json" else {"text": text(whole, found.made, found.fitted)}

    return _tell(config, source, form, [workload.identity], show, lambda told: str(told["text"]), many=False)


def _tell(
    config: Config,
    source: Source,
    form: str,
    names: list[str],
    show: Callable[[Reading, str], dict[str, object]],
    as_text: Callable[[dict[str, object]], str],
    *,
    many: bool,
) -> int:
    try:
        reading = Reading(config, source)
    except SourceError as error:
        print(f"{source.url}: {error}", file=sys.stderr)
        return 1
    answers = []
    for name in names:
        try:
            answers.append(show(reading, name))
        except Refusal as refusal:
            print(f"{name}: no forecast ({refusal.why.value}): {refusal}", file=sys.stderr)
    if form == "json" and (many or answers):
        print(json.dumps(answers if many else answers[0], indent=2))
    elif form != "json":
        for answer in answers:
            print(as_text(answer))
    return 0 if len(answers) == len(names) else 1
