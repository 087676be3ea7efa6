"""`tidewise forecast`: reads a month of demand, learns from it hourly, publishes the next hour every half minute."""

import argparse
import html
import json
import math
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import structlog

from controllers import loop
from controllers.config import Config, load
from controllers.forecast.almanac import Calendar
from controllers.forecast.fit import Failure, Fitter, Job
from controllers.forecast.history import History, Refusal
from controllers.forecast.observe import Observer
from controllers.forecast.predict import Outlook, outlook
from controllers.forecast.publish import ForecastCollector, Published
from controllers.forecast.selection import Fitted
from controllers.loop import Controller, StepError, Tick
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.endpoint import Request, Response, json_response

FIRST_FIT_SECONDS = 15.0  # a step may wait this long for a workload's first fit
HISTORY_PATIENCE_SECONDS = 120.0  # then models are fitted to what has been read of the past
RETRY_SECONDS = 60.0  # after a failed fit, and the least between two fits of a young history
GROWTH = 0.1  # a history grown by this share is worth another fit


def main(argv: list[str]) -> int:
    """Exit status 0; with --once 1 when a workload has no forecast. Raises ConfigError, EndpointError."""
    parser = argparse.ArgumentParser(
        prog="tidewise forecast",
        description="Learns a month of demand and publishes the next hour with quantiles.",
        epilog="The full path of a workload: GET /forecast?workload=NAME",
    )
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), metavar="FILE")
    parser.add_argument("--once", action="store_true", help="make one forecast of every workload, print it and end")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="of --once")
    options = parser.parse_args(argv)
    config = load(options.config)
    source = Source(config.prometheus)
    if options.once:
        return once(config, source, options.format)
    return loop.run(build(config, source))


def build(config: Config, source: Source) -> Controller:
    """The controller for the loop."""
    forecaster = Forecaster(config, source)
    return Controller(
        name="forecast",
        interval_seconds=config.forecast.interval_seconds,
        listen=config.forecast.listen,
        step=forecaster.step,
        collectors=[forecaster.collector],
        routes={("GET", "/forecast"): forecaster.answer},
        landing=forecaster.landing,
        close=forecaster.close,
        deadline_seconds=max(60.0, 2 * config.forecast.interval_seconds),
    )


class Forecaster:
    """What lives from step to step: the histories read, the models fitted, the forecasts made."""

    def __init__(self, config: Config, source: Source, fitter: Fitter | None = None) -> None:
        self.collector = ForecastCollector()
        self._config = config
        self._observer = Observer(source, config)
        self._fitter = fitter or Fitter()
        self._fits: dict[str, Fitted] = {}
        self._started = 0.0
        self._next_fit: dict[str, float] = {}  # when it is due
        self._known: dict[str, Published] = {}
        self._failures: dict[str, int] = {}
        self._log = structlog.get_logger(controller="forecast")

    def step(self, tick: Tick) -> None:
        """Reads, fits where it is time, forecasts. Raises StepError."""
        try:
            self._observer.read(tick.now, tick.remaining)
        except SourceError as error:
            raise StepError(str(error.kind), str(error)) from None
        histories = {w.identity: self._observer.history(w.identity) for w in self._config.workloads}
        self._started = self._started or tick.now
        enough = self._observer.complete or tick.now - self._started > HISTORY_PATIENCE_SECONDS
        if enough and not self._fitter.busy:
            begun = self._fitter.begin(self._due(histories, tick.now))
            self._next_fit.update(dict.fromkeys(begun, tick.now + RETRY_SECONDS))  # unless it succeeds
        waiting = self._fitter.busy and not self._fits
        patience = min(FIRST_FIT_SECONDS, tick.remaining() / 2) if waiting else 0.0
        self._take(self._fitter.collect(patience), tick.now)
        self._known = {name: self._forecast(name, history, tick.now) for name, history in histories.items()}
        self.collector.show(self._known, self._failures)

    def answer(self, request: Request) -> Response:
        """GET /forecast?workload=NAME: the whole path as JSON."""
        known = [w.identity for w in self._config.workloads]
        asked = request.query.get("workload", known[0] if len(known) == 1 else "")
        workload = self._config.workload(asked)
        if workload is None:
            return json_response({"error": f"no workload '{asked}'", "workloads": known}, 404)
        current = self.collector.current(workload.identity)
        state = self._known.get(workload.identity, Published())
        if current is None:
            why = state.refused.value if state.refused else "no model has been fitted yet"
            return json_response({"error": f"no valid forecast of {workload.identity}: {why}"}, 503)
        return json_response(as_json(workload.identity, current, state.fitted))

    def landing(self) -> str:
        """The workloads with links to their paths, as HTML."""
        rows = []
        for workload in self._config.workloads:
            name = html.escape(workload.identity)
            current, fitted = self.collector.current(workload.identity), self._fits.get(workload.identity)
            state = f"{fitted.model}, gate {current.gate.value}" if current and fitted else "no valid forecast"
            rows.append(f'<li><a href="/forecast?workload={name}">{name}</a>: {html.escape(state)}</li>')
        return f"<h2>Forecasts</h2><ul>{''.join(rows)}</ul>"

    def close(self) -> None:
        self._fitter.close()

    def _due(self, histories: Mapping[str, History], now: float) -> dict[str, Job]:
        """Whose time has come, the never fitted first."""
        due: dict[str, Job] = {}
        for name in sorted(histories, key=lambda name: (name in self._fits, self._next_fit.get(name, 0.0))):
            if now < self._next_fit.get(name, 0.0):
                continue
            try:
                history = histories[name].until(now)
            except Refusal:  # the forecast says so
                continue
            due[name] = Job(history, calendar_of(self._config, name), tuple(self._config.forecast.horizons_seconds))
        return due

    def _take(self, results: Mapping[str, Fitted | Failure], now: float) -> None:
        for name, result in results.items():
            if isinstance(result, Failure):
                self._failures[result.kind] = self._failures.get(result.kind, 0) + 1
                self._log.error("fit_failed", workload=name, kind=result.kind, error=result.message)
                continue
            before = self._fits.get(name)
            # a young history grows fast: what was learned from an hour is old after some minutes
            young = max(RETRY_SECONDS, GROWTH * result.history_seconds)
            self._next_fit[name] = now + min(self._config.forecast.refit_seconds, young)
            self._fits[name] = result
            if before is None or before.model != result.model or before.stage != result.stage:
                self._log.info(
                    "model_chosen",
                    workload=name,
                    model=result.model,
                    stage=result.stage.value,
                    history_seconds=result.history_seconds,
                    backtest_wape={model: round(error, 4) for model, error in result.wape.items()},
                )

    def _forecast(self, name: str, history: History, now: float) -> Published:
        """A new forecast, or the one before with the reason why there is no new one."""
        before, fitted = self._known.get(name, Published()), self._fits.get(name)
        try:
            history.until(now)  # says what is wrong with the history even before anything is fitted
            if fitted is None:
                return before
            made = forecast_of(self._config, name, history, fitted, now, before.outlook)
        except Refusal as refusal:
            if before.refused != refusal.why:
                self._log.warning("forecast_refused", workload=name, reason=refusal.why.value, error=str(refusal))
            return Published(fitted, before.outlook, refusal.why)
        if before.outlook is not None and before.outlook.gate != made.gate:
            self._log.info("gate", workload=name, gate=made.gate.value, before=before.outlook.gate.value)
        return Published(fitted, made)


