"""A further demand of a workload is forecast as if it were a workload of its own."""

from controllers.config import Config
from controllers.forecast.calendars import Calendars
from controllers.forecast.lead_time import configured
from controllers.forecast.observe import Observer
from controllers.forecast.run import Forecaster

CONFIG = Config.model_validate(
    {
        "workloads": [
            {
                "name": "video",
                "demand": {"queue": "jobs"},
                "also": [{"name": "llm", "promql": "rate(llm_total[1m])"}],
                "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
                "replicas": {"max": 4},
                "lead_time_seconds": 40,
                "time_zone": "Asia/Seoul",
            }
        ]
    }
)
NAME = "default/video/llm"


def test_it_has_the_lead_time_and_the_zone_of_its_workload() -> None:
    assert configured(CONFIG)[NAME] == configured(CONFIG)["default/video"] == (40.0, 70.0)
    assert Calendars(CONFIG).of(NAME, 1_800_000_000.0).time_zone == "Asia/Seoul"


def test_it_is_read_and_listed_by_its_name() -> None:
    assert Observer(None, CONFIG)._names == ["default/video", NAME]  # type: ignore[arg-type]
    forecaster = Forecaster(CONFIG, None)  # type: ignore[arg-type]
    try:
        assert NAME in forecaster.landing()
    finally:
        forecaster.close()
