"""The ledger over HTTP: permit, settle, void, usage; state and statement. Answered only when it is on the disk.

Every route wants the bearer token. A permit that is not given is 402, so that a caller who looks at the status alone
does not spend; what the ledger cannot answer is 503, and nothing may be spent on it either.
"""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog

from controllers.budget import rows
from controllers.budget.costing import Costing, time_price
from controllers.budget.decide import Ask, Decision, Rules, admit, committed, max_new
from controllers.budget.fx import FxUnknownError
from controllers.budget.ledger import Ledger
from controllers.budget.periods import bounds
from controllers.budget.prices import UnpricedError
from controllers.budget.replicas import Extra, TimePrice, hold_time, release, withdraw
from controllers.budget.requests import (
    BODY_BYTES,
    KEPT_DAYS,
    BadRequestError,
    Call,
    Release,
    Replica,
    Settle,
    Usage,
    Void,
    Withdraw,
    digest,
    parsed,
)
from controllers.budget.schema import LedgerError
from controllers.budget.statement import as_json, statement
from controllers.budget.transitions import ConflictError, UnknownHoldError
from controllers.budget.words import (
    Answer,
    BudgetReason,
    Entry,
    Level,
    Priority,
    Scope,
    Standing,
    Verdict,
    plain,
)
from controllers.config import Budget, Config
from controllers.loop import Route
from exporters.runtime.bearer import refused
from exporters.runtime.config import nearest
from exporters.runtime.endpoint import Request, Response, json_response

log = structlog.get_logger()
PERMITS: Mapping[str, type[Call | Replica]] = {"call": Call, "replica": Replica}
SETTLEMENTS: Mapping[str, type[Settle | Release]] = {"call": Settle, "replica": Release}
VOIDS: Mapping[str, type[Void | Withdraw]] = {"call": Void, "replica": Withdraw}
DAY = 86_400.0
AHEAD_SECONDS = 300.0  # how far in the future another machine's clock may have seen something happen


@dataclass(frozen=True, slots=True)
class View:
    """What the last step decided; permits follow its level until the next one."""

    rules: Rules
    level: Level
    decision: Decision | None = None


