"""The ledger, declared instances and AWS as sources of the cost exporter, and its configuration."""

import json
import stat
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import requests
from prometheus_client import CollectorRegistry

from controllers.budget.run import build
from controllers.config import Config as TidewiseConfig
from exporters.cost import FAMILIES, Config, collectors, demo
from exporters.cost.aws import DAY, HOUR, period
from exporters.cost.instances import Instance, hours
from exporters.runtime.config import ConfigError, validate
from exporters.runtime.endpoint import Endpoint, Response
from tests.exporters.cost.conftest import Page

SEOUL = ZoneInfo("Asia/Seoul")
NOW = datetime(2026, 11, 22, 12, tzinfo=SEOUL).timestamp()
TOKEN = "a-token-of-the-tests-0123456789"
At = Callable[[float], None]


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return path


@pytest.fixture
def budget(token_file: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a real ledger of the 22nd of November."""
    config = TidewiseConfig.model_validate(
        {
            "budget": {
                "total": "24900 KRW", "time_zone": "Asia/Seoul", "token_file": str(token_file),
                "ledger": str(tmp_path / "ledger.sqlite"), "fixed": [{"name": "server", "monthly": "9900 KRW"}],
                "prices": [{"provider": "acme", "model": "ocr", "per_unit": {"pages": "2 KRW"}}],
                "gross": {"fx_buffer": 1}, "listen": ["127.0.0.1:0"],
            }
        }
    )  # fmt: skip
    assert config.budget is not None
    controller = build(config, config.budget, lambda: NOW)
    endpoint = Endpoint(
        ["127.0.0.1:0"], CollectorRegistry(), process="budget", ready=lambda: None, routes=controller.routes
    )
    endpoint.start()
    yield f"http://{endpoint.addresses[0]}"
    endpoint.stop()
    controller.close()


def test_the_ledgers_month_is_shown_by_scope_with_its_units_and_the_date_of_its_prices(
    budget: str, token_file: Path
) -> None:
    page = Page({"ledger": {"url": budget, "token_file": token_file}})
    assert not [name for name in page.look() if name.startswith("cost_spend")]  # fixed costs were not spent by anyone
    for event, workflow, pages in (("a", "n8n-7", 3), ("b", "n8n-8", 4), ("c", "n8n-7", 5)):
        answer = requests.post(
            f"{budget}/usage", timeout=10, headers={"Authorization": f"Bearer {TOKEN}"},
            json={"event_id": event, "provider": "acme", "model": "ocr", "units": {"pages": pages},
                  "workflow": workflow, "workload": "default/video"},
        )  # fmt: skip
        assert answer.status_code == 200
    found = page.look()
    assert page.name == f"ledger.{budget.removeprefix('http://')}"
    assert found["cost_spend KRW acme - ocr n8n-7 default/video"] == 16
    assert found["cost_spend KRW acme - ocr n8n-8 default/video"] == 8
    assert found["cost_units acme - ocr n8n-7 default/video pages"] == 8
    assert found["cost_period_start_timestamp_seconds"] == datetime(2026, 11, 1, tzinfo=SEOUL).timestamp()
    assert NOW - 365 * 86_400 < found["cost_price_table_timestamp_seconds"] <= NOW


def test_a_ledger_that_refuses_is_gone_or_is_none_is_said_without_the_token(budget: str, token_file: Path) -> None:
    page = Page({"ledger": {"url": budget, "token_file": token_file}})
    token_file.with_name("other").write_text("another-token-0123456789")
    other = Page({"ledger": {"url": budget, "token_file": token_file.with_name("other")}})
    with pytest.raises(Exception, match="answered 401; check the key or token") as caught:
        other.look()
    assert "another-token" not in str(caught.value)
    assert page.look()
    gone = Page({"ledger": {"url": "http://127.0.0.1:9", "token_file": token_file}})
    with pytest.raises(Exception, match=r"http://127\.0\.0\.1:9/statement: .*refused"):
        gone.look()
    token_file.unlink()
    with pytest.raises(Exception, match=r"exporters\.cost\.ledger\.token_file: .* cannot be read"):
        page.look()


def test_an_answer_that_is_no_statement_is_refused(token_file: Path) -> None:
    bodies: list[bytes] = []
    endpoint = Endpoint(
        ["127.0.0.1:0"], CollectorRegistry(), process="other", ready=lambda: None,
        routes={("GET", "/statement"): lambda request: Response(200, bodies[-1], "application/json")},
    )  # fmt: skip
    endpoint.start()
    page = Page({"ledger": {"url": f"http://{endpoint.addresses[0]}", "token_file": token_file}})
    for body, message in (
        (b"<html>", "the answer is no JSON"),
        (b"{}", "an answer of another kind"),
        (b'{"currency": "KRW", "price_table": {"dated": null}, "start": 0, "lines": [{}]}', "of another kind"),
        (b'{"currency": "won", "price_table": {"dated": null}, "start": 0, "lines": []}', "of another kind"),
    ):
        bodies.append(body)
        with pytest.raises(Exception, match=message):
            page.look()
    endpoint.stop()


def instance(**more: Any) -> dict[str, Any]:
    return {"name": "worker-1", "per_hour": "12 KRW", "since": "2026-10-15T00:00:00+09:00", **more}


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        pytest.param({}, 21 * 24 + 12, id="since before the month: from its first hour"),
        pytest.param({"since": "2026-11-22T10:30:00+09:00"}, 1.5, id="since this morning"),
        pytest.param({"until": "2026-11-02T00:00:00+09:00"}, 24, id="until the second"),
        pytest.param({"until": "2026-10-20T00:00:00+09:00"}, 0, id="ended before the month"),
        pytest.param({"since": "2026-11-23T00:00:00+09:00"}, 0, id="from tomorrow"),
    ],
)
def test_an_instance_costs_its_hours_of_the_month(more: dict[str, Any], expected: float) -> None:
    month = datetime(2026, 11, 1, tzinfo=SEOUL).timestamp()
    assert hours(Instance.model_validate(instance(**more)), month, NOW) == pytest.approx(expected)


def test_declared_instances_are_shown_with_their_price_while_they_run(at: At) -> None:
    at(NOW)
    page = Page(
        {
            "time_zone": "Asia/Seoul",
            "instances_checked": "2026-11-03",
            "instances": [
                instance(provider="cloud", workload="default/video"),
                instance(name="old", until="2026-11-02T00:00:00+09:00"),
            ],
        }
    )
    assert page.look() == {
        "cost_spend KRW cloud worker-1 - - default/video": 12 * (21 * 24 + 12),
        "cost_spend KRW - old - - -": 12 * 24,
        "cost_instance_price_per_hour worker-1 cloud default/video KRW": 12,
        "cost_period_start_timestamp_seconds": datetime(2026, 11, 1, tzinfo=SEOUL).timestamp(),
        "cost_price_table_timestamp_seconds": datetime(2026, 11, 3, tzinfo=UTC).timestamp(),
    }


def bill(**services: str) -> dict[str, Any]:
    """What Cost Explorer answers for one month by service."""
    groups = [
        {"Keys": [name], "Metrics": {"UnblendedCost": {"Amount": amount, "Unit": "USD"}}}
        for name, amount in services.items()
    ]
    start = {"Start": "2026-11-01", "End": "2026-11-23"}
    return {
        "GroupDefinitions": [{"Type": "DIMENSION", "Key": "SERVICE"}],
        "ResultsByTime": [{"TimePeriod": start, "Total": {}, "Groups": groups, "Estimated": True}],
        "DimensionValueAttributes": [],
    }


@pytest.fixture
def answers(moto_url: str) -> Callable[..., None]:
    """What AWS will answer, one after another."""

    def queue(*results: dict[str, Any]) -> None:
        url = f"{moto_url}/moto-api/static/ce/cost-and-usage-results"
        assert requests.post(url, json={"results": list(results)}, timeout=10).status_code == 201

    return queue


SECONDS = 8.0  # the first request loads boto3


def test_aws_is_asked_once_a_day_also_over_restarts(
    answers: Callable[..., None], moto_url: str, tmp_path: Path, at: At
) -> None:
    answers(bill(AmazonEC2="12.3456789", Tax="-0.5"), bill(AmazonEC2="13.0"))
    config = {"aws": {"state_file": tmp_path / "aws.json", "endpoint_url": moto_url}}
    at(NOW)
    found = Page(config).look(SECONDS)
    assert found == {
        "cost_spend USD aws AmazonEC2 - - -": 12.345679,
        "cost_spend USD aws Tax - - -": -0.5,
        "cost_period_start_timestamp_seconds": datetime(2026, 11, 1, tzinfo=UTC).timestamp(),
        "cost_asked_timestamp_seconds": NOW,
        "cost_asking_spend USD": 0.01,
    }
    at(NOW + DAY - 60)
    assert Page(config).look(SECONDS) == found
    at(NOW - 3600)  # a clock that was set back
    assert Page(config).look(SECONDS) == found
    at(NOW + DAY)
    found = Page(config).look(SECONDS)
    assert found["cost_spend USD aws AmazonEC2 - - -"] == 13
    assert found["cost_asking_spend USD"] == 0.02
    at(datetime(2026, 12, 1, tzinfo=UTC).timestamp())
    (tmp_path / "aws.json").write_text((tmp_path / "aws.json").read_text().replace(f"{NOW + DAY}", f"{NOW + 9 * DAY}"))
    found = Page(config).look(SECONDS)  # the new month is unknown until it is asked for
    assert found == {"cost_asking_spend USD": 0}


def test_a_request_that_failed_is_repeated_after_an_hour_and_what_was_known_stays(
    answers: Callable[..., None], moto_url: str, tmp_path: Path, at: At
) -> None:
    answers(bill(AmazonEC2="1"), {"ResultsByTime": "?"}, bill(AmazonEC2="2"))
    page = Page({"aws": {"state_file": tmp_path / "aws.json", "endpoint_url": moto_url}})
    late = datetime(2026, 11, 22, 23, 30, tzinfo=UTC).timestamp()  # moto answers the same question in the same way
    at(late)
    assert page.look(SECONDS)["cost_spend USD aws AmazonEC2 - - -"] == 1
    for later, amount, asks in ((DAY, 1, 2), (DAY + HOUR - 60, 1, 2), (DAY + HOUR, 2, 3)):
        at(late + later)
        found = page.look(SECONDS)
        assert found["cost_spend USD aws AmazonEC2 - - -"] == amount
        assert found["cost_asking_spend USD"] == pytest.approx(asks / 100)
        assert ("it is asked again in an hour" in (page.problem or "")) == (amount == 1)


def test_without_its_file_aws_is_not_asked(moto_url: str, tmp_path: Path, at: At) -> None:
    at(NOW)
    nowhere = Page({"aws": {"state_file": tmp_path / "none" / "aws.json", "endpoint_url": "http://127.0.0.1:9"}})
    for _ in range(2):  # it is said as long as it is so
        assert nowhere.look(SECONDS) == {"cost_asking_spend USD": 0}
        assert "cannot be written" in (nowhere.problem or "")
    for text in ("{", "[]", '{"asked_at": "x"}', '{"lines": [["a", "b", "USD"]]}', '{"more": 1}'):
        (tmp_path / "aws.json").write_text(text)
        broken = Page({"aws": {"state_file": tmp_path / "aws.json", "endpoint_url": "http://127.0.0.1:9"}})
        with pytest.raises(Exception, match=r"cannot be used .* AWS is not asked"):
            broken.look(SECONDS)
        assert (tmp_path / "aws.json").read_text() == text


def test_aws_out_of_reach_is_said_and_the_asking_was_written_down_first(moto_url: str, tmp_path: Path, at: At) -> None:
    at(NOW)
    page = Page({"aws": {"state_file": tmp_path / "aws.json", "endpoint_url": "http://127.0.0.1:9"}})
    assert page.look(SECONDS) == {"cost_asking_spend USD": 0.01}
    assert "Cost Explorer did not answer" in (page.problem or "")
    assert json.loads((tmp_path / "aws.json").read_text())["asked_at"] == NOW
    assert stat.S_ISREG((tmp_path / "aws.json").stat().st_mode)


def test_a_month_is_asked_for_to_the_end_of_today() -> None:
    first = datetime(2026, 11, 1, 0, 5, tzinfo=UTC).timestamp()
    assert period(first) == {"Start": "2026-11-01", "End": "2026-11-02"}
    assert period(datetime(2026, 11, 30, tzinfo=UTC).timestamp()) == {"Start": "2026-11-01", "End": "2026-12-01"}


@pytest.mark.parametrize(
    ("cost", "message"),
    [
        ({"ledger": {"url": "http://h"}}, "ledger.token_file: is missing; add it"),
        ({"ledger": {"url": "http://me:secret@h", "token_file": "t"}},
         "ledger.url: holds more than scheme, host, port and path; keys and passwords go into files"),
        ({"time_zone": "Seoul"}, "time_zone: found 'Seoul'; write an IANA time zone, for example Asia/Seoul"),
        ({"instances": [instance(per_hour="12")]},
         "instances.0.per_hour: found '12'; write an amount with its currency, for example '12 KRW'"),
        ({"instances": [instance(), instance()]},
         "instances: 'worker-1' stands twice; give each instance a name of its own"),
        ({"instances": [instance(until="2026-10-01T00:00:00+09:00")]},
         "instances.0: ends (2026-10-01 00:00:00+09:00) before it begins (2026-10-15 00:00:00+09:00)"),
    ],
)  # fmt: skip
def test_a_mistake_is_a_sentence(cost: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(Config, cost, Path("tidewise.yaml"))
    assert str(caught.value) == f"tidewise.yaml: {message}"


def test_nothing_configured_is_nothing_read() -> None:
    assert collectors(Config()) == {}


def test_the_demonstration_shows_every_family_with_the_same_series_at_each_time() -> None:
    pages = [
        {(s.name, *s.labels.items()): s.value for metric in demo(at) for s in metric.samples}
        for at in (1.8e9, 1.8e9 + 100, time.time(), datetime(2026, 12, 1, tzinfo=UTC).timestamp())
    ]
    assert {metric.name for metric in demo(1.8e9)} == {family.name for family in FAMILIES}
    assert all(page.keys() == pages[0].keys() for page in pages)