def forecast_of(
    config: Config, workload: str, history: History, fitted: Fitted, now: float, before: Outlook | None
) -> Outlook:
    """Raises Refusal."""
    return outlook(
        history,
        calendar_of(config, workload),
        fitted,
        now,
        quantiles=config.forecast.quantiles,
        valid_seconds=config.forecast.valid_seconds,
        gate_was_open=before.forecast.gate_open if before is not None else None,
    )


def calendar_of(config: Config, workload: str) -> Calendar:
    """In the workload's own time zone, else the budget's, else UTC."""
    found = next(w for w in config.workloads if w.identity == workload)
    return Calendar(found.time_zone or (config.budget.time_zone if config.budget else "UTC"))


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
        "backtest_wape": {model: _finite(error) for model, error in fitted.wape.items()} if fitted else {},
        "gate": {"open": made.forecast.gate_open, "reason": made.gate.value},
        "last_hour": {kind: _finite(error) for kind, error in asdict(made.live).items()} if made.live else None,
        "data_age_seconds": made.data_age_seconds,
        "widened": made.widened,
        "horizons": [
            {
                "seconds": horizon.seconds,
                "value": horizon.value,
                "quantiles": _named(horizon.quantiles),
                "peak": _named(horizon.peak),
                "arrivals": _named(horizon.arrivals),
            }
            for horizon in made.forecast.horizons
        ],
        "path": [{"at": at, "value": value, "quantiles": _named(band)} for at, value, band in made.path],
    }


def once(config: Config, source: Source, form: str) -> int:
    """One forecast of every workload on the terminal, fitted here and now. 1 when one of them has none."""
    from controllers.forecast.selection import select

    now = time.time()
    until = time.monotonic() + 10 * config.prometheus.timeout_seconds
    observer = Observer(source, config)
    try:
        observer.read(now, lambda: until - time.monotonic())
    except SourceError as error:
        print(f"{source.url}: {error}", file=sys.stderr)
        return 1
    missing, answers = 0, []
    for workload in config.workloads:
        name = workload.identity
        try:
            history = observer.history(name).until(now)
            fitted = select(history, calendar_of(config, name), config.forecast.horizons_seconds)
            answers.append(as_json(name, forecast_of(config, name, history, fitted, now, None), fitted))
        except Refusal as refusal:
            missing += 1
            print(f"{name}: no forecast ({refusal.why.value}): {refusal}", file=sys.stderr)
    if form == "json":
        print(json.dumps(answers, indent=2))
    else:
        for answer in answers:
            print(table(answer))
    return 1 if missing else 0


def table(answer: Mapping[str, Any]) -> str:
    """One forecast as text."""
    known = {model: error for model, error in answer["backtest_wape"].items() if error is not None}
    errors = ", ".join(f"{model} {error:.1%}" for model, error in known.items()) or "none yet"
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
    return "\n".join(lines)


def _named(values: Mapping[float, float]) -> dict[str, float]:
    return {f"{q:g}": value for q, value in values.items()}


def _finite(error: float) -> float | None:
    """JSON has no infinity: an error where there was no demand has no ratio."""
    return error if math.isfinite(error) else None
