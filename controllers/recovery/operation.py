"""The words of recovery as values: steps, results, reasons, operations. Free of clients, clocks and environment.

An operation is one attempt to mend one instance: opened when its symptom is confirmed, closed when the symptom has
stayed away for the stability window. Times are Unix seconds; `None` is unknown.
"""

from dataclasses import dataclass
from enum import StrEnum

HOUR_SECONDS = 3600.0


class Step(StrEnum):
    """A rung of the ladder: the name of a remedy."""

    RESTART = "restart"
    REPLACE = "replace"
    PAGE = "page"


DESTRUCTIVE = frozenset({Step.REPLACE})  # proposed only, until promoted by themselves


class Result(StrEnum):
    """How carrying out a step ended. None of them says that it helped: only the symptom does."""

    DONE = "done"  # the program exited 0; the scaler acknowledged
    FAILED = "failed"  # it ran and said no
    REFUSED = "refused"  # the other side will not do it, now or later
    UNREACHABLE = "unreachable"  # it surely never arrived
    UNKNOWN = "unknown"  # it may or may not have had its effect


class Health(StrEnum):
    """What this reading says about one instance."""

    HEALTHY = "healthy"  # no symptom, and shown to be there
    SICK = "sick"
    MISSING = "missing"  # Prometheus answered, and it is neither sick nor shown healthy
    GONE = "gone"  # no longer one of the target's instances
    UNKNOWN = "unknown"  # Prometheus did not answer, or in part


class Next(StrEnum):
    """What a decision comes to."""

    NONE = "none"
    RESTART = "restart"
    REPLACE = "replace"
    PAGE = "page"  # the ladder ends here: people take over
    SUGGEST = "suggest"  # people are told what would be done
    VERIFY = "verify"
    WAIT = "wait"  # act on nothing for a reason that passes by itself
    FREEZE = "freeze"  # act on nothing, and tell people
    CLOSE = "close"


class Reason(StrEnum):
    """Why: a closed vocabulary (journal, log field, metric label, answer of `tidewise recovery why`)."""

    # what an action rests on
    PEERS_FINE = "peers_fine"
    LIVENESS_FAILS = "liveness_fails"
    # verification
    VERIFYING = "verifying"
    STABILIZING = "stabilizing"
    RECOVERED = "recovered"
    SYMPTOM_REMAINS = "symptom_remains"
    RELAPSED = "relapsed"
    INCONCLUSIVE = "inconclusive"
    # something is not known
    HEALTH_UNKNOWN = "health_unknown"
    NO_INSTANCES = "no_instances"
    OUTCOME_UNKNOWN = "outcome_unknown"
    SILENCES_UNKNOWN = "silences_unknown"
    CLOCK_JUMPED = "clock_jumped"
    # held back
    SILENCED = "silenced"
    DEPENDENCY_DOWN = "dependency_down"
    NO_EVIDENCE = "no_evidence"
    BREAKER = "breaker"
    COOLDOWN = "cooldown"
    GROUP_LIMIT = "group_limit"
    DOMAIN_LIMIT = "domain_limit"
    REPLACEMENT_LIMIT = "replacement_limit"
    BACK_OFF = "back_off"
    # people take over
    LADDER_END = "ladder_end"
    FLAPPING = "flapping"
    INSTANCE_GONE = "instance_gone"
    TARGET_REMOVED = "target_removed"
    JOURNAL_BROKEN = "journal_broken"
    # how far it may go
    SHADOW = "shadow"
    RECOMMEND = "recommend"


@dataclass(frozen=True, slots=True)
class Limits:
    """How often, how fast and how much at once. An open operation keeps the limits it was opened with."""

    verify_seconds: float = 60.0  # how long a symptom may outlast a remedy before that counts as failed
    replace_seconds: float = 900.0  # the same for a replacement, which has to start first
    stability_seconds: float = 120.0  # how long it must stay away (and at least three readings)
    attempts_per_step: int = 3
    back_off_seconds: float = 10.0
    back_off_max_seconds: float = 600.0
    group_ratio: float = 0.2  # of a target's known instances in action at once, but at least one
    per_domain: int = 2  # in action at once in one failure domain
    replacements_per_hour: int = 2
    recurrences_per_hour: int = 3  # as many are flapping
    breaker_ratio: float = 0.5  # more sick than that: no single instance's fault


@dataclass(frozen=True, slots=True)
class Attempt:
    """One reserved attempt. `ended_at` and `result` are None until its outcome is known."""

    step: Step
    number: int  # within its step, from 1
    reserved_at: float
    result: Result | None = None
    ended_at: float | None = None
    detail: str = ""
    failed: Reason | None = None  # its verification failed, and how

    @property
    def last_at(self) -> float:
        return self.reserved_at if self.ended_at is None else self.ended_at


@dataclass(frozen=True, slots=True)
class Operation:
    """`handed_for`: why people took over; recovery then only watches. `closed_for`: None while it is open."""

    id: str
    target: str
    instance: str
    symptom: str
    alert: str
    opened_at: float
    ladder: tuple[Step, ...]
    limits: Limits
    attempts: tuple[Attempt, ...] = ()
    relapses: tuple[float, ...] = ()
    handed_for: Reason | None = None
    handed_at: float | None = None
    closed_for: Reason | None = None
    closed_at: float | None = None
    well_since: float | None = None  # when it closed as recovered: from when on the symptom was away

    @property
    def is_open(self) -> bool:
        return self.closed_for is None

    @property
    def in_action(self) -> bool:
        """Whether a remedy was tried and recovery still works on it."""
        return self.is_open and self.handed_for is None and bool(self.attempts)

    @property
    def pending(self) -> Attempt | None:
        """The attempt that was reserved and whose outcome is not known."""
        last = self.attempts[-1] if self.attempts else None
        return last if last is not None and last.result is None else None


def effect_id(operation: str, step: Step, number: int) -> str:
    """What an attempt is called towards others, so that they can tell a repetition from a new request."""
    return f"{operation}/{step.value}/{number}"
