"""Which part of the hour ahead a decision covers."""

from collections.abc import Mapping
from types import SimpleNamespace

import pytest

from controllers.config import Config
from controllers.domain import Sample
from controllers.forecast import lead_time
from controllers.forecast.lead_time import LEAD_TIME, configured, read_windows
from controllers.forecast.run import Forecaster
from controllers.loop import Tick
from controllers.sources.prometheus import Kind, Reading, Series, SourceError

NAME = "default/a"
CASES = [
    ("learned: from the median to the slow end and two intervals of the scaler", {"0.5": 40.0, "0.9": 60.0}, (40, 90)),
    ("nothing learned: the configured lead time", {}, (60, 90)),
    ("only a median: no spread is known", {"0.5": 40.0}, (40, 70)),
    ("a slow end before the median never shortens the window", {"0.5": 40.0, "0.9": 20.0}, (40, 70)),
    ("starts at once: the window is the time until the next decision", {"0.5": 0.0, "0.9": 0.0}, (0, 30)),
    ("a negative time is no time", {"0.5": -1.0}, (60, 90)),
    ("nor is one without end, as a histogram may tell", {"0.5": 40.0, "0.9": float("inf")}, (40, 70)),
]


@pytest.mark.parametrize(("learned", "window"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_window_of(make: SimpleNamespace, learned: Mapping[str, float], window: tuple[float, float]) -> None:
    source = make.FakeSource({}, lead_times={NAME: learned})
    assert read_windows(source, make.config("a"), 0.0, 10.0) == {NAME: window}


def test_an_error_of_one_workload_leaves_it_its_configured_time(make: SimpleNamespace) -> None:
    broken = Reading(LEAD_TIME, {NAME: (Series({"quantile": "0.5"}, (Sample(5.0, 0.0),)),)})
    broken = Reading(LEAD_TIME, broken.series, errors={NAME: SourceError(Kind.BAD_QUERY, "no")})
    assert lead_time.windows(broken, make.config("a")) == configured(make.config("a"))


def test_a_fit_is_given_the_window_and_without_prometheus_the_configured_one(
    make: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make.FakeSource({NAME: lambda t: 5.0}, lead_times={NAME: {"0.5": 300.0, "0.9": 400.0}})
    config: Config = make.config("a", history_days=1)
    given = []

    class Recorder:
        busy = False

        def begin(self, jobs: Mapping[str, SimpleNamespace]) -> list[str]:
            given.extend(job.window for job in jobs.values())
            return []

        def collect(self, wait_seconds: float) -> dict[str, object]:
            return {}

        def troubles(self) -> list[object]:
            return []

    forecaster = Forecaster(config, source, Recorder())
    forecaster.step(Tick.starting(60.0))

    def fail(*arguments: object) -> None:
        raise SourceError(Kind.UNREACHABLE, "connection refused")

    monkeypatch.setattr(source, "contract_at", fail)
    forecaster.step(Tick.starting(60.0))
    assert given == [(300.0, 430.0), (60.0, 90.0)]
