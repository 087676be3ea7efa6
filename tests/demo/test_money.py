"""The month before the demo: plausible whatever the day, with the line that people hear of in the live part."""

from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from controllers.budget import rows
from controllers.budget.periods import bounds, period_of
from controllers.budget.schema import reading
from controllers.budget.words import MICRO
from controllers.config import Config, load
from demo import configuration, money, settings
from demo.configuration import Addresses
from demo.paid import most_units, used_units
from demo.settings import Settings

SEOUL = ZoneInfo("Asia/Seoul")
POSTED, LIMIT = 11_210 * MICRO, 15_000 * MICRO


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@pytest.mark.parametrize(
    ("now", "zone"),
    [
        pytest.param("2026-11-26T08:00:00+09:00", "Asia/Seoul", id="a day like any other"),
        pytest.param("2026-12-01T00:01:00+09:00", "UTC", id="Seoul's month has just begun"),
        pytest.param("2026-11-30T23:50:00+09:00", "UTC", id="Seoul's month ends while the demo runs"),
        pytest.param("2026-12-01T09:01:00+09:00", "Asia/Seoul", id="the month of UTC has just begun"),
        pytest.param("2026-12-01T06:01:00+09:00", "Asia/Seoul", id="six hours into it"),
    ],
)
def test_the_month_is_one_that_lasts_and_is_not_new(now: str, zone: str) -> None:
    chosen = money.time_zone(at(now), 420.0)
    assert chosen == zone
    start, end = bounds(period_of(at(now), ZoneInfo(chosen)), ZoneInfo(chosen))
    assert at(now) - start >= money.AWAY_FROM_TURN_SECONDS
    assert end - at(now) >= 420.0


@pytest.mark.parametrize(
    "now",
    [
        pytest.param("2026-12-01T06:30:00+09:00", id="hours into the month"),
        pytest.param("2026-12-03T12:00:00+09:00", id="days into it"),
        pytest.param("2026-12-12T12:00:00+09:00", id="more than a week"),
        pytest.param("2026-12-27T12:00:00+09:00", id="near its end"),
        pytest.param("2026-12-31T17:00:00+09:00", id="on its last day"),
    ],
)
def test_the_assumed_spend_lies_in_the_month_in_order_and_adds_up(now: str) -> None:
    spent = money.earlier(at(now), SEOUL, POSTED, LIMIT)
    start, _ = bounds(period_of(at(now), SEOUL), SEOUL)
    assert sum(one.amount for one in spent) == POSTED
    assert all(one.amount > 0 for one in spent)
    times = [one.at for one in spent]
    assert times == sorted(times)
    assert start < times[0]
    assert times[-1] <= at(now) - 3600.0  # out of the ledger's short windows: nobody is called for it


def test_the_months_end_as_foreseen_from_the_last_week_stays_below_the_limit_where_it_can() -> None:
    for day in range(9, 31):
        now = at(f"2026-12-{day:02d}T12:00:00+09:00")
        recent = sum(s.amount for s in money.earlier(now, SEOUL, POSTED, LIMIT) if s.at > now - 7 * 86400)
        left = bounds("2026-12", SEOUL)[1] - now
        assert POSTED + recent / (7 * 86400) * left < LIMIT


@pytest.mark.parametrize(
    ("posted", "known"),
    [
        pytest.param(0, [], id="nothing yet"),
        pytest.param(7_600, [("usage", "50"), ("total", "50")], id="half of it"),
        pytest.param(11_210, [("usage", "50"), ("total", "50"), ("total", "75")], id="as the demo begins"),
        pytest.param(11_260, [("usage", "50"), ("usage", "75"), ("total", "50"), ("total", "75")], id="past the line"),
    ],
)
def test_which_lines_people_know_of_already(posted: int, known: list[tuple[str, str]]) -> None:
    assert money.passed(posted * MICRO) == known


@pytest.fixture
def config(addresses: Addresses, tmp_path: Path) -> Config:
    path = tmp_path / "tidewise.yaml"
    configuration.write(configuration.tidewise(Settings(folder=tmp_path), addresses), path, "Written.")
    return load(path)


def test_the_ledger_has_the_assumed_month_and_nothing_of_it_is_recent(config: Config) -> None:
    now = at("2026-11-26T08:00:00+09:00")
    spent = money.earlier(now, SEOUL, POSTED, LIMIT)
    money.write_ledger(config, spent)
    assert config.budget is not None
    with reading(config.budget.ledger) as db:
        standing = rows.standing(db, now, SEOUL)
        assert (standing.period, standing.posted, standing.held) == ("2026-11", POSTED, 0)
        assert standing.fixed == settings.SERVER_COST * MICRO
        assert rows.posted_since(db, now - 3600.0) == 0
        assert rows.posted_since(db, now - 8 * 86400.0) < POSTED


def test_a_call_costs_less_than_it_may_and_all_calls_of_a_run_less_than_a_hundredth_of_the_budget(
    config: Config,
) -> None:
    cost = money.call_cost(config, at("2026-11-26T08:00:00+09:00"))
    assert 0 < cost < 1
    for number in range(0, 500, settings.PAID_EVERY):
        assert all(used_units(number)[unit] <= most for unit, most in most_units().items())
    calls = 420 * 30 / settings.PAID_EVERY  # seven minutes of the fleet's largest demand
    assert float(cost) * calls < 0.01 * settings.USAGE_BUDGET  # below it no burn rate is told
