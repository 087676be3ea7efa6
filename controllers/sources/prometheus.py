"""Reads Prometheus: instant and range questions, and the contract's series for all workloads at once.

Unknown is never 0: an empty answer stays empty, NaN and infinities are refused, two series where one belongs are an
error. A contract series whose rule does not exist, or has not existed for long enough, is read by evaluating the
rule's expression; `Reading.origin` says so.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

import requests
from prometheus_api_client import PrometheusConnect
from urllib3.util.retry import Retry

from controllers import config
from controllers.domain import Sample
from controllers.sources.answer import Answer, DuplicateSeries, Kind, Row, Series, SourceError, answer, rows
from controllers.sources.transport import Reply, Transport

__all__ = ["Answer", "DuplicateSeries", "Kind", "Origin", "Reading", "Row", "Sample", "Series", "Source", "SourceError"]

MAX_POINTS = 10_000  # a request; Prometheus refuses more than 11,000 a series
FALLBACKS_PER_QUERY = 50
MAX_ROWS = 200_000  # of one contract series: a few thousand workloads with all their horizons and quantiles

# The value and the time it was measured come in one answer: an instant answer alone only tells the time of the
# question, and a rule that stopped five minutes ago would look fresh.
_WITH_TIME = (
    'label_replace({name}, "reading", "value", "", "") or label_replace(timestamp({name}), "reading", "time", "", "")'
)


class Origin(StrEnum):
    RULE = "rule"
    EXPRESSION = "expression"


@dataclass(frozen=True, slots=True)
class Reading:
    """One contract series of all workloads. A workload that is in none of the maps is unknown.

    `series`: by workload; several where the contract has further labels (horizon_seconds, quantile).
    `origin`: by workload; `expression` if any of it came from the fallback.
    `errors`: by workload; what went wrong with that workload alone (its own PromQL, say).
    """

    record: str
    series: Mapping[str, tuple[Series, ...]] = field(default_factory=dict)
    origin: Mapping[str, Origin] = field(default_factory=dict)
    errors: Mapping[str, SourceError] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    refused: int = 0

    def one(self, workload: str) -> Series | None:
        """The workload's only series; None is unknown. Raises SourceError, DuplicateSeries."""
        if workload in self.errors:
            raise self.errors[workload]
        found = self.series.get(workload, ())
        if len(found) > 1:
            shown = " and ".join(str(dict(series.labels)) for series in found[:2])
            raise DuplicateSeries(f"{self.record} has {len(found)} series of {workload}: {shown}")
        return found[0] if found else None

    def sample(self, workload: str) -> Sample | None:
        """The workload's newest sample; None is unknown. Raises SourceError, DuplicateSeries."""
        series = self.one(workload)
        return series.samples[-1] if series else None

    def samples(self, workload: str) -> tuple[Sample, ...]:
        """The workload's samples, ascending; () is unknown. Raises SourceError, DuplicateSeries."""
        series = self.one(workload)
        return series.samples if series else ()


