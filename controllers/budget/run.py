"""`tidewise budget`: keeps the ledger, answers permits, publishes what is spent and how careful to be."""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from controllers.budget import rows
from controllers.budget.api import Desk, View
from controllers.budget.costing import Costing, costing_of, limits_of, rules_of
from controllers.budget.decide import Decision, Pace, decide
from controllers.budget.fx import FxUnknownError
from controllers.budget.ledger import SWEEP, Ledger
from controllers.budget.observe import read_pace, read_shape
from controllers.budget.periods import FLAT, HOUR, bounds, period_of
from controllers.budget.publish import Published, Shown, Tallies
from controllers.budget.schema import LedgerError, reading
from controllers.budget.statement import statement, statement_text, status_text
from controllers.budget.words import Level, Standing, micro, shown
from controllers.config import Budget, Config, load
from controllers.loop import Controller, StepError, Tick, run
from exporters.runtime.bearer import TokenError, read_token
from exporters.runtime.config import ConfigError

log = structlog.get_logger()


def main(argv: list[str]) -> int:
    """`tidewise budget`: 0 done, 1 the ledger cannot answer. Raises ConfigError, EndpointError."""
    parser = argparse.ArgumentParser(
        prog="tidewise budget",
        description="Keeps the ledger: answers permits, posts what is spent, publishes what is left.",
        epilog="Without a word it serves until it is stopped. `status` and `statement` read the ledger's file and end.",
    )
    parser.add_argument("command", nargs="?", choices=("serve", "status", "statement"), default="serve")
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    parser.add_argument("--month", help="of the statement, such as 2026-11; default: the present one")
    arguments = parser.parse_args(argv)
    config = load(arguments.config)
    budget = config.budget
    if budget is None:
        raise ConfigError([f"{arguments.config}: budget: is missing; add it with 'total:', for example 24900 KRW"])
    try:
        if arguments.command == "status":
            return _print_status(config, budget)
        if arguments.command == "statement":
            return _print_statement(budget, arguments.month)
        return run(build(config, budget))
    except LedgerError as error:
        print(error, file=sys.stderr)
        return 1


def build(config: Config, budget: Budget, clock: Callable[[], float] = time.time) -> Controller:
    """The controller for the loop. Raises LedgerError, and ConfigError for a price that cannot be converted."""
    costing = costing_of(budget)
    try:
        rules = rules_of(config, budget, costing, clock())
    except FxUnknownError as error:
        raise ConfigError([f"workloads: {error}"]) from None
    costing.warm(clock())
    fixed = [(cost.name, micro(cost.monthly.amount)) for cost in budget.fixed]
    ledger = Ledger(budget.ledger, budget.total.currency, budget.zone, fixed)
    keeper = Keeper(config, budget, ledger, costing, View(rules, Level.NORMAL), clock)
    return Controller(
        name="budget",
        interval_seconds=budget.interval_seconds,
        listen=budget.listen,
        step=keeper.step,
        collectors=[keeper.published],
        routes=keeper.desk.routes(),
        landing=keeper.published.landing,
        close=ledger.close,
    )


class Keeper:
    """What lies between two steps, and the step: expire, observe, decide, record, publish."""

    def __init__(
        self, config: Config, budget: Budget, ledger: Ledger, costing: Costing, view: View, clock: Callable[[], float]
    ) -> None:
        self._config, self._budget, self._ledger, self._costing = config, budget, ledger, costing
        self._levels: dict[str, Level] = ledger.read(lambda db: rows.levels(db, period_of(clock(), budget.zone)))
        view = View(view.rules, max(self._levels.values(), default=Level.NORMAL))
        self.desk = Desk(config, budget, ledger, costing, view, clock)
        self.published = Published(budget.total.currency, lambda: Tallies(self.desk.denied(), self.desk.errors()))
        self._shape: tuple[int, tuple[float, ...]] = (0, FLAT)  # (the hour it was made in, weights)
        self._token_problem = ""

    def step(self, tick: Tick) -> None:
        """One turn. Raises StepError; the level then stays as it is."""
        try:
            self._step(tick)
        except LedgerError as error:
            self.desk.failed(error)
            raise StepError(f"ledger_{error.kind}", str(error)) from None
        except FxUnknownError as error:
            raise StepError("fx_unknown", str(error)) from None

    def _step(self, tick: Tick) -> None:
        self._say_if_nobody_can_ask()
        while self._ledger.expire(tick.now) == SWEEP:
            tick.remaining()
        standing = self._ledger.standing(tick.now)
        rules = rules_of(self._config, self._budget, self._costing, standing.at)
        decision = decide(standing, self._pace(standing), rules, self._levels)
        self._record(standing, decision)
        self.desk.view = View(rules, decision.level, decision)
        month, counts, holds = self._ledger.read(
            lambda db: (statement(db, standing.period), rows.counts(db), rows.open_count(db))
        )
        self.published.replace(Shown(decision, month.lines, counts, holds))

    def _say_if_nobody_can_ask(self) -> None:
        """Without a token every request is refused; /metrics go on, and a token that comes later is read."""
        try:
            read_token(self._budget.token_file, "budget.token_file")
            problem = ""
        except TokenError as error:
            problem = str(error)
        if problem and problem != self._token_problem:
            log.error("no_token", error=problem)
        self._token_problem = problem

    def _pace(self, standing: Standing) -> Pace:
        """The shape of the week is made anew once an hour."""
        zone, hour = self._ledger.zone, int(standing.at // HOUR)
        if self._shape[0] != hour:
            self._shape = (hour, self._ledger.read(lambda db: read_shape(db, standing.at, zone)))
        return self._ledger.read(lambda db: read_pace(db, standing, self._shape[1], zone))

    def _record(self, standing: Standing, decision: Decision) -> None:
        """Puts changed levels into the ledger and the log."""
        for one in decision.budgets:
            before = self._levels.get(one.name, Level.NORMAL)
            if one.level is not before:
                projected = "unknown" if one.projected is None else shown(one.projected)
                detail = (
                    f"{before.name.lower()} -> {one.level.name.lower()}: spent {shown(one.spent)}, "
                    f"month-end {projected}, limit {shown(one.limit)}"
                )
                self._ledger.level_changed(standing, one.name, one.level, detail)
                log.warning("level_changed", budget=one.name, level=one.level.name.lower(), detail=detail)
            self._levels[one.name] = one.level


def _print_status(config: Config, budget: Budget) -> int:
    now = time.time()
    try:
        rules = rules_of(config, budget, costing_of(budget), now)
    except FxUnknownError as error:
        raise ConfigError([f"workloads: {error}"]) from None
    with reading(budget.ledger) as db:
        standing, levels = rows.standing(db, now, budget.zone), rows.levels(db, period_of(now, budget.zone))
        pace = read_pace(db, standing, read_shape(db, standing.at, budget.zone), budget.zone)
        decision = decide(standing, pace, rules, levels)
        lines = list(status_text(decision, rules.currency, levels, rows.open_count(db)))
    print("\n".join(lines))
    return 0


def _print_statement(budget: Budget, month: str | None) -> int:
    period = month or period_of(time.time(), budget.zone)
    try:
        bounds(period, budget.zone)
    except ValueError as error:
        print(f"--month: {error}", file=sys.stderr)
        return 2
    with reading(budget.ledger) as db:
        found = statement(db, period)
    print("\n".join(statement_text(found, budget.total.currency, limits_of(budget))))
    return 0
