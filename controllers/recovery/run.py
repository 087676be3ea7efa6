"""`tidewise recovery`: read, decide, write down, act, for every instance of every target, once every interval."""

import argparse
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from controllers.config import Config, load
from controllers.config.recovery import RecoverySection, RecoveryTarget
from controllers.domain import Mode
from controllers.loop import Controller, StepError, Tick, run
from controllers.recovery import why
from controllers.recovery.alertmanager import Page, Quiet, read_quiet
from controllers.recovery.book import Entry, Kind, opened_body
from controllers.recovery.decide import Decision, Rules, State, Watch, breaker_open, decide, watched
from controllers.recovery.http import NeighbourError
from controllers.recovery.journal import Journal, JournalError, open_journal
from controllers.recovery.meaning import MEANING
from controllers.recovery.observe import Seen, read_targets
from controllers.recovery.operation import Health, Next, Operation, Reason, Result, Step, effect_id
from controllers.recovery.publish import Published
from controllers.recovery.remedies import REMEDIES, Ask, Outcome, Remedy
from controllers.recovery.remedies.page import page_of, tell
from controllers.recovery.situation import Situation
from controllers.recovery.webhook import Webhook
from controllers.sources.prometheus import Source
from exporters.runtime.config import ConfigError

ACTING_AT_ONCE = 8
READING_SECONDS = 30.0  # of a step, beside the longest remedy
CLOCK_TOLERANCE_SECONDS = 30.0
QUIET_SECONDS = 5.0
EVERYTHING = "all"  # the target of a page that is about no single one

log = structlog.get_logger()


def main(argv: list[str]) -> int:
    """`tidewise recovery`, and its questions `status` and `why`. Raises ConfigError, EndpointError."""
    if argv[:1] == ["status"] or argv[:1] == ["why"]:
        return why.main(argv)
    parser = argparse.ArgumentParser(
        prog="tidewise recovery",
        description="Mends instances whose symptoms Prometheus confirms: restart, replace, page.",
        epilog="`tidewise recovery status` shows what is open, `tidewise recovery why TARGET` what was done and why. "
        "A target without 'mode' is in shadow: decided and published, never touched.",
    )
    parser.add_argument("--config", type=Path, default=Path("tidewise.yaml"), help="default: %(default)s")
    path = parser.parse_args(argv).config
    config = load(path)
    if config.recovery is None or not config.recovery.targets:
        raise ConfigError([f"{path}: recovery.targets: there are none; docs/recovery.md shows a first one"])
    return run(build(config, Source(config.prometheus)))


def build(config: Config, source: Source) -> Controller:
    """The controller for the loop. Raises ValueError without a `recovery` section."""
    if config.recovery is None:
        raise ValueError("the configuration has no section 'recovery'")
    recovery = Recovery(config.recovery, source)
    return Controller(
        name="recovery",
        interval_seconds=config.recovery.interval_seconds,
        listen=config.recovery.listen,
        step=recovery.step,
        collectors=[recovery.published],
        routes={("POST", "/alerts"): recovery.webhook.receive},
        landing=recovery.published.landing,
        close=recovery.close,
        deadline_seconds=recovery.longest_step_seconds,
    )


def rules_of(target: RecoveryTarget, section: RecoverySection) -> Rules:
    """What the configuration says about one target, as decide() wants it."""
    return Rules(
        target=target.name,
        ladders={symptom.alert: target.ladder(symptom) for symptom in target.symptoms},
        alerts={symptom.alert: symptom.alert for symptom in target.symptoms},
        mode=target.mode,
        destructive_mode=target.replace.mode if target.replace else Mode.RECOMMEND,
        limits=target.limits(section),
    )


