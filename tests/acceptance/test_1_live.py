"""System state is seen live: each component in Prometheus all the time, and what happens to it within a few scrapes.

From the run of the demo that all tests share: what happened is what those who did it wrote down; what was seen is what
Prometheus had while it ran.
"""

from collections.abc import Callable, Mapping

import pytest

from demo import settings
from demo.recording import Recording, Series
from tests.live_demo import LiveDemo, is_here

pytestmark = [pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(500)]

# A series that each component is known by, as the dashboards ask for it.
COMPONENTS = {
    "queue": "queue:messages:sum",
    "workers": "fleet_worker_up",
    "exporter": "tidewise_exporter_collector_success",
    "demand": "workload:demand:rate1m",
    "forecast": "workload:forecast_demand:value",
    "scaler": "workload:replicas:desired",
    "ledger": "tidewise_budget_posted",
    "recovery": "target:recovery_instances:sum",
}
FIRST_SECONDS = 30.0  # until everything has been scraped and ruled once
SCRAPES = 4  # within so many a change is seen: its scrape, the rule over it, one of each that came late
SEEN_SECONDS = SCRAPES * settings.SCRAPE_SECONDS


def test_every_component_is_seen_all_the_time(recording: Recording, seen: Callable[[int, str], None]) -> None:
    looks = [
        recording.live_start + FIRST_SECONDS + n * settings.SCRAPE_SECONDS
        for n in range(int((recording.live_end - recording.live_start - FIRST_SECONDS) // settings.SCRAPE_SECONDS))
    ]
    assert len(looks) > 10
    unseen = {
        component: [round(at - recording.live_start) for at in looks if not _seen_at(recording.named(name), at)]
        for component, name in COMPONENTS.items()
    }
    assert not any(unseen.values()), {component: at for component, at in unseen.items() if at}
    seen(1, f"{len(COMPONENTS)} components in Prometheus at each of {len(looks)} looks ({', '.join(COMPONENTS)})")


def test_every_dashboard_has_answers(live_demo: LiveDemo, seen: Callable[[int, str], None]) -> None:
    """Which query may be silent, and why, is for tests/grafana/test_live.py to say; a demo has no card and no n8n."""
    asked = list(filter(is_here, live_demo.answers))
    answered = [query for query in asked if live_demo.answers[query].series]
    assert {query.dashboard for query in answered} == {query.dashboard for query in live_demo.answers}
    assert len(answered) > 0.8 * len(asked)
    dashboards = len({query.dashboard for query in answered})
    seen(1, f"{len(answered)} of {len(asked)} queries of {dashboards} dashboards had series")


def test_what_happens_is_seen_within_a_few_scrapes(recording: Recording, seen: Callable[[int, str], None]) -> None:
    after: dict[str, float] = {}

    killed = next(failure for failure in recording.failures if failure.what == "killed")
    ups = recording.named("fleet_worker_up", worker=killed.worker)
    after["a killed worker"] = _first(ups, killed.at, lambda value: value == 0.0) - killed.at

    burst, count = recording.burst_at, sum(job.burst for job in recording.jobs)
    assert burst is not None
    waiting = recording.named("queue:messages:sum")
    (before,) = [series.at(burst) for series in waiting]
    assert before is not None
    after[f"{count} jobs at once"] = _first(waiting, burst, lambda value: value > before + count / 2) - burst

    for at, number in _told(recording).items():
        seen_at = _first(recording.named("workload:replicas:wanted"), at, lambda value, n=number: value == n)
        after["a new number of workers"] = max(after.get("a new number of workers", 0.0), seen_at - at)

    assert max(after.values()) <= SEEN_SECONDS, after
    spent = {series.labels["budget"]: series.values for series in recording.named("tidewise_budget_posted")}
    assert spent["usage"][-1] > spent["usage"][0]
    seen(1, "; ".join(f"{what} seen after {seconds:.0f} s" for what, seconds in after.items()))


def _seen_at(series: list[Series], at: float) -> bool:
    return any(one.at(at, 3 * settings.SCRAPE_SECONDS) is not None for one in series)


def _first(series: list[Series], since: float, is_it: Callable[[float], bool]) -> float:
    """When one of the series first had such a value."""
    times = [
        at for one in series for at, value in zip(one.times, one.values, strict=True) if at >= since and is_it(value)
    ]
    assert times, f"never seen since {since}: {[one.values for one in series]}"
    return min(times)


def _told(recording: Recording) -> Mapping[float, int]:
    """Numbers that the fleet was told and that stood long enough to be looked for."""
    changes = [
        after
        for before, after in zip(recording.fleet, recording.fleet[1:], strict=False)
        if before.wanted != after.wanted
    ]
    ends = [*(change.at for change in changes[1:]), recording.live_end]
    return {
        change.at: change.wanted
        for change, until in zip(changes, ends, strict=True)
        if change.at > recording.live_start and until - change.at > SEEN_SECONDS
    }
