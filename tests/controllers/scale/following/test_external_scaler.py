"""KEDA's questions over a real gRPC connection, asked by stubs that are generated anew from the interface."""

import importlib.util
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest

from controllers.actuators.publish import Board
from controllers.config import ConfigError, ExternalScaler
from controllers.domain import Mode
from controllers.scale.following.answers import METRIC_NAME, Numbers
from controllers.scale.following.external_scaler import Server
from controllers.scale.following.externalscaler_pb2 import GetMetricsRequest, ScaledObjectRef
from exporters.runtime.endpoint import EndpointError
from testbed.parts import free_port

VIDEO = "prod/video"
ROOT = Path(__file__).parents[4]
PROTO = "controllers/scale/following/externalscaler.proto"


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
    return Numbers(board, {VIDEO: Mode.ACT, "prod/tried": Mode.SHADOW}, frozenset({"prod/own"}))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the compiler makes of the interface today."""
    folder = tmp_path_factory.mktemp("generated")
    out = [f"--{kind}_out={folder}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I.", *out, PROTO], cwd=ROOT, check=True)
    return folder / "controllers/scale/following"


@pytest.fixture(scope="module")
def stubs(generated: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("stubs", generated / "externalscaler_pb2_grpc.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def serve(numbers: Numbers) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(**settings: Any) -> Server:
        server = Server(ExternalScaler(**{"listen": "127.0.0.1:0", **settings}), numbers)
        server.start()
        started.append(server)
        return server

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def keda(serve: Callable[..., Server], stubs: ModuleType) -> Iterator[Any]:
    with grpc.insecure_channel(serve().address, [("grpc.enable_http_proxy", 0)]) as channel:
        yield stubs.ExternalScalerStub(channel)


def trigger(**metadata: str) -> ScaledObjectRef:
    return ScaledObjectRef(name="follows", namespace="prod", scalerMetadata={"scalerAddress": "here", **metadata})


def ask_number(keda: Any, reference: ScaledObjectRef, metric: str = METRIC_NAME) -> Any:
    return keda.GetMetrics(GetMetricsRequest(scaledObjectRef=reference, metricName=metric), timeout=5)


def refusal(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), caught.value.details()


@pytest.mark.parametrize("name", ["externalscaler_pb2.py", "externalscaler_pb2.pyi"])
def test_what_was_generated_is_what_the_interface_says_today(generated: Path, name: str) -> None:
    in_tree = (ROOT / PROTO).parent / name
    assert in_tree.read_text() == (generated / name).read_text(), (
        f"{in_tree.name} is not current: python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. {PROTO}"
    )


def test_keda_learns_the_number_and_that_it_is_not_to_be_divided(keda: Any, board: Board) -> None:
    board.tell(VIDEO, 4, 60)
    value = ask_number(keda, trigger(workload=VIDEO)).metricValues[0]
    spec = keda.GetMetricSpec(trigger(workload=VIDEO), timeout=5).metricSpecs[0]
    assert (value.metricName, value.metricValue, value.metricValueFloat) == (METRIC_NAME, 4, 4.0)
    assert (spec.metricName, spec.targetSize, spec.targetSizeFloat) == (METRIC_NAME, 1, 1.0)
    assert keda.IsActive(trigger(workload=VIDEO), timeout=5).result is True


def test_none_wanted_is_a_number_and_not_active(keda: Any, board: Board) -> None:
    board.tell(VIDEO, 0, 60)
    assert ask_number(keda, trigger(workload=VIDEO)).metricValues[0].metricValue == 0
    assert keda.IsActive(trigger(workload=VIDEO), timeout=5).result is False


def test_without_a_slash_the_namespace_is_the_scaled_objects(keda: Any, board: Board) -> None:
    board.tell(VIDEO, 2, 60)
    assert ask_number(keda, trigger(workload="video")).metricValues[0].metricValue == 2


def test_an_unknown_number_is_an_error_so_that_the_fallback_counts(keda: Any, board: Board, clock: Clock) -> None:
    for reference in (trigger(workload=VIDEO), trigger(workload="tried")):
        for call in (lambda r=reference: ask_number(keda, r), lambda r=reference: keda.IsActive(r, timeout=5)):
            assert refusal(call)[0] is grpc.StatusCode.UNAVAILABLE
    assert "mode shadow" in refusal(lambda: ask_number(keda, trigger(workload="tried")))[1]
    board.tell(VIDEO, 4, 60)
    clock.now = 60.0
    code, words = refusal(lambda: ask_number(keda, trigger(workload=VIDEO)))
    assert (code, "prod/video is unknown now" in words) == (grpc.StatusCode.UNAVAILABLE, True)
    # what the number is divided by stays known, or KEDA would make an HPA without this metric
    assert keda.GetMetricSpec(trigger(workload=VIDEO), timeout=5).metricSpecs[0].targetSize == 1


@pytest.mark.parametrize(
    ("reference", "code", "words"),
    [
        (trigger(), grpc.StatusCode.INVALID_ARGUMENT, "the trigger of prod/follows names no workload"),
        (trigger(workload="prod/vidoe"), grpc.StatusCode.NOT_FOUND, "known: prod/tried, prod/video"),
        (trigger(workload="prod/own"), grpc.StatusCode.NOT_FOUND, "prod/own is scaled by Tidewise itself"),
    ],
)
def test_what_no_waiting_mends_is_said(
    keda: Any, reference: ScaledObjectRef, code: grpc.StatusCode, words: str
) -> None:
    calls: list[Callable[[], object]] = [
        lambda: ask_number(keda, reference),
        lambda: keda.IsActive(reference, timeout=5),
        lambda: keda.GetMetricSpec(reference, timeout=5),
        lambda: next(keda.StreamIsActive(reference, timeout=5)),
    ]
    for call in calls:
        found, said = refusal(call)
        assert found is code
        assert words in said


def test_another_metrics_name_is_refused(keda: Any) -> None:
    code, words = refusal(lambda: ask_number(keda, trigger(workload=VIDEO), "rps"))
    assert (code, words) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "metric 'rps' is unknown here; there is tidewise-desired-replicas",
    )


def test_a_stream_hears_of_each_change_between_none_and_some_at_once(keda: Any, board: Board) -> None:
    heard: queue.Queue[bool] = queue.Queue()
    stream = keda.StreamIsActive(trigger(workload=VIDEO), timeout=20)

    def listen() -> None:  # before the first number it is told nothing
        try:
            for answer in stream:
                heard.put(answer.result)
        except grpc.RpcError:
            return

    listener = threading.Thread(target=listen)
    listener.start()
    for number, word in ((0, False), (1, True), (0, False), (2, True)):
        board.tell(VIDEO, number, 60)
        assert heard.get(timeout=5) is word
    board.tell(VIDEO, 3, 60)  # still some: no word
    board.tell(VIDEO, 0, 60)
    assert heard.get(timeout=5) is False
    stream.cancel()
    listener.join()


def test_a_hundred_streams_leave_room_for_a_question(keda: Any, board: Board) -> None:
    streams = [keda.StreamIsActive(trigger(workload=VIDEO), timeout=20) for _ in range(100)]
    board.tell(VIDEO, 3, 60)
    assert [next(stream).result for stream in streams] == [True] * 100
    assert ask_number(keda, trigger(workload=VIDEO)).metricValues[0].metricValue == 3


def test_a_taken_port_is_said(serve: Callable[..., Server]) -> None:
    address = serve(listen=f"127.0.0.1:{free_port()}").address
    with pytest.raises(EndpointError, match=rf"{address} cannot be listened on"):
        serve(listen=address)


def test_stopping_cuts_streams_and_frees_the_port(serve: Callable[..., Server], stubs: ModuleType) -> None:
    server = serve(listen=f"127.0.0.1:{free_port()}")
    with grpc.insecure_channel(server.address, [("grpc.enable_http_proxy", 0)]) as channel:
        stream = stubs.ExternalScalerStub(channel).StreamIsActive(trigger(workload=VIDEO), timeout=20)
        threading.Timer(0.2, server.stop).start()
        assert refusal(lambda: next(stream))[0] in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    serve(listen=server.address)


def make_certificate(folder: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost", "-keyout", f"{name}.key",
         "-out", f"{name}.crt"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip


def test_with_tls_a_renewed_certificate_counts_from_the_next_connection(
    serve: Callable[..., Server], stubs: ModuleType, board: Board, tmp_path: Path
) -> None:
    board.tell(VIDEO, 4, 60)
    make_certificate(tmp_path, "one")
    cert, key = tmp_path / "one.crt", tmp_path / "one.key"
    server = serve(cert_file=cert, key_file=key)

    def asked(trusted: bytes) -> int:
        options = [("grpc.enable_http_proxy", 0), ("grpc.ssl_target_name_override", "localhost"),
                   ("grpc.use_local_subchannel_pool", 1)]  # fmt: skip
        with grpc.secure_channel(server.address, grpc.ssl_channel_credentials(trusted), options) as channel:
            answer = ask_number(stubs.ExternalScalerStub(channel), trigger(workload=VIDEO))
            return int(answer.metricValues[0].metricValue)

    first = cert.read_bytes()
    assert asked(first) == 4
    make_certificate(tmp_path, "one")
    assert asked(cert.read_bytes()) == 4
    assert refusal(lambda: asked(first))[0] is grpc.StatusCode.UNAVAILABLE


def test_a_certificate_that_is_not_there_is_said(serve: Callable[..., Server], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"scale.external_scaler.key_file: .*none.key cannot be read"):
        serve(cert_file=tmp_path / "none.crt", key_file=tmp_path / "none.key")
