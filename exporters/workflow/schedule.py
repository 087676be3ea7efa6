"""How long a workflow may be silent, by its schedule triggers: pure reading of the nodes that n8n stores.

Of several schedules the shortest counts: together they fire at least that often. What cannot be told for sure (an
expression that n8n evaluates, a rule of a kind not known here) gives None for the whole workflow.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta
from functools import lru_cache
from itertools import pairwise
from typing import Any

MINUTE, HOUR, DAY, WEEK = 60.0, 3600.0, 86_400.0, 604_800.0
TYPES = ("n8n-nodes-base.scheduleTrigger", "n8n-nodes-base.cron", "n8n-nodes-base.interval")
_YEARS = 5  # of days that a cron expression is tried on
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


class _UnclearError(Exception):
    """The rule's meaning is not known here."""


def expected_seconds(nodes: str | Sequence[Any]) -> float | None:
    """The longest time between two runs by schedule, of a workflow's `nodes` (JSON text or parsed)."""
    try:
        parsed = json.loads(nodes) if isinstance(nodes, str) else nodes
    except (ValueError, RecursionError):
        return None
    if not isinstance(parsed, Sequence):
        return None
    try:
        return min((gap for node in parsed if isinstance(node, Mapping) for gap in _gaps(node)), default=None)
    except (_UnclearError, ValueError, TypeError, AttributeError, LookupError):
        return None


def _gaps(node: Mapping[str, Any]) -> Iterator[float]:
    if node.get("disabled") or node.get("type") not in TYPES:
        return
    parameters = node.get("parameters") or {}
    if node["type"].endswith("scheduleTrigger"):
        for rule in (parameters.get("rule") or {}).get("interval") or [{}]:
            yield _of_rule(rule)
    elif node["type"].endswith("cron"):
        for item in (parameters.get("triggerTimes") or {}).get("item") or []:
            yield _of_item(item)
    else:
        unit = {"seconds": 1.0, "minutes": MINUTE, "hours": HOUR}[parameters.get("unit", "seconds")]
        yield _number(parameters.get("interval", 1)) * unit


def _of_rule(rule: Mapping[str, Any]) -> float:
    """One rule of a schedule trigger; what stands at its default is left out of the JSON."""
    match rule.get("field", "days"):
        case "seconds":
            return _number(rule.get("secondsInterval", 30))
        case "minutes":
            return _number(rule.get("minutesInterval", 5)) * MINUTE
        case "hours":
            return _number(rule.get("hoursInterval", 1)) * HOUR
        case "days":
            return _number(rule.get("daysInterval", 1)) * DAY
        case "weeks":
            days = sorted({int(_number(day, least=0)) % 7 for day in rule.get("triggerAtDay", [0])}) or [0]
            inside = max(later - earlier for earlier, later in zip(days, [*days[1:], days[0] + 7], strict=True))
            return (_number(rule.get("weeksInterval", 1)) - 1) * WEEK + inside * DAY
        case "months":
            return _number(rule.get("monthsInterval", 1)) * 31 * DAY
        case "cronExpression":
            return cron_seconds(rule["expression"])
        case _:
            raise _UnclearError


def _of_item(item: Mapping[str, Any]) -> float:
    """One item of the older Cron node."""
    match item.get("mode", "everyDay"):
        case "everyMinute":
            return MINUTE
        case "everyHour":
            return HOUR
        case "everyX":
            unit = {"minutes": MINUTE, "hours": HOUR}[item.get("unit", "hours")]
            return _number(item.get("value", 2)) * unit
        case "everyDay":
            return DAY
        case "everyWeek":
            return cron_seconds(f"0 0 * * {item.get('weekday', '1')}")
        case "everyMonth":
            return cron_seconds(f"0 0 {item.get('dayOfMonth', 1)} * *")
        case "custom":
            return cron_seconds(item["cronExpression"])
        case _:
            raise _UnclearError


def _number(value: object, least: float = 1e-3) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= 1e6:
        raise _UnclearError  # text is an expression of n8n's
    return float(value)


@lru_cache(maxsize=256)  # it takes milliseconds, and an n8n has the same few many times
def cron_seconds(expression: str) -> float:
    """The longest gap between two times of a cron expression of five fields, or six with seconds first.

    Days are taken to have 24 hours. Raises ValueError for what is no such expression or never comes.
    """
    fields = expression.lower().split()
    if len(fields) == 5:
        fields = ["0", *fields]
    if len(fields) != 6:
        raise ValueError("not five or six fields")
    seconds, minutes, hours = _set(fields[0], 0, 59), _set(fields[1], 0, 59), _set(fields[2], 0, 23)
    days, months = _set(fields[3], 1, 31), _set(fields[4], 1, 12, _MONTHS)
    weekdays = {day % 7 for day in _set(fields[5], 0, 7, _DAYS)}
    either = fields[3][0] not in "*?" and fields[5][0] not in "*?"  # cron: one of the two is enough then
    times = sorted(3600 * hour + 60 * minute + second for hour in hours for minute in minutes for second in seconds)
    matching: list[int] = []
    first = date(2023, 1, 1)
    for offset in range(_YEARS * 365):
        day = first + timedelta(days=offset)
        fits = (day.day in days, day.isoweekday() % 7 in weekdays)
        if day.month in months and (any(fits) if either else all(fits)):
            matching.append(offset)
    if len(matching) < 2:
        raise ValueError("comes too seldom to be told")
    inside = max((later - earlier for earlier, later in pairwise(times)), default=0)
    between = max(later - earlier for earlier, later in pairwise(matching))
    return float(max(inside, between * DAY + times[0] - times[-1]))


def _set(field: str, least: int, most: int, names: Sequence[str] = ()) -> set[int]:
    found: set[int] = set()
    for part in field.split(","):
        body, slash, step_text = part.partition("/")
        step = int(step_text) if slash else 1
        if step < 1:
            raise ValueError("a step is at least 1")
        low, dash, high = body.partition("-")
        if low in ("*", "?"):
            start, end = least, most
        else:
            start = _value(low, least, names)
            end = _value(high, least, names) if dash else (most if slash else start)
        if not least <= start <= end <= most:
            raise ValueError("out of range")
        found.update(range(start, end + 1, step))
    return found


def _value(text: str, least: int, names: Sequence[str]) -> int:
    return names.index(text[:3]) + least if text[:3] in names else int(text)
