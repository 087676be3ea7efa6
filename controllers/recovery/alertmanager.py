"""Alertmanager's API v2: what is silenced or muted now, and the alerts by which people are told."""

import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from controllers.recovery.http import NeighbourError, exchange

# How long Alertmanager keeps a page that is not repeated: longer than the loop's longest pause between two steps.
PAGE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition of a silence, with Alertmanager's meaning: an absent label is an empty one, regexes are whole."""

    name: str
    value: str
    is_regex: bool
    is_equal: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        found = labels.get(self.name, "")
        same = re.fullmatch(self.value, found) is not None if self.is_regex else found == self.value
        return same is self.is_equal


@dataclass(frozen=True, slots=True)
class Quiet:
    """What Alertmanager keeps quiet: silences in force, and the labels of alerts that are silenced or muted by time."""

    silences: tuple[tuple[Matcher, ...], ...] = ()
    alerts: tuple[Mapping[str, str], ...] = ()

    def covers(self, labels: Mapping[str, str]) -> bool:
        """Whether an alert with these labels is kept quiet: by a silence, or as one of those muted.

        A muted alert is meant where no label that both have differs; the alert's name is always among them.
        """
        return any(all(matcher.matches(labels) for matcher in silence) for silence in self.silences) or any(
            all(labels[name] == value for name, value in alert.items() if name in labels) for alert in self.alerts
        )


@dataclass(frozen=True, slots=True)
class Page:
    """People are to be told. One page a (target, reason); `instances` are those it is about now, perhaps none."""

    alert: str
    target: str
    reason: str
    summary: str
    description: str
    severity: str = "page"
    since: float = 0.0
    instances: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, str, str]:
        return self.alert, self.target, self.reason


def read_quiet(url: str, alerts: Iterable[str], seconds: float) -> Quiet:
    """The silences in force, and which of these alerts are kept quiet. Raises NeighbourError.

    An alert that only some of its routes mute is not quiet: people may have quiet hours, and recovery its own route.
    """
    until = time.monotonic() + seconds
    names = "|".join(sorted(set(alerts)))
    silences = _listed(f"{url}/api/v2/silences", seconds)
    named = quote(f'alertname=~"{names}"')
    groups = _listed(f"{url}/api/v2/alerts/groups?filter={named}", max(0.1, until - time.monotonic()))
    try:
        in_force = tuple(_matchers(silence) for silence in silences if silence["status"]["state"] == "active")
        quiet: dict[frozenset[tuple[str, str]], bool] = {}  # an alert is told once for each route it takes
        for alert in (alert for group in groups for alert in group["alerts"]):
            labels = frozenset((str(name), str(value)) for name, value in alert["labels"].items())
            status = alert["status"]
            quiet[labels] = quiet.get(labels, True) and bool(status["silencedBy"] or status.get("mutedBy"))
    except (KeyError, TypeError, AttributeError, re.error) as error:
        raise NeighbourError(f"{url}: an answer that cannot be read ({error!r})", may_have_arrived=True) from None
    return Quiet(in_force, tuple(dict(labels) for labels, is_quiet in quiet.items() if is_quiet))


def _matchers(silence: Mapping[str, Any]) -> tuple[Matcher, ...]:
    """Raises KeyError, TypeError, re.error for one that cannot be read: it may be about anything."""
    found = tuple(
        Matcher(m["name"], m["value"], bool(m["isRegex"]), bool(m.get("isEqual", True))) for m in silence["matchers"]
    )
    for matcher in found:
        if matcher.is_regex:
            re.compile(matcher.value)
    return found


def post_pages(url: str, firing: Iterable[Page], ended: Iterable[Page], now: float, seconds: float) -> None:
    """Tells Alertmanager which pages stand and which have ended; the same page again only prolongs it.

    Raises NeighbourError.
    """
    alerts = [_alert(page, now + PAGE_SECONDS) for page in firing] + [_alert(page, now) for page in ended]
    if not alerts:
        return
    reply = exchange("POST", f"{url}/api/v2/alerts", seconds, alerts)
    if reply.status != 200:
        raise NeighbourError(f"{url}: HTTP {reply.status} ({reply.body})", may_have_arrived=True)


def _alert(page: Page, ends_at: float) -> dict[str, Any]:
    return {
        # the labels of the rule of the same name in recovery-alerts.yml: told twice, people hear of it once
        "labels": {
            "alertname": page.alert,
            "severity": page.severity,
            "target": page.target,
            "reason": page.reason,
        },
        "annotations": {
            "summary": page.summary,
            "description": page.description,
            "runbook_url": f"docs/runbooks/{page.alert}.md",
        },
        "startsAt": _rfc3339(min(page.since, ends_at)),
        "endsAt": _rfc3339(ends_at),
    }


def _listed(url: str, seconds: float) -> list[dict[str, Any]]:
    reply = exchange("GET", url, seconds)
    if reply.status != 200 or not isinstance(reply.body, list):
        raise NeighbourError(f"{url}: HTTP {reply.status} ({str(reply.body)[:200]})", may_have_arrived=True)
    return [row for row in reply.body if isinstance(row, dict)]


def _rfc3339(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