class Desk:
    """Answers requests. `view` is replaced as a whole by each step; `clock` gives Unix seconds."""

    def __init__(
        self, config: Config, budget: Budget, ledger: Ledger, costing: Costing, view: View, clock: Callable[[], float]
    ) -> None:
        self.view = view
        self._budget = budget
        self._workloads = {workload.identity: workload for workload in config.workloads}
        self._ledger = ledger
        self._costing = costing
        self._clock = clock
        self._counting = threading.Lock()
        self._denied: Counter[str] = Counter()
        self._errors: Counter[str] = Counter()

    def routes(self) -> Mapping[tuple[str, str], Route]:
        """For the endpoint."""
        return {
            ("POST", "/permit"): self._guarded(self._permit),
            ("POST", "/settle"): self._guarded(self._settle),
            ("POST", "/void"): self._guarded(self._void),
            ("POST", "/usage"): self._guarded(self._usage),
            ("GET", "/state"): self._guarded(self._state),
            ("GET", "/statement"): self._guarded(self._statement),
        }

    def denied(self) -> dict[str, int]:
        """Permits refused since the start, by reason."""
        with self._counting:
            return dict(self._denied)

    def errors(self) -> dict[str, int]:
        """Failures of the ledger since the start, by kind."""
        with self._counting:
            return dict(self._errors)

    def failed(self, error: LedgerError) -> None:
        """Counts one."""
        with self._counting:
            self._errors[error.kind] += 1

    def _guarded(self, route: Route) -> Route:
        def answer(request: Request) -> Response:
            refusal = refused(request, self._budget.token_file, "budget.token_file")
            if refusal is not None:
                return refusal
            if len(request.body) > BODY_BYTES:
                return _problem(413, f"the body has {len(request.body)} bytes; at most {BODY_BYTES} are read")
            try:
                return route(request)
            except BadRequestError as error:
                return _problem(400, str(error))
            except UnknownHoldError as error:
                return _problem(404, str(error))
            except ConflictError as error:
                return _problem(409, str(error))
            except (UnpricedError, FxUnknownError) as error:
                return _problem(422, str(error))
            except LedgerError as error:
                self.failed(error)
                log.error("ledger_failed", kind=error.kind, path=request.path, error=str(error))
                return _problem(503, str(error), {"Retry-After": "1"})

        return answer

    def _permit(self, request: Request) -> Response:
        asked = parsed(request.body, PERMITS)
        try:
            answer = self._permit_replica(asked) if isinstance(asked, Replica) else self._permit_call(asked)
        except UnpricedError as error:
            answer = Answer(Verdict(False, error.reason, str(error)))
        except FxUnknownError as error:
            answer = Answer(Verdict(False, BudgetReason.FX_UNKNOWN, str(error)))
        return self._permitted(answer)

    def _permit_call(self, call: Call) -> Answer:
        now, view = self._clock(), self.view
        seconds = call.hold_seconds or self._budget.hold_seconds
        # some prices follow the hours of the day: the dearest that the hold can meet
        times = [*(now + later for later in range(0, int(seconds), 3600)), now + seconds]
        cost = self._costing.most(call.provider, call.model, call.units, call.context, times)
        ask = Ask(cost.amount, call.priority)
        return self._ledger.hold(
            call.event_id,
            digest(call),
            call.scope,
            cost,
            seconds,
            now,
            lambda standing: admit(standing, ask, view.rules, view.level),
        )

    def _permit_replica(self, asked: Replica) -> Answer:
        now, view = self._clock(), self.view
        price = self._price(asked.workload, now, asked.lead_seconds)
        if isinstance(price, Verdict):
            return Answer(price)

        def allowed(standing: Standing, extra: Extra) -> Verdict:
            # the level does not bind replicas: the scaler has its own way to be careful, and the cap holds
            ask = Ask(
                extra.amount,
                Priority.CRITICAL,
                asked.workload if extra.floor else "",
                extra.floor_amount,
                extra.renewal,
            )
            return admit(standing, ask, view.rules, view.level)

        return self._ledger.write(
            lambda db, at: hold_time(
                db, at, Scope(workload=asked.workload), asked.instance, price, asked.running, allowed
            ),
            now,
        )

    def _price(self, identity: str, now: float, lead_seconds: float | None = None) -> TimePrice | Verdict:
        workload = self._workloads.get(identity)
        if workload is None:
            known = list(self._workloads)
            return _unpriced(f"workload: '{identity}' is not configured{nearest(identity, known)}")
        price = time_price(workload, self._budget, self._costing, now, lead_seconds)
        if price is None:
            return _unpriced(f"workload: '{identity}' has no price; give it price.per_replica_hour")
        return price

    def _permitted(self, answer: Answer) -> Response:
        verdict, entry = answer.verdict, answer.entry
        if not verdict.allowed:
            with self._counting:
                self._denied[verdict.reason.value] += 1
        body: dict[str, Any] = {
            "allowed": verdict.allowed,
            "reason": verdict.reason.value,
            "message": verdict.message,
            "level": self.view.level.name.lower(),
        }
        if verdict.budget:
            body["budget"] = verdict.budget
        if entry is not None:
            body |= self._row(entry) | {"expires_at": entry.until, "repeated": answer.repeated}
        return json_response(body, 200 if verdict.allowed else 402)

    def _settle(self, request: Request) -> Response:
        asked = parsed(request.body, SETTLEMENTS)
        now = self._clock()
        if isinstance(asked, Release):
            return self._release(asked, now)
        held = self._ledger.find(asked.hold)
        if held.instance and asked.cost is None:
            raise BadRequestError(f"units: {asked.hold} is the hold of a replica; settle it with its cost")
        cost = self._costing.settled(held, asked.units, asked.cost, asked.context)
        answer = self._ledger.settle(asked.hold, digest(asked), cost, now)
        return self._booked(answer)

    def _release(self, asked: Release, now: float) -> Response:
        workload = self._workloads.get(asked.workload)
        minimum = workload.minimum_run_seconds if workload else 0.0
        entry = self._ledger.write(lambda db, at: release(db, at, asked.workload, asked.instance, minimum), now)
        if entry is None:
            return _no_hold(asked)
        return json_response(self._row(entry) | {"repeated": False})

    def _void(self, request: Request) -> Response:
        asked = parsed(request.body, VOIDS)
        now = self._clock()
        if isinstance(asked, Withdraw):
            found = self._ledger.write(lambda db, at: withdraw(db, at, asked.workload, asked.instance, asked.hold), now)
            return _no_hold(asked) if found is None else self._booked(found)
        if self._ledger.find(asked.hold).instance:
            raise BadRequestError(
                f"hold: {asked.hold} is the hold of a replica; void it with kind, workload, instance, nothing_started"
            )
        return self._booked(self._ledger.void(asked.hold, digest(asked), now))

    def _usage(self, request: Request) -> Response:
        asked = parsed(request.body, {"usage": Usage})
        now = self._clock()
        occurred = asked.occurred_at.timestamp() if asked.occurred_at else now
        if not now - KEPT_DAYS * DAY <= occurred <= now + AHEAD_SECONDS:
            raise BadRequestError(
                f"occurred_at: found {asked.occurred_at}; it must be within the last {KEPT_DAYS} days, not ahead"
            )
        if asked.cost is not None:
            cost = self._costing.billed(asked.cost, occurred)
        else:
            cost = self._costing.actual(asked.provider, asked.model, asked.units or {}, asked.context, occurred)
        return self._booked(
            self._ledger.usage(
                asked.event_id, digest(asked), asked.scope, cost, now, occurred if asked.occurred_at else None
            )
        )

    def _booked(self, answer: Answer) -> Response:
        row = self._row(answer.entry) if answer.entry else {}
        return json_response(row | {"repeated": answer.repeated})

    def _row(self, entry: Entry) -> dict[str, Any]:
        return {
            "hold": entry.hold_id,
            "state": entry.state.value,
            "amount": plain(entry.cost.amount),
            "currency": self._ledger.currency,
            "period": entry.period,
        }

    def _state(self, request: Request) -> Response:
        now, view = self._clock(), self.view
        standing, running = self._ledger.write(lambda db, at: (at, rows.open_by_workload(db)), now)
        decided = {one.name: one for one in view.decision.budgets} if view.decision else {}
        budgets = {}
        for limit in view.rules.limits:
            owed = committed(standing, limit, view.rules)
            last = decided.get(limit.name)
            budgets[limit.name] = {
                "limit": plain(limit.amount),
                "posted": plain(standing.posted),
                "held": plain(standing.held),
                "committed": plain(owed),
                "remaining": plain(limit.amount - standing.posted - standing.held - owed),
                "projected": plain(last.projected) if last and last.projected is not None else None,
                "level": last.level.name.lower() if last else None,
            }
        return json_response(
            {
                "at": standing.at,
                "period": standing.period,
                "currency": self._ledger.currency,
                "level": view.level.name.lower(),
                "budgets": budgets,
                "workloads": self._replicas(standing, running, now),
            }
        )

    def _replicas(self, standing: Standing, running: Mapping[str, tuple[int, int]], now: float) -> dict[str, Any]:
        """What the scaler asks: how many more replicas of each priced workload the money allows."""
        found: dict[str, Any] = {}
        for identity, workload in self._workloads.items():
            replicas, floors = running.get(identity, (0, 0))
            try:
                price = time_price(workload, self._budget, self._costing, now)
            except FxUnknownError as error:
                found[identity] = {"replicas": replicas, "max_new": 0, "problem": str(error)}
                continue
            if price is None:
                continue
            hold = price.cost(price.first_seconds).amount
            paid_for = max(0, price.floor_replicas - floors)  # committed, so their money is not among what is free
            found[identity] = {
                "per_hour": plain(price.hourly.amount),
                "hold": plain(hold),
                "replicas": replicas,
                "max_new": paid_for + max_new(standing, self.view.rules, hold),
            }
        return found

    def _statement(self, request: Request) -> Response:
        month = request.query.get("month")
        if month is not None:
            try:
                bounds(month, self._ledger.zone)
            except ValueError as error:
                raise BadRequestError(f"month: {error}") from None
        now = self._clock()
        found = self._ledger.write(lambda db, at: statement(db, month or at.period), now)
        table, dated = self._costing.prices.table(now)
        start, end = bounds(found.period, self._ledger.zone)
        return json_response(
            {
                **as_json(found, self._ledger.currency),
                "start": start,
                "end": end,
                "price_table": {"version": table, "dated": dated},
            }
        )


def _no_hold(asked: Release | Withdraw) -> Response:
    return json_response({"state": "none", "message": f"{asked.workload}/{asked.instance} has no open hold"})


def _unpriced(message: str) -> Verdict:
    return Verdict(False, BudgetReason.WORKLOAD_UNPRICED, message)


def _problem(status: int, message: str, headers: Mapping[str, str] = {}) -> Response:
    answer = json_response({"error": message}, status)
    return Response(status, answer.body, answer.content_type, headers)
