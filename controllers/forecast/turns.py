"""Whose turn it is to be fitted: every workload within the hour, young ones sooner, its heavy models once a day."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from controllers.forecast.models import MODELS, Model
from controllers.forecast.selection import Fitted
from controllers.forecast.slices import DAY_SECONDS, GUESSED_SECONDS, Slices, Spent, Standing, slices

RETRY_SECONDS = (
    60.0  # between two tries, growing as fits go on to fail, and the least between two fits of a young history
)
GROWTH = 0.1  # a history grown by this share is worth another fit
ROUND_HEAVY_SECONDS = 60.0  # of CPU that heavy models may take in one round: the next one waits for them


@dataclass(frozen=True, slots=True)
class Turn:
    workload: str
    heavy: bool


class Turns:
    """When each workload was fitted, how that went and what it cost. Times are Unix seconds, costs CPU seconds."""

    def __init__(
        self, refit_seconds: float, heavy_seconds_per_day: float, models: Mapping[str, Model] = MODELS
    ) -> None:
        self._refit, self._budget, self._models = refit_seconds, heavy_seconds_per_day, models
        needs = [model.needs_seconds for model in models.values() if model.heavy]
        self._heavy_needs = min(needs, default=float("inf"))  # seconds of history
        self._next: dict[str, float] = {}
        self._fitted: dict[str, float] = {}  # seconds of history, by workload
        self._failures: dict[str, int] = {}  # in a row
        self._cheap: dict[str, float] = {}  # cost of the last fit without heavy models
        self._standings: dict[str, Standing] = {}
        self._spent: list[Spent] = []
        self._now = 0.0  # of the last look
        self.slices = slices({}, 0.0, heavy_seconds_per_day)

    def due(self, workloads: Iterable[str], now: float) -> list[Turn]:
        """In order: who was never fitted, whose time has come, whose fits failed, whose heavy models' turn it is."""
        if now < self._now:
            self._set_back(self._now - now)
        self._now = now
        every = list(workloads)
        ready = [name for name in every if now >= self._next.get(name, 0.0)]
        ready.sort(key=lambda name: (name in self._failures, name in self._fitted, self._next.get(name, 0.0)))
        self.slices = self._slices(every, now)
        if any(name not in self._fitted and name not in self._failures for name in ready):
            return [Turn(name, False) for name in ready]  # a first forecast before a better one
        heavy: dict[str, None] = {}
        expected = 0.0
        for name in self.slices.chosen:
            expected += self._standings.get(name, Standing()).cpu_seconds or GUESSED_SECONDS
            if heavy and expected > ROUND_HEAVY_SECONDS:
                break
            if name not in self._failures:
                heavy[name] = None
        return [*(Turn(name, False) for name in ready if name not in heavy), *(Turn(name, True) for name in heavy)]

    def begun(self, workloads: Iterable[str], now: float) -> None:
        self._next.update(dict.fromkeys(workloads, now + RETRY_SECONDS))  # unless it ends otherwise

    def succeeded(self, turn: Turn, fitted: Fitted, cpu_seconds: float, now: float) -> None:
        name = turn.workload
        self._failures.pop(name, None)
        # a young history grows fast: what was learned from an hour is old after some minutes
        young = max(RETRY_SECONDS, GROWTH * fitted.history_seconds)
        self._next[name] = now + min(self._refit, young)
        self._fitted[name] = fitted.history_seconds
        if turn.heavy:
            cost = max(0.0, cpu_seconds - self._cheap.get(name, 0.0))
            self._standings[name] = Standing(now, cost, gain(fitted, self._models))
            self._spent.append(Spent(now, cost))
        else:
            self._cheap[name] = cpu_seconds

    def failed(self, turn: Turn, cpu_seconds: float, now: float) -> None:
        name = turn.workload
        failures = self._failures[name] = self._failures.get(name, 0) + 1
        wait = min(self._refit, RETRY_SECONDS * (2.0 ** min(failures - 1, 30) - 1))
        self._next[name] = max(now, self._next.get(name, now)) + wait
        if turn.heavy:  # not again today; what a killed process had used is not known
            cost = max(cpu_seconds, GUESSED_SECONDS)
            self._standings[name] = Standing(now, cost, 0.0)
            self._spent.append(Spent(now, cost))

    def _set_back(self, seconds: float) -> None:
        """With the clock: else nobody would be fitted until it has caught up."""
        self._next = {name: at - seconds for name, at in self._next.items()}
        self._spent = [replace(each, at=each.at - seconds) for each in self._spent]
        self._standings = {
            name: one if one.fitted_at is None else replace(one, fitted_at=one.fitted_at - seconds)
            for name, one in self._standings.items()
        }

    def _slices(self, workloads: Iterable[str], now: float) -> Slices:
        self._spent = [each for each in self._spent if now - DAY_SECONDS < each.at]
        able = {name for name in workloads if self._fitted.get(name, 0.0) >= self._heavy_needs}
        standings = {name: self._standings.get(name, Standing()) for name in sorted(able)}
        return slices(standings, now, self._budget, self._spent)


def gain(fitted: Fitted, models: Mapping[str, Model]) -> float | None:
    """By what share the best model's score is below the best one that needs no heavy model; None: not comparable."""
    scores = {name: score for name, score in fitted.score.items() if name in models}
    cheap = {name: score for name, score in scores.items() if not _needs_heavy(name, models)}
    least = min(cheap.values(), default=0.0)
    if len(cheap) == len(scores) or least <= 0:
        return None
    return 1.0 - min(scores.values()) / least


def _needs_heavy(name: str, models: Mapping[str, Model]) -> bool:
    return models[name].heavy or any(models[member].heavy for member in models[name].members if member in models)
