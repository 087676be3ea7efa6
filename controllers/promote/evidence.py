"""What acting on the decisions of a workload would have come to, beside what ran: from its decision records.

An estimate: in shadow each decision starts from the replicas that somebody else has set. A replica that was asked for
counts as ready after the lead time.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from controllers.config import Money
from controllers.scale.records import Record


@dataclass(frozen=True, slots=True)
class Side:
    """What ran, or what would have: replica-hours, seconds in which fewer were ready than needed, changes."""

    replica_hours: float
    short_seconds: float
    changes: int

    def cost(self, per_hour: Money) -> Decimal:
        """An estimate, so the hours may be a float."""
        return per_hour.amount * Decimal(repr(round(self.replica_hours, 3)))


@dataclass(frozen=True, slots=True)
class Evidence:
    """Within [since, until] (Unix seconds). `unknown_seconds`: without a decision, or without knowing the target."""

    since: float
    until: float
    unknown_seconds: float
    ran: Side
    act: Side

    @property
    def known_seconds(self) -> float:
        return self.until - self.since - self.unknown_seconds


@dataclass(frozen=True, slots=True)
class _Span:
    begin: float
    end: float
    needed: int
    ready: int
    wanted: int
    desired: int
    lead_seconds: float


def evidence(records: Sequence[Record], until: float, longest_seconds: float) -> Evidence | None:
    """None without two records. `records`: of one workload, oldest first; each holds until the next.

    A record is believed for at most `longest_seconds`: where the next is later, the scaler did not run.
    """
    if len(records) < 2:
        return None
    spans: list[_Span] = []
    ends = [*(record.decision.at for record in records[1:]), until]
    for record, end in zip(records, ends, strict=True):
        decision = record.decision
        needed = decision.desired if decision.recommended is None else decision.recommended
        if needed is None or decision.desired is None or decision.current is None or decision.ready is None:
            continue
        lead = decision.lead_seconds if decision.lead_seconds is not None else record.rules.lead_time_seconds
        believed = min(end, decision.at + longest_seconds)
        if believed > decision.at:
            spans.append(_Span(decision.at, believed, needed, decision.ready, decision.current, decision.desired, lead))
    since, last = records[0].decision.at, max(until, records[-1].decision.at)
    unknown = (last - since) - sum(span.end - span.begin for span in spans)
    ran = Side(
        sum(span.wanted * (span.end - span.begin) for span in spans) / 3600,
        sum(span.end - span.begin for span in spans if span.ready < span.needed),
        _changes([span.wanted for span in spans]),
    )
    act = Side(
        sum(span.desired * (span.end - span.begin) for span in spans) / 3600,
        sum(_short(spans, place) for place in range(len(spans))),
        _changes([span.desired for span in spans]),
    )
    return Evidence(since, last, max(0.0, unknown), ran, act)


def _short(spans: Sequence[_Span], place: int) -> float:
    """Seconds of the span in which too few would have been ready: those asked for a lead time before, or since."""
    span = spans[place]
    if span.desired < span.needed:
        return span.end - span.begin
    late = span.begin
    for before in reversed(spans[:place]):
        if before.end + span.lead_seconds <= span.begin:
            break
        if before.desired < span.needed:
            late = max(late, before.end + span.lead_seconds)
            break
    return min(late, span.end) - span.begin


def _changes(numbers: Sequence[int]) -> int:
    return sum(a != b for a, b in itertools.pairwise(numbers))
