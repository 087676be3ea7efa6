"""The loop: counts what fails, backs off, says whether it is ready, and goes on."""

import threading
import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, Gauge

from controllers.loop import Controller, LoopMetrics, StepError, Tick, pause_seconds, run, step_once


@pytest.mark.parametrize(
    ("sentence", "elapsed", "failures", "pause"),
    [
        ("a quick step waits for the rest of its interval", 1.0, 0, 9.0),
        ("a step longer than the interval is followed at once", 12.0, 0, 0.0),
        ("one failure changes nothing", 1.0, 1, 9.0),
        ("a second one doubles", 1.0, 2, 19.0),
        ("a third doubles again", 1.0, 3, 39.0),
        ("no pause is longer than a minute", 0.0, 30, 60.0),
    ],
)
def test_pause(sentence: str, elapsed: float, failures: int, pause: float) -> None:
    assert pause_seconds(10.0, elapsed, failures) == pause, sentence


def test_an_interval_above_a_minute_is_not_shortened_by_failures() -> None:
    assert pause_seconds(300.0, 0.0, 5) == 300.0


def test_a_tick_says_when_its_time_is_up() -> None:
    assert 0 < Tick.starting(5.0).remaining() <= 5.0
    with pytest.raises(StepError, match="total deadline"):
        Tick.starting(-1.0).remaining()


def test_a_failing_step_is_counted_by_kind_and_does_not_end_the_loop() -> None:
    class Log:
        def __getattr__(self, name: str) -> object:
            return lambda *args, **fields: None

    kinds = iter([StepError("unreachable", "no Prometheus"), ValueError("a bug"), None])

    def step(tick: Tick) -> None:
        error = next(kinds)
        if error:
            raise error

    registry = CollectorRegistry()
    controller = Controller("scale", 1.0, [], step)
    measures = LoopMetrics(controller, registry)
    failed = [step_once(controller, measures, Log()) for _ in range(3)]  # type: ignore[arg-type]
    assert failed == [True, True, False]
    for kind in ("unreachable", "ValueError"):
        labels = {"controller": "scale", "kind": kind}
        assert registry.get_sample_value("tidewise_loop_failures_total", labels) == 1
    assert measures.not_ready() is None


def test_the_whole_process_serves_its_metrics_its_readiness_and_ends_when_told() -> None:
    stop, addresses, seen = threading.Event(), [], []
    works = threading.Event()

    def step(tick: Tick) -> None:
        seen.append(tick.now)
        if not works.is_set():
            raise StepError("unreachable", "no Prometheus")

    gauge = Gauge("tidewise_scale_test", "A controller's own series.", registry=None)
    gauge.set(7)
    controller = Controller("scale", 0.05, ["127.0.0.1:0"], step, collectors=[gauge], close=lambda: seen.append(-1.0))
    thread = threading.Thread(target=run, args=(controller, stop, addresses.extend))
    thread.start()
    try:
        for _ in range(200):
            if addresses and seen:
                break
            threading.Event().wait(0.02)
        base = f"http://{addresses[0]}"
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{base}/-/ready", timeout=5)
        assert error.value.code == 503
        works.set()
        for _ in range(200):
            page = urllib.request.urlopen(f"{base}/metrics", timeout=5).read().decode()
            if 'tidewise_loop_last_success_timestamp_seconds{controller="scale"}' in page:
                break
            threading.Event().wait(0.02)
        assert "tidewise_scale_test 7.0" in page
        assert 'tidewise_loop_failures_total{controller="scale",kind="unreachable"}' in page
        assert urllib.request.urlopen(f"{base}/-/ready", timeout=5).status == 200
    finally:
        stop.set()
        thread.join(10)
    assert seen[-1] == -1.0
    assert not thread.is_alive()
