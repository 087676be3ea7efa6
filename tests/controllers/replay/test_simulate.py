"""The simulator against cases one can do by hand, and against the textbook."""

import random

import pytest

from controllers.domain import Forecast, Horizon, Mode
from controllers.replay.policies import hpa, recorded, tidewise
from controllers.replay.simulate import Seen, Setting, simulate
from controllers.scale.queueing import probability_of_waiting
from controllers.scale.state import Rules


def setting(**changes: float) -> Setting:
    values = {
        "start": 0.0,
        "end": 600.0,
        "interval_seconds": 5.0,
        "lead_time_seconds": 60.0,
        "service_seconds": 1.0,
        "concurrency": 1,
        "replicas": 1,
    }
    return Setting(**{**values, **changes})  # type: ignore[arg-type]


def keep(number: int):  # type: ignore[no-untyped-def]
    return lambda seen: number


def test_one_replica_serves_one_after_the_other() -> None:
    result = simulate([0.0, 0.1, 0.2], keep(1), setting())
    assert result.waits == pytest.approx((0.0, 0.9, 1.8))
    assert result.replica_seconds == 600.0


def test_a_replica_asked_for_works_after_its_lead_time_and_is_paid_from_the_ask() -> None:
    def grow_at_100(seen: Seen) -> int:
        return 2 if seen.now >= 100 else 1

    result = simulate([159.0, 159.5, 160.5], grow_at_100, setting())
    assert result.waits == pytest.approx((0.0, 0.5, 0.0))  # the second waits for the new one at 160
    assert result.replica_seconds == 100 + 2 * 500


def test_a_replica_taken_away_finishes_its_job() -> None:
    def shrink(seen: Seen) -> int:
        return 1 if seen.now >= 5 else 2

    result = simulate([4.9, 4.95, 5.5], shrink, setting(replicas=2))
    assert result.waits == pytest.approx((0.0, 0.0, 0.45))


def test_one_taken_away_while_starting_never_works() -> None:
    numbers = iter([2, 1])

    def flip(seen: Seen) -> int:
        return next(numbers, 1)

    result = simulate([100.0, 100.0], flip, setting())
    assert result.waits == pytest.approx((0.0, 1.0))


def test_no_replica_means_waiting_until_the_end_not_forever() -> None:
    result = simulate([10.0], keep(0), setting(replicas=0, end=60.0))
    assert result.waits == (50.0,)


def test_a_steady_load_waits_as_erlang_says() -> None:
    rng = random.Random(1)
    t, arrivals = 0.0, []
    while t < 40_000:
        t += rng.expovariate(8.0)
        arrivals.append(t)
    result = simulate(arrivals, keep(10), setting(replicas=10, end=1.0))
    waited = sum(wait > 1e-9 for wait in result.waits) / len(result.waits)
    # service here is not random, so a little fewer wait than with the exponential service of the formula (0.41)
    assert 0.30 < waited < probability_of_waiting(10, 8.0)


def test_hpa_keeps_its_tolerance_its_rate_limit_and_its_window() -> None:
    policy = hpa(0.5, service_seconds=1.0, least=1, most=100)

    def seen(now: float, demand: float, current: int) -> int:
        from controllers.domain import Replicas

        return policy(Seen(now, demand, 0, Replicas(current, current)))

    assert seen(0, 5.4, 10) == 10  # within 10 %
    assert seen(5, 50.0, 10) == 10  # between two syncs
    assert seen(15, 50.0, 10) == 20  # needs 100, doubles
    assert seen(30, 5.0, 20) == 20  # 100 was recommended 15 s ago
    assert seen(331, 5.0, 20) == 10


def test_a_recorded_fleet_is_what_was_there() -> None:
    ready = recorded([(0.0, 3), (10.0, 4)])
    assert [ready(t) for t in (-1, 0, 9.9, 10, 99)] == [3, 3, 3, 4, 4]


def test_our_policy_is_the_live_decide_with_the_forecast_of_the_time() -> None:
    rules = Rules(
        "w", True, 1, 20, 5.0, 0.95, 1, 1.0, 60.0, 60.0, 300.0, None, None, 5.0, 120.0, Mode.ACT
    )  # fmt: skip
    horizons = (Horizon(120, 8.0, {0.98: 8.0}, {}, {0.5: 960.0, 0.98: 960.0}),)
    forecasts = [Forecast(0.0, 900.0, "m", True, horizons)]
    arrivals = [t / 2 for t in range(600)]  # two a second, eight foreseen
    result = simulate(arrivals, tidewise(rules, 1.0, forecasts), setting(replicas=4, end=300.0))
    assert result.timeline[0][1] > 4
    assert max(wanted for _, wanted, _ in result.timeline) >= 9
