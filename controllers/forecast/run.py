"""`tidewise forecast`: reads a month of demand, learns from it hourly, publishes the next hour every half minute."""

import contextlib
import html
from collections.abc import Mapping
from dataclasses import replace

import structlog

from controllers.config import Config
from controllers.forecast import lead_time
from controllers.forecast.almanac import Calendar
from controllers.forecast.backtest import effort_for
from controllers.forecast.calendars import Calendars
from controllers.forecast.facts import Facts, facts
from controllers.forecast.fit import Fitter
from controllers.forecast.history import History, Refusal, Why
from controllers.forecast.job import Done, Failure, Job
from controllers.forecast.observe import Observer
from controllers.forecast.predict import Outlook, outlook
from controllers.forecast.publish import ForecastCollector, Process, Published
from controllers.forecast.selection import Fitted
from controllers.forecast.show import as_json
from controllers.forecast.turns import Turn, Turns
from controllers.loop import Controller, StepError, Tick
from controllers.sources.prometheus import Source, SourceError
from exporters.runtime.endpoint import Request, Response, json_response

FIRST_FIT_SECONDS = 15.0  # a step may wait this long for the first fits
FIRST_LOOK_SECONDS = 1.0  # and meanwhile looks this often at what is ready
HISTORY_PATIENCE_SECONDS = 120.0  # then models are fitted to what has been read of the past


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
        self._source = source
        self._observer = Observer(source, config)
        self._calendars = Calendars(config)
        settings = config.forecast
        self._fitter = fitter or Fitter(workers=settings.workers, scheduler=settings.scheduler)
        self._turns = Turns(settings.refit_seconds, settings.heavy_cpu_seconds_per_day)
        self._signals = config.signals()
        self._effort = effort_for(len(self._signals))
        self._round: dict[str, Turn] = {}
        self._trouble: str | None = None  # why the cluster was not used in the last round
        self._fits: dict[str, Fitted] = {}
        self._facts: dict[str, Facts] = {}
        # jobs and requests come in whole pieces; what an expression measures, nobody knows
        self._counted = {w.identity: w.demand.promql is None for w in self._signals}
        self._started = 0.0
        self._known: dict[str, Published] = {}
        self._failures: dict[str, int] = {}
        self._log = structlog.get_logger(controller="forecast")

    def step(self, tick: Tick) -> None:
        """Reads, fits where it is time, forecasts. Raises StepError."""
        try:
            self._observer.read(tick.now, tick.remaining)
        except SourceError as error:
            raise StepError(str(error.kind), str(error)) from None
        histories = {w.identity: self._observer.history(w.identity) for w in self._signals}
        self._started = self._started or tick.now
        enough = self._observer.complete or tick.now - self._started > HISTORY_PATIENCE_SECONDS
        if enough and not self._fitter.busy:
            self._begin(histories, tick)
        left, waits = tick.remaining(), self._fitter.busy and not self._fits
        enough_left = left - min(FIRST_FIT_SECONDS, left / 2) if waits else left
        while True:  # the first forecasts appear as they are ready
            patience = min(FIRST_LOOK_SECONDS, max(0.0, tick.remaining() - enough_left))
            self._take(self._fitter.collect(patience), histories, tick.now)
            self._known = {name: self._forecast(name, history, tick.now) for name, history in histories.items()}
            self._note_troubles()
            self.collector.show(self._known, self._failures, Process(self._turns.slices, self._calendars.readable))
            if not self._fitter.busy or tick.remaining() <= enough_left:
                return

    def answer(self, request: Request) -> Response:
        """GET /forecast?workload=NAME: the whole path as JSON."""
        known = [w.identity for w in self._signals]
        asked = request.query.get("workload", known[0] if len(known) == 1 else "")
        workload = self._config.signal(asked)
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
        for workload in self._signals:
            name = html.escape(workload.identity)
            current, fitted = self.collector.current(workload.identity), self._fits.get(workload.identity)
            state = f"{fitted.model}, gate {current.gate.value}" if current and fitted else "no valid forecast"
            rows.append(f'<li><a href="/forecast?workload={name}">{name}</a>: {html.escape(state)}</li>')
        return f"<h2>Forecasts</h2><ul>{''.join(rows)}</ul>"

    def close(self) -> None:
        self._fitter.close()

    def _begin(self, histories: Mapping[str, History], tick: Tick) -> None:
        """Starts a round of those whose time has come."""
        turns: dict[str, Turn] = {}
        jobs: dict[str, Job] = {}
        now = tick.now
        known: dict[str, History] = {}
        for name, history in histories.items():
            with contextlib.suppress(Refusal):  # the forecast says so; and nobody waits for its first fit
                known[name] = history.until(now)
        for turn in self._turns.due(known, now):
            name = turn.workload
            turns[name] = turn
            jobs[name] = Job(
                known[name],
                self._calendars.of(name, now),
                tuple(self._config.forecast.horizons_seconds),
                hours=self._observer.hours(name),
                heavy=turn.heavy,
                before=self._fits.get(name),
                effort=self._effort,
            )
        if not jobs:
            return
        windows = self._windows(tick)
        begun = self._fitter.begin({name: replace(job, window=windows[name]) for name, job in jobs.items()})
        self._turns.begun(begun, now)
        self._round = {name: turns[name] for name in begun}

    def _windows(self, tick: Tick) -> dict[str, tuple[float, float]]:
        """What a decision of each workload covers; by the configured lead times where Prometheus does not tell."""
        try:
            return lead_time.read_windows(self._source, self._config, tick.now, tick.remaining())
        except SourceError as error:
            self._log.warning("lead_times_unknown", kind=str(error.kind), error=error.message)
            return lead_time.configured(self._config)

    def _take(self, results: Mapping[str, Done], histories: Mapping[str, History], now: float) -> None:
        for name, done in results.items():
            result, turn = done.result, self._round[name]
            if isinstance(result, Failure):
                self._turns.failed(turn, done.cpu_seconds, now)
                self._failures[result.kind] = self._failures.get(result.kind, 0) + 1
                self._log.error("fit_failed", workload=name, kind=result.kind, error=result.message)
                continue
            self._turns.succeeded(turn, result, done.cpu_seconds, now)
            before = self._fits.get(name)
            self._fits[name] = result
            self._facts[name] = facts(
                histories[name],
                self._observer.hours(name),
                self._calendars.of(name, now),
                now,
                counted=self._counted[name],
                cpu_seconds=done.cpu_seconds,
            )
            if before is None or before.model != result.model or before.stage != result.stage:
                self._log.info(
                    "model_chosen",
                    workload=name,
                    model=result.model,
                    stage=result.stage.value,
                    history_seconds=result.history_seconds,
                    backtest_wape={model: round(error, 4) for model, error in result.wape.items()},
                )

    def _note_troubles(self) -> None:
        """Counts each round that the cluster was no help in, or that could not begin; says so once."""
        for trouble in self._fitter.troubles():
            self._failures[trouble.kind] = self._failures.get(trouble.kind, 0) + 1
            if self._trouble != trouble.kind:
                event = "cluster_unused" if trouble.kind.startswith("cluster") else "fits_wait"
                self._log.warning(event, kind=trouble.kind, error=trouble.message)
            self._trouble = trouble.kind

    def _forecast(self, name: str, history: History, now: float) -> Published:
        """A new forecast, or the one before with the reason why there is no new one."""
        before, fitted = self._known.get(name, Published()), self._fits.get(name)
        known = self._facts.get(name)
        try:
            history.until(now)  # says what is wrong with the history even before anything is fitted
            if fitted is None:
                return before
            calendar = self._calendars.of(name, now)
            made = forecast_of(self._config, calendar, history, fitted, now, before.outlook)
        except Refusal as refusal:
            if before.refused != refusal.why:
                self._log.warning("forecast_refused", workload=name, reason=refusal.why.value, error=str(refusal))
            return Published(fitted, before.outlook, refusal.why, known)
        except Exception as error:  # of thinking about this workload: the others get their forecasts
            if before.refused != Why.FAILED:
                self._log.exception("forecast_failed", workload=name, kind=type(error).__name__)
            return Published(fitted, before.outlook, Why.FAILED, known)
        if before.outlook is not None and before.outlook.gate != made.gate:
            self._log.info("gate", workload=name, gate=made.gate.value, before=before.outlook.gate.value)
        return Published(fitted, made, facts=known)


def forecast_of(
    config: Config, calendar: Calendar, history: History, fitted: Fitted, now: float, before: Outlook | None
) -> Outlook:
    """Raises Refusal."""
    return outlook(
        history,
        calendar,
        fitted,
        now,
        quantiles=config.forecast.quantiles,
        valid_seconds=config.forecast.valid_seconds,
        gate_was_open=before.forecast.gate_open if before is not None else None,
    )