class Source:
    """One Prometheus (or Mimir, Thanos, VictoriaMetrics). Every call raises SourceError where nothing was learned.

    `deadline_seconds` limits a whole call, however many requests it takes; None means the configured timeout, which
    also limits each request. Proxy and credential settings of the environment are not used.
    """

    def __init__(self, settings: config.Prometheus) -> None:
        self._settings = settings
        session = requests.Session()
        session.trust_env = False  # else ~/.netrc would replace the configured credentials
        tls = settings.tls
        session.verify = not tls.insecure_skip_verify and (str(tls.ca_file) if tls.ca_file else True)
        if tls.cert_file:
            session.cert = (str(tls.cert_file), str(tls.key_file)) if tls.key_file else str(tls.cert_file)
        # The loop backs off; a client that also retries would do so within the same deadline.
        self._client = PrometheusConnect(
            url=settings.url.rstrip("/"), session=session, retry=Retry(total=0, respect_retry_after_header=False)
        )
        self._transport = Transport(session)

    @property
    def url(self) -> str:
        return str(self._client.url)

    def instant(self, expr: str, at: float | None = None, deadline_seconds: float | None = None) -> Answer:
        """The expression's value at `at` (Unix seconds; None: the server's now). A scalar is one series without labels.

        A sample's time is when it was evaluated, not when it was measured; `contract_at` tells the latter.
        """
        form = {"query": expr} if at is None else {"query": expr, "time": f"{at:.3f}"}
        return self._ask("query", form, _Deadline(self._seconds(deadline_seconds)))

    def range(
        self, expr: str, start: float, end: float, step_seconds: float, deadline_seconds: float | None = None
    ) -> Answer:
        """The expression at start, start + step, ... up to end inclusive, in as many requests as that takes."""
        return self._range(expr, start, end, step_seconds, _Deadline(self._seconds(deadline_seconds)))

    def by_workload(
        self, expr: str, at: float | None = None, deadline_seconds: float | None = None
    ) -> dict[str, Sample]:
        """One sample a workload. Raises DuplicateSeries if a workload has two, SourceError(partial) on warnings."""
        answered = self.instant(expr, at, deadline_seconds).complete()
        reading = Reading(expr, _by_workload(answered))
        return {workload: sample for workload in reading.series if (sample := reading.sample(workload))}

    def contract_at(
        self,
        names: Sequence[str],
        fallbacks: Mapping[str, Mapping[str, str]],
        at: float | None = None,
        deadline_seconds: float | None = None,
    ) -> dict[str, Reading]:
        """The newest sample of each contract series, with the time it was measured: one query a series.

        `fallbacks`: record -> workload -> expression (`controllers.rules.expressions`); evaluated for the workloads
        named there that the rule lacks. Keys of the result are `names`.
        """
        deadline = _Deadline(self._seconds(deadline_seconds))
        form = {} if at is None else {"time": f"{at:.3f}"}

        def evaluate(expr: str) -> Answer:
            return self._ask("query", {"query": expr, **form}, deadline)

        readings: dict[str, Reading] = {}
        for name in names:
            answered = evaluate(_WITH_TIME.format(name=name))
            found = _by_workload(_timed(answered))
            missing = {w: expr for w, expr in fallbacks.get(name, {}).items() if w not in found}
            rest = _fall_back(missing, evaluate)
            readings[name] = Reading(
                name,
                series={**found, **rest.series},
                origin={**dict.fromkeys(found, Origin.RULE), **dict.fromkeys(rest.series, Origin.EXPRESSION)},
                errors=rest.errors,
                warnings=answered.warnings + rest.warnings,
                refused=answered.refused + rest.refused,
            )
        return readings

    def rows_at(self, names: Sequence[str], at: float, deadline_seconds: float | None = None) -> dict[str, list[Row]]:
        """The newest values of contract series that need no time of measurement and have no fallback, as plain rows.

        Those without the label `workload` are left out. Raises SourceError, and SourceError(partial) on warnings.
        """
        deadline = _Deadline(self._seconds(deadline_seconds))
        found = {}
        for name in names:
            reply = self._post("query", {"query": name, "time": f"{at:.3f}"}, deadline)
            read = rows(reply.status, reply.headers, reply.body, time.time(), MAX_ROWS)
            found[name] = [row for row in read if row[0].get("workload")]
        return found

    def contract_range(
        self,
        names: Sequence[str],
        fallbacks: Mapping[str, Mapping[str, str]],
        start: float,
        end: float,
        step_seconds: float,
        deadline_seconds: float | None = None,
    ) -> dict[str, Reading]:
        """Each contract series over [start, end]; what lies before a rule's first sample comes from its expression."""
        deadline = _Deadline(self._seconds(deadline_seconds))
        return {
            name: self._contract_range(name, fallbacks.get(name, {}), start, end, step_seconds, deadline)
            for name in names
        }

    def _contract_range(
        self,
        name: str,
        fallbacks: Mapping[str, str],
        start: float,
        end: float,
        step_seconds: float,
        deadline: "_Deadline",
    ) -> Reading:
        answered = self._range(name, start, end, step_seconds, deadline)
        found = _by_workload(answered)
        # Workloads whose rule began at the same step share one question.
        young: dict[float, dict[str, str]] = {}
        for workload, expr in fallbacks.items():
            first = min((s.samples[0].at for s in found.get(workload, ())), default=end + step_seconds)
            if first - step_seconds >= start:
                young.setdefault(first - step_seconds, {})[workload] = expr
        series = dict(found)
        origin = dict.fromkeys(found, Origin.RULE)
        errors: dict[str, SourceError] = {}
        warnings, refused = answered.warnings, answered.refused
        for until, missing in young.items():
            rest = _fall_back(missing, partial(self._before, start, until, step_seconds, deadline))
            for workload, before in rest.series.items():
                series[workload] = _joined([*before, *found.get(workload, ())])
                origin[workload] = Origin.EXPRESSION
            # Half a history is no error: the rule's own part is there.
            errors.update({w: error for w, error in rest.errors.items() if w not in found})
            warnings, refused = warnings + rest.warnings, refused + rest.refused
        return Reading(name, series, origin, errors, warnings, refused)

    def _before(self, start: float, until: float, step_seconds: float, deadline: "_Deadline", expr: str) -> Answer:
        return self._range(expr, start, until, step_seconds, deadline)

    def _range(self, expr: str, start: float, end: float, step_seconds: float, deadline: "_Deadline") -> Answer:
        # Whole milliseconds, Prometheus's own grain, so that the chunks' steps fall on one grid.
        step, first, last = round(step_seconds * 1000), round(start * 1000), round(end * 1000)
        if step <= 0 or last < first:
            raise ValueError(f"a range needs start <= end and a step >= 1 ms, found {start} to {end} by {step_seconds}")
        whole = Answer()
        for begin in range(first, last + 1, step * MAX_POINTS):
            until = min(last, begin + step * (MAX_POINTS - 1))
            form = {"query": expr, "start": _text(begin), "end": _text(until), "step": _text(step)}
            part = self._ask("query_range", form, deadline)
            whole = Answer(
                [*whole, *part],
                warnings=tuple(dict.fromkeys(whole.warnings + part.warnings)),
                refused=whole.refused + part.refused,
            )
        return Answer(_joined(whole), whole.warnings, whole.refused)

    def _ask(self, path: str, form: Mapping[str, str], deadline: "_Deadline") -> Answer:
        reply = self._post(path, form, deadline)
        return answer(reply.status, reply.headers, reply.body, time.time())

    def _post(self, path: str, form: Mapping[str, str], deadline: "_Deadline") -> Reply:
        seconds = min(deadline.left(), self._settings.timeout_seconds)
        # The server gives up when we do.
        return self._transport.post(
            f"{self.url}/api/v1/{path}", {**form, "timeout": f"{seconds:.3f}"}, self._headers(), seconds
        )

    def _headers(self) -> dict[str, str]:
        settings = self._settings
        headers = {"Accept": "application/json", **settings.headers}
        if settings.tenant is not None:
            headers["X-Scope-OrgID"] = settings.tenant
        if settings.bearer_file is not None:
            try:
                token = settings.bearer_file.read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                raise SourceError(Kind.UNAUTHORIZED, f"prometheus.bearer_file cannot be read: {error}") from None
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _seconds(self, deadline_seconds: float | None) -> float:
        return self._settings.timeout_seconds if deadline_seconds is None else deadline_seconds


