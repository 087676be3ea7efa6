"""Looks at a live run once a second: keeps what runs running, breaks what is to break, shows what Prometheus says."""

import json
import math
import time
from typing import Any

from demo import prom, settings, view
from demo.crew import Crew, Ground, Live
from demo.failures import JournalNews
from demo.reading import reading

DRAIN_SECONDS = 60.0  # at the end, for what still waits
LOOK_SECONDS = 1.0
PAST_SECONDS = 15.0  # between two readings of the last hour
JOURNAL_SECONDS = 2.0


def watch(crew: Crew, ground: Ground, live: Live) -> None:
    """The live part until its end or the first Ctrl-C; then, if it ended, until the workers have done what waits."""
    show = Show(crew, ground, live)
    crew.screen.begin()
    while time.time() < live.end and not crew.interrupts.wait(LOOK_SECONDS):
        show.look()
    until = time.monotonic() + DRAIN_SECONDS
    while time.monotonic() < until and not crew.interrupts.wait(LOOK_SECONDS):
        show.look()
        if live.results.left() == 0:
            break


class Show:
    """Looks at everything once a second, gathers results, and shows what Prometheus says."""

    def __init__(self, crew: Crew, ground: Ground, live: Live) -> None:
        self.crew = crew
        self.ground = ground
        self.live = live
        self._past: list[tuple[float, float]] = []
        self._past_at = -math.inf
        self._notified = 0
        self._pids: dict[str, int] = {}
        self._journal = JournalNews(crew.chosen.folder / "recovery.db")
        self._journal_at = -math.inf

    def look(self) -> None:
        now, say = time.time(), self.crew.screen.say
        if now >= self.live.end:
            self.crew.stage.expect_end("load")
        self.crew.stage.watch()
        if (pids := self.crew.stage.pids) != self._pids:  # for whoever wants to kill one and see what happens
            (self.crew.chosen.folder / "processes.json").write_text(json.dumps(pids, indent=2), encoding="utf-8")
            self._pids = pids
        self.live.results.collect()
        if now < self.live.end:
            for sentence in self.live.mishaps.look(now):
                say(sentence)
        if now - self._journal_at >= JOURNAL_SECONDS:
            self._journal_at = now
            for sentence in self._journal.look():
                say(sentence)
        notifications = self.ground.receiver.notifications
        for notification in notifications[self._notified :]:
            say(notification_text(notification))
            self._notified += 1
        self._show(now)

    def _show(self, now: float) -> None:
        url, chosen = self.ground.addresses.prometheus_url, self.crew.chosen
        try:
            read = reading(prom.instant(url, prom.SHOWN))
            if now - self._past_at >= PAST_SECONDS:
                self._past, self._past_at = read_past(url, now), now
        except prom.PrometheusError:
            read = None
        clock = view.Clock(
            now=now - self.live.start,
            end=chosen.live_seconds,
            rise=chosen.seconds_before_rise,
            burst=chosen.burst_offset_seconds,
            budget=chosen.budget,
        )
        self.crew.screen.show(read, self._past, clock)


def read_past(url: str, now: float) -> list[tuple[float, float]]:
    """Demand of the last hour as (Unix time, jobs per second). Raises PrometheusError."""
    query = f'workload:demand:rate1m{{workload="{settings.WORKLOAD}"}}'
    found = prom.span(url, query, now - 3600.0, now, 60.0)
    return list(zip(found[0].times, found[0].values, strict=True)) if found else []


def notification_text(notification: dict[str, Any]) -> str:
    word = "NOTIFICATION" if notification["status"] == "firing" else "Resolved"
    return f"{word}: {notification['alertname']}: {notification['summary'] or notification['labels']}"