class Recovery:
    """The state between two steps, and the step itself. All that must not be forgotten is in the journal."""

    def __init__(self, section: RecoverySection, source: Source) -> None:
        self._section = section
        self._source = source
        self._targets = {target.name: target for target in section.targets}
        self._rules = {target.name: rules_of(target, section) for target in section.targets}
        self._remedies: dict[str, dict[Step, Remedy]] = {
            name: {step: made for step, make in REMEDIES.items() if (made := make(target)) is not None}
            for name, target in self._targets.items()
        }
        self._journal: Journal | None = None
        self._seen: dict[str, Seen] = {}
        self._watches: dict[tuple[str, str], Watch] = {}
        self._tripped: dict[str, float] = {}
        self._doubtful_since: dict[str, float] = {}
        self._standing: dict[tuple[str, str, str], Page] = {}
        self._undelivered: str | None = None  # why Alertmanager has not taken what stands
        self._clocks: tuple[float, float] | None = None  # wall and monotonic, of the last step
        self._distrusts_clock_until = 0.0  # monotonic
        self.webhook = Webhook(self._targets, section.token_file, self._writable, self._declared, time.time)
        self.published = Published(self._targets, self.webhook.counts)

    @property
    def longest_step_seconds(self) -> float:
        longest = [remedy.longest_seconds for remedies in self._remedies.values() for remedy in remedies.values()]
        return READING_SECONDS + max(longest, default=0.0)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def step(self, tick: Tick) -> None:
        """Reads the truth, decides for every instance, tells people, acts. Without a journal it only tells people."""
        began = time.monotonic()
        try:
            journal = self._opened(tick.now)
            situation = self._read(journal, tick, began)
            decisions, asks = self._decide(journal, situation)
            self._tell(_pages(decisions, situation.seen, tick.now), tick)
            self._act(journal, asks, tick, began)
        except JournalError as error:
            self.published.journal(str(error))
            page = page_of(Next.FREEZE, Reason.JOURNAL_BROKEN, EVERYTHING, (), str(error), tick.now)
            self._tell({page.key: page}, tick)
            raise StepError(f"journal_{error.trouble}", str(error)) from None
        healths = {(d.target, d.instance): situation.health(d.target, d.instance) for d in decisions if d.instance}
        problems = {name: seen.problem for name, seen in situation.seen.items() if seen.problem}
        self.published.journal(None)
        self.published.show(decisions, healths, journal.book, problems)

    def _opened(self, now: float) -> Journal:
        if self._journal is None:
            self._journal = open_journal(self._section.journal, now)
            self._tripped |= self._journal.book.tripped
        if self._journal.trouble is not None:
            raise self._journal.trouble
        return self._journal

    def _writable(self) -> Journal | None:
        journal = self._journal
        return journal if journal is not None and journal.trouble is None else None

    def _declared(self, target: str) -> frozenset[str] | None:
        seen = self._seen.get(target)
        return None if seen is None or seen.doubt is not None else frozenset(seen.instances)

    def _read(self, journal: Journal, tick: Tick, began: float) -> Situation:
        """Everything that a step may depend on, after what the last process left unfinished has been settled."""
        jumped = self._clock_jumped(tick.now, began)
        self._seen = read_targets(self._source, list(self._targets.values()), tick)
        self._doubtful_since = {
            name: self._doubtful_since.get(name, tick.now)
            for name, seen in self._seen.items()
            if seen.doubt is not None
        }
        firing = journal.firing(tick.now)
        self._read_back(journal, tick, began)
        self._close_removed(journal, tick.now)
        quiet = self._read_quiet(journal, tick)
        return Situation(
            now=tick.now,
            targets=self._targets,
            seen=self._seen,
            book=journal.book,
            quiet=quiet,
            firing=frozenset(firing),
            tripped=self._tripped,
            doubtful_since=self._doubtful_since,
            clock_jumped=jumped,
        )

    def _decide(self, journal: Journal, situation: Situation) -> tuple[list[Decision], list[tuple[Remedy | None, Ask]]]:
        """Decides for every instance, one after the other, each knowing what was reserved before it."""
        decisions: list[Decision] = []
        asks: list[tuple[Remedy | None, Ask]] = []
        for name, rules in self._rules.items():
            for instance in situation.instances(name):
                state = situation.state(name, instance, self._watched(situation, name, instance))
                if state.health is Health.SICK and breaker_open(state.peers, rules.limits):
                    self._tripped[name] = state.now
                decision = decide(state, rules)
                self._write(journal, decision, state)
                decisions.append(decision)
                if decision.next in (Next.RESTART, Next.REPLACE):
                    asks.append(self._reserved(journal, decision))
        return decisions, asks

    def _watched(self, situation: Situation, target: str, instance: str) -> Watch:
        """How long it has been well, with this reading; watched only while an operation is open."""
        key = (target, instance)
        before = self._watches.pop(key, Watch())
        if situation.clock_jumped or situation.book.open_one(target, instance) is None:
            return Watch()
        self._watches[key] = watched(before, situation.health(target, instance), situation.now)
        return self._watches[key]

    def _read_quiet(self, journal: Journal, tick: Tick) -> Quiet | None:
        """None: Alertmanager does not say. It is asked only while something is wrong, and where there is one."""
        alerts = {one.alert for one in journal.book.open_operations()}
        alerts |= {alert for seen in self._seen.values() for alert in seen.sick.values()}
        if self._section.alertmanager is None or not alerts:
            return Quiet()
        try:
            url = self._section.alertmanager.rstrip("/")
            return read_quiet(url, alerts, min(tick.remaining(), QUIET_SECONDS))
        except (NeighbourError, StepError) as error:
            log.warning("silences_unknown", error=str(error))
            return None

    def _clock_jumped(self, wall: float, monotonic: float) -> bool:
        """Whether the wall clock was set lately: the journal's times are wall times, so nothing is done for a while."""
        before, self._clocks = self._clocks, (wall, monotonic)
        if before is not None:
            jump = (wall - before[0]) - (monotonic - before[1])
            if abs(jump) > CLOCK_TOLERANCE_SECONDS:
                longest = max(rules.limits.stability_seconds for rules in self._rules.values())
                self._distrusts_clock_until = monotonic + longest
                self._watches.clear()
                log.error("clock_jumped", seconds=round(jump, 1))
        return monotonic < self._distrusts_clock_until

    def _read_back(self, journal: Journal, tick: Tick, began: float) -> None:
        """Attempts whose outcome was lost, with the process or with the answer, are asked after and never repeated."""
        for operation in journal.book.open_operations():
            attempt = operation.pending
            if attempt is None:
                continue
            remedy = self._remedies.get(operation.target, {}).get(attempt.step)
            if remedy is None:
                outcome: Outcome | None = Outcome(Result.UNKNOWN, f"{attempt.step} is no longer configured")
            else:
                outcome = remedy.read_back(self._ask(operation, attempt.step, attempt.number), tick.remaining())
            if outcome is not None:
                self._ended(journal, operation, outcome, _now(tick, began))

    def _close_removed(self, journal: Journal, now: float) -> None:
        for operation in journal.book.open_operations():
            if operation.target not in self._targets:
                journal.write(
                    _entry(Kind.CLOSED, operation, now, {"reason": Reason.TARGET_REMOVED, "well_since": None})
                )
                log.warning(
                    "operation_closed", operation=operation.id, target=operation.target, reason="target_removed"
                )

    def _write(self, journal: Journal, decision: Decision, state: State) -> None:
        """What the decision means, in the journal, in an order in which each line makes sense without the next."""
        at = decision.at
        if decision.opens is not None:
            journal.write(_entry(Kind.OPENED, decision.opens, at, opened_body(decision.opens)))
        operation = journal.book.open_one(decision.target, decision.instance)
        if operation is not None and (decision.failed or decision.relapsed):
            journal.write(
                _entry(Kind.JUDGED, operation, at, {"failed": decision.failed, "relapsed": decision.relapsed})
            )
        self._write_why(journal, decision, state)
        if operation is None:
            return
        if decision.next is Next.PAGE and operation.handed_for is None:
            journal.write(_entry(Kind.HANDED, operation, at, {"reason": decision.reasons[-1]}))
        if decision.next is Next.CLOSE:
            well = state.watch.good_since if Reason.RECOVERED in decision.reasons else None
            journal.write(_entry(Kind.CLOSED, operation, at, {"reason": decision.reasons[-1], "well_since": well}))
            self._watches.pop((decision.target, decision.instance), None)

    def _write_why(self, journal: Journal, decision: Decision, state: State) -> None:
        """The decision and what it rests on, where it differs from the last one about this instance."""
        said = {
            "next": decision.next.value,
            "reasons": [reason.value for reason in decision.reasons],
            "step": decision.step.value if decision.step else None,
            "number": decision.number,
        }
        before = journal.book.decided.get((decision.target, decision.instance))
        last = (before.body or {}) if before else {"next": Next.NONE.value, "reasons": [], "step": None, "number": None}
        if said == {key: last[key] for key in said}:
            return
        peers = {"healthy": state.peers.healthy, "sick": state.peers.sick, "unknown": state.peers.unknown}
        body = {
            **said,
            "health": state.health.value,
            "alive": state.alive,
            "peers": peers,
            "until": decision.until,
            "dependency": state.dependency,
            "problem": self._seen[decision.target].problem,
        }
        operation = decision.operation or ""
        journal.write(Entry(Kind.DECIDED, decision.at, decision.target, decision.instance, operation, body))
        log.info("decided", target=decision.target, instance=decision.instance, operation=operation, **said)

    def _reserved(self, journal: Journal, decision: Decision) -> tuple[Remedy | None, Ask]:
        """Reserves the attempt; from here on it counts, whatever becomes of this process."""
        operation = journal.book.open_one(decision.target, decision.instance)
        if operation is None or decision.step is None or decision.number is None:
            raise ValueError(f"{decision.target} {decision.instance}: an attempt without its operation")
        body = {"step": decision.step.value, "number": decision.number}
        journal.write(_entry(Kind.RESERVED, operation, decision.at, body))
        ask = self._ask(operation, decision.step, decision.number)
        return self._remedies[decision.target].get(decision.step), ask

    def _ask(self, operation: Operation, step: Step, number: int) -> Ask:
        target = self._targets.get(operation.target)
        return Ask(
            operation.target,
            operation.instance,
            operation.id,
            effect_id(operation.id, step, number),
            target.workload if target else None,
        )

    def _act(self, journal: Journal, asks: list[tuple[Remedy | None, Ask]], tick: Tick, began: float) -> None:
        """Carries out what was reserved, several at a time, and writes down how each ended."""
        if not asks:
            return
        journal.check()  # a process that was stopped meanwhile and has a successor must not act on what it decided then

        def apply(remedy: Remedy | None, ask: Ask) -> Outcome | None:
            if remedy is None:
                return Outcome(Result.REFUSED, "this step is no longer configured")
            try:
                return remedy.apply(ask, tick.remaining())
            except StepError:
                return Outcome(Result.UNREACHABLE, "no time was left in this step")

        with ThreadPoolExecutor(ACTING_AT_ONCE) as pool:
            outcomes = list(pool.map(lambda pair: apply(*pair), asks))
        for (_, ask), outcome in zip(asks, outcomes, strict=True):
            if outcome is not None:
                self._ended(journal, journal.book.operations[ask.operation], outcome, _now(tick, began))
            log.info(
                "acted",
                effect=ask.effect,
                target=ask.target,
                instance=ask.instance,
                result=outcome.result.value if outcome else None,
                detail=outcome.detail if outcome else None,
            )

    @staticmethod
    def _ended(journal: Journal, operation: Operation, outcome: Outcome, at: float) -> None:
        body = {"result": outcome.result.value, "detail": outcome.detail[:500]}
        journal.write(_entry(Kind.OUTCOME, operation, at, body))

    def _tell(self, pages: Mapping[tuple[str, str, str], Page], tick: Tick) -> None:
        """Every standing page anew at each step: that is what keeps it standing at Alertmanager."""
        before = self._standing
        self._standing = {
            key: replace(page, since=before[key].since if key in before else page.since) for key, page in pages.items()
        }
        ended = [page for key, page in before.items() if key not in pages]
        outcome = tell(self._section, list(self._standing.values()), ended, tick.now, READING_SECONDS)
        delivered = outcome.result is Result.DONE
        self.published.pages(list(self._standing.values()), delivered)
        # The log comes last: on a full disk it may be what fails, and people should have heard of it by then.
        for page in (page for key, page in self._standing.items() if key not in before):
            log.warning(
                "people_are_told", alert=page.alert, target=page.target, reason=page.reason, text=page.description
            )
        undelivered = None if delivered or not self._standing else outcome.detail
        if undelivered not in (None, self._undelivered):
            log.warning("pages_undelivered", count=len(self._standing), detail=undelivered)
        self._undelivered = undelivered


def _pages(decisions: Iterable[Decision], seen: Mapping[str, Seen], now: float) -> dict[tuple[str, str, str], Page]:
    """One page for each target and reason, about all the instances that share it."""
    about: dict[tuple[str, Reason, Next], list[str]] = {}
    for decision in decisions:
        if decision.tells_people:
            named = about.setdefault((decision.target, decision.reasons[-1], decision.next), [])
            if decision.operation is not None:
                named.append(decision.instance)
    pages = []
    for (target, reason, following), instances in about.items():
        problem = seen[target].problem
        meaning = f"{MEANING[reason]} ({problem})" if problem else MEANING[reason]
        pages.append(page_of(following, reason, target, instances, meaning, now))
    return {page.key: page for page in pages}


def _entry(kind: Kind, operation: Operation, at: float, body: Mapping[str, Any]) -> Entry:
    return Entry(kind, at, operation.target, operation.instance, operation.id, body)


def _now(tick: Tick, began: float) -> float:
    """The wall time, as far as it has moved on since the step began; a clock set meanwhile does not show."""
    return tick.now + (time.monotonic() - began)