class _Deadline:
    """Time left of one call, on the monotonic clock."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._end = time.monotonic() + seconds

    def left(self) -> float:
        left = self._end - time.monotonic()
        if left <= 0:
            raise SourceError(Kind.TIMEOUT, f"the deadline of {self._seconds:.1f} s is used up")
        return left


def _by_workload(answered: Iterable[Series]) -> dict[str, tuple[Series, ...]]:
    """Series without the label belong to nobody here."""
    found: dict[str, tuple[Series, ...]] = {}
    for series in answered:
        workload = series.labels.get("workload")
        if workload:
            found[workload] = (*found.get(workload, ()), series)
    return found


def _timed(answered: Answer) -> list[Series]:
    """Puts the two halves of `_WITH_TIME` together; a value without its time is unknown."""
    times: dict[frozenset[tuple[str, str]], float] = {}
    values: list[tuple[dict[str, str], float]] = []
    for series in answered:
        labels = {name: value for name, value in series.labels.items() if name not in ("reading", "__name__")}
        if series.labels.get("reading") == "time":
            times[frozenset(labels.items())] = series.samples[-1].value
        else:
            values.append((labels, series.samples[-1].value))
    return [
        Series(labels, (Sample(value, at),))
        for labels, value in values
        if (at := times.get(frozenset(labels.items()))) is not None
    ]


def _fall_back(missing: Mapping[str, str], evaluate: Callable[[str], Answer]) -> Reading:
    """The expressions of many workloads in one question; where that fails on one of them, each alone."""
    series: dict[str, tuple[Series, ...]] = {}
    errors: dict[str, SourceError] = {}
    warnings: tuple[str, ...] = ()
    refused = 0
    names = sorted(missing)
    groups = [names[begin : begin + FALLBACKS_PER_QUERY] for begin in range(0, len(names), FALLBACKS_PER_QUERY)]
    while groups:
        group = groups.pop()
        try:
            answered = evaluate(" or ".join(f"({missing[workload]})" for workload in group))
        except SourceError as error:
            if error.kind not in (Kind.BAD_QUERY, Kind.DUPLICATE):
                raise
            if len(group) == 1:
                errors[group[0]] = error
            else:
                groups += [[workload] for workload in group]
            continue
        series |= _by_workload(answered)
        warnings, refused = warnings + answered.warnings, refused + answered.refused
    return Reading("", series, {}, errors, warnings, refused)


def _joined(parts: Iterable[Series]) -> tuple[Series, ...]:
    """Parts of the same series, in the order of time, as one; the metric's own name does not tell series apart."""
    whole: dict[frozenset[tuple[str, str]], Series] = {}
    for part in parts:
        key = frozenset(item for item in part.labels.items() if item[0] != "__name__")
        before = whole.get(key)
        if before is None:
            whole[key] = part
        elif part.samples[0].at <= before.samples[-1].at:
            raise DuplicateSeries(f"two parts of {dict(part.labels)} overlap at {part.samples[0].at}")
        else:
            whole[key] = Series(before.labels, before.samples + part.samples)
    return tuple(whole.values())


def _text(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.3f}"
