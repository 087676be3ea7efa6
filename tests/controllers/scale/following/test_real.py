"""`tidewise scale` on a real Prometheus, asked as KEDA asks: the number, and that it goes when the scaler is blind."""

import os
import signal
from typing import Any

import grpc
import pytest

from controllers.scale.following.answers import METRIC_NAME
from controllers.scale.following.externalscaler_pb2 import GetMetricsRequest, GetMetricsResponse, ScaledObjectRef
from testbed.parts import free_port

pytestmark = pytest.mark.real

NEEDED = 5  # as the stage's Prometheus says
SAMPLE = 'tidewise_scale_published_replicas{workload="default/video"}'


@pytest.fixture
def stage(stage: Any) -> Any:
    stage.config = {
        "prometheus": {"url": stage.prometheus.url},
        "workloads": [
            {
                "name": "video",
                "demand": {"queue": "video-jobs"},
                "target": {"publish": {"ready": "vector(2)", "valid_seconds": 2}},
                "replicas": {"max": 8},
                "mode": "act",
            }
        ],
        "scale": {
            "interval_seconds": 1,
            "replacements": str(stage.folder / "replacements.json"),
            "overrides": str(stage.folder / "overrides.jsonl"),
            "external_scaler": {"listen": f"127.0.0.1:{free_port()}"},
        },
    }
    return stage


def test_the_number_is_published_goes_when_the_scaler_is_blind_and_comes_back(stage: Any) -> None:
    given = stage.folder / "given.yml"
    rules = given.read_text()

    def let_prometheus_know(text: str) -> None:
        given.write_text(text)
        os.kill(stage.prometheus.pid, signal.SIGHUP)

    stage.start("scale")
    address = stage.config["scale"]["external_scaler"]["listen"]
    with grpc.insecure_channel(address, [("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary(
            "/externalscaler.ExternalScaler/GetMetrics",
            request_serializer=GetMetricsRequest.SerializeToString,
            response_deserializer=GetMetricsResponse.FromString,
        )

        def answered() -> int | grpc.StatusCode:
            reference = ScaledObjectRef(name="x", namespace="default", scalerMetadata={"workload": "video"})
            try:
                found = call(GetMetricsRequest(scaledObjectRef=reference, metricName=METRIC_NAME), timeout=5)
            except grpc.RpcError as error:
                return error.code()
            return int(found.metricValues[0].metricValue)

        stage.until(lambda: answered() == NEEDED, "KEDA gets the number")
        assert f"{SAMPLE} {NEEDED}.0" in stage.page()
        let_prometheus_know("groups: []\n")  # nobody measures the demand any more
        stage.until(lambda: "hold" in stage.reasons(), "the scaler holds")
        stage.until(lambda: answered() is grpc.StatusCode.UNAVAILABLE, "KEDA is told that there is no number")
        assert SAMPLE not in stage.page()
        let_prometheus_know(rules)
        stage.until(lambda: answered() == NEEDED, "the number is back")
