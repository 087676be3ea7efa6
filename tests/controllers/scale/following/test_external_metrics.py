"""Kubernetes' external metrics API: what is answered, and on a real control plane an HPA that follows it."""

import json
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators.publish import Board
from controllers.config import ConfigError, ExternalMetrics
from controllers.domain import Mode
from controllers.scale.following.answers import METRIC_NAME, Numbers
from controllers.scale.following.external_metrics import ROOT, endpoint, routes, selected
from exporters.runtime.endpoint import Request, Response

Json = dict[str, Any]
VIDEO = "prod/video"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def board(clock: Clock) -> Board:
    return Board(clock)


@pytest.fixture
def numbers(board: Board) -> Numbers:
    return Numbers(board, {VIDEO: Mode.ACT, "prod/tried": Mode.RECOMMEND}, frozenset({"prod/own"}))


def ask(numbers: Numbers, path: str, **query: str) -> tuple[int, Json]:
    key = path if path in (ROOT, "/apis/external.metrics.k8s.io") else f"{ROOT}/namespaces/*"
    response: Response = routes(numbers)["GET", key](Request("GET", path, query, {}, b""))
    return response.status, json.loads(response.body)


def metric(numbers: Numbers, selector: str, namespace: str = "prod", name: str = METRIC_NAME) -> tuple[int, Json]:
    return ask(numbers, f"{ROOT}/namespaces/{namespace}/{name}", labelSelector=selector)


def test_the_value_is_the_number(numbers: Numbers, board: Board) -> None:
    board.tell(VIDEO, 4, 60)
    status, answer = metric(numbers, "workload=video")
    item = answer["items"][0]
    assert (status, len(answer["items"]), item["value"]) == (200, 1, "4")
    assert (item["metricName"], item["metricLabels"]) == (METRIC_NAME, {"workload": "video", "namespace": "prod"})


def test_none_wanted_is_a_value(numbers: Numbers, board: Board) -> None:
    board.tell(VIDEO, 0, 60)
    assert metric(numbers, "workload=video")[1]["items"][0]["value"] == "0"


def test_what_ran_out_is_an_error_and_no_zero(numbers: Numbers, board: Board, clock: Clock) -> None:
    board.tell(VIDEO, 4, 60)
    clock.now = 59.9
    assert metric(numbers, "workload=video")[0] == 200
    clock.now = 60.0
    status, answer = metric(numbers, "workload=video")
    assert (status, answer["kind"], answer["code"]) == (503, "Status", 503)
    assert answer["message"].startswith("the number of prod/video is unknown now")


@pytest.mark.parametrize(
    ("selector", "status", "words"),
    [
        ("workload=vidoe", 404, "'prod/vidoe' is no workload with the target 'publish'; known: prod/tried, prod/video"),
        ("workload=own", 404, "prod/own is scaled by Tidewise itself"),
        ("workload=tried", 503, "prod/tried is in mode recommend: nothing is published until it is 'act'"),
        ("", 400, "no label workload; an HPA adds up all it gets"),
        ("workload!=video", 400, "write matchLabels with one value each"),
        ("workload in (video,other)", 400, "write matchLabels with one value each"),
        ("workload=video,tier=1", 400, "label tier is unknown here; there are workload and namespace"),
    ],
)
def test_who_asks_for_nothing_that_is_there_reads_why(numbers: Numbers, selector: str, status: int, words: str) -> None:
    found, answer = metric(numbers, selector)
    assert found == status
    assert words in answer["message"]


@pytest.mark.parametrize(
    ("selector", "namespace", "workload"),
    [
        ("workload=video", "prod", "prod/video"),
        ("workload==video", "prod", "prod/video"),
        ("namespace=default,workload=video", "prod", "default/video"),
        ("workload in (video)", "prod", "prod/video"),
        ("namespace in (shop), workload = a.b", "prod", "shop/a.b"),
    ],
)
def test_a_selector_names_one_workload(selector: str, namespace: str, workload: str) -> None:
    assert selected(selector, namespace) == workload


def test_another_metric_is_not_there(numbers: Numbers) -> None:
    status, answer = metric(numbers, "workload=video", name="rps")
    assert (status, answer["reason"]) == (404, "NotFound")


def test_without_tls_nothing_is_served(numbers: Numbers, tmp_path: Path) -> None:
    file = tmp_path / "web.yml"
    file.write_text("http_server_config: {}\n")
    with pytest.raises(ConfigError, match="no tls_server_config, and the API server comes by TLS only"):
        endpoint(ExternalMetrics(listen=["127.0.0.1:0"], web_config=file), numbers)
