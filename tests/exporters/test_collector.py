"""Each collector alone: failing, hanging and ill-made ones lose their own series, and the page stays."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from exporters.collector import CollectFunction, Collectors, PartialReadError, Prompt, budget_seconds
from exporters.lanes import KEPT, LANES, Lanes
from exporters.runtime.endpoint import SCRAPE_TIMEOUT_SECONDS


def good(deadline: float) -> Iterator[Metric]:
    yield GaugeMetricFamily("good", "A value.", 1)


def gauge(value: float, label: str = "a") -> Iterator[Metric]:
    family = GaugeMetricFamily("other", "A value.", labels=["label"])
    family.add_metric([label], value)
    yield family


def failing(deadline: float) -> Iterator[Metric]:
    yield GaugeMetricFamily("half", "Half a read is none.", 1)
    raise OSError("the cable is out")


def partly(deadline: float) -> Iterator[Metric]:
    yield GaugeMetricFamily("half", "What could be read.", 1)
    raise PartialReadError("the other half is missing")


class Scraped:
    """One scrape of some collectors, within `timeout` seconds as Prometheus would tell it."""

    def __init__(self, collectors: Collectors, timeout: float | None = None) -> None:
        registry = CollectorRegistry()
        registry.register(collectors)
        token = SCRAPE_TIMEOUT_SECONDS.set(timeout)
        started = time.monotonic()
        try:
            self.text = generate_latest(registry).decode()
        finally:
            SCRAPE_TIMEOUT_SECONDS.reset(token)
        self.seconds = time.monotonic() - started
        self.values = {
            (sample.name, *sample.labels.values()): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def success(self, name: str) -> float | None:
        return self.values.get(("tidewise_exporter_collector_success", name))

    def last_success(self, name: str) -> float | None:
        return self.values.get(("tidewise_exporter_collector_last_success_timestamp_seconds", name))


def test_a_good_collector_has_its_series_success_duration_and_time() -> None:
    before = time.time()
    scraped = Scraped(Collectors({"good": good}))
    assert scraped.values["good",] == 1
    assert scraped.success("good") == 1
    assert 0 <= scraped.values["tidewise_exporter_collector_duration_seconds", "good"] < 1
    last = scraped.last_success("good")
    assert last is not None
    assert before <= last <= time.time()


@pytest.mark.parametrize(
    ("function", "left"),
    [
        pytest.param(failing, [], id="one that fails half-way leaves nothing, not half"),
        pytest.param(partly, ["half"], id="one that says its read is partial keeps what it read"),
        pytest.param(lambda _: gauge("1.0.0"), [], id="a value that is no number"),  # type: ignore[arg-type]
        pytest.param(lambda _: gauge(1, label=7), [], id="a label that is no text"),  # type: ignore[arg-type]
        pytest.param(lambda _: gauge(1, label="\udce9"), [], id="a label that cannot be written as UTF-8"),
        pytest.param(lambda _: iter([None]), [], id="something that is no metric"),
        pytest.param(lambda _: iter([CounterMetricFamily("good", "", 1)]), [], id="a name taken with another type"),
    ],
)
def test_a_bad_collector_takes_only_its_own_series(function: CollectFunction, left: list[str]) -> None:
    scraped = Scraped(Collectors({"good": good, "bad": function}))
    assert scraped.values["good",] == 1
    assert scraped.success("good") == 1
    assert scraped.success("bad") == 0
    assert scraped.last_success("bad") is None, "there was none, and 1970 would be a lie"
    own = {name for name, *_ in scraped.values if not name.startswith("tidewise_exporter_")} - {"good"}
    assert sorted(own) == left


def test_two_collectors_may_have_series_of_one_name_and_it_stands_once() -> None:
    collectors = Collectors({"one": lambda _: gauge(1, "one"), "two": lambda _: gauge(2, "two")})
    first, second = Scraped(collectors), Scraped(collectors)
    for scraped in (first, second):
        assert scraped.text.count("# TYPE other gauge") == 1
        assert scraped.values["other", "one"] == 1
        assert scraped.values["other", "two"] == 2


@pytest.mark.parametrize("label", ['quote"', "back\\slash", "new\nline", "ünïcode", " ", "{}=,"])
def test_odd_label_values_come_back_as_they_were(label: str) -> None:
    assert Scraped(Collectors({"odd": lambda _: gauge(3, label)})).values["other", label] == 3


class Hanging:
    """A collector that stands still until it is released."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.calls = 0

    def __call__(self, deadline: float) -> Iterator[Metric]:
        self.calls += 1
        self.gate.wait(30)
        yield GaugeMetricFamily("hung", "At last.", 1)


def test_a_hanging_collector_costs_the_budget_once_and_is_not_started_twice() -> None:
    hanging = Hanging()
    collectors = Collectors({"hanging": hanging, "good": good})

    first = Scraped(collectors, timeout=0.8)
    assert first.seconds < 0.8
    assert first.values["good",] == 1
    assert first.success("good") == 1
    assert first.success("hanging") == 0
    assert ("hung",) not in first.values
    assert first.values["tidewise_exporter_collector_duration_seconds", "hanging"] >= 0.3

    second = Scraped(collectors, timeout=0.8)
    assert second.seconds < 0.2, "nobody waits again for a run that is overdue"
    assert second.success("hanging") == 0
    assert second.values["good",] == 1
    assert hanging.calls == 1

    hanging.gate.set()
    deadline = time.monotonic() + 5
    third = second
    while third.success("hanging") != 1 and time.monotonic() < deadline:
        third = Scraped(collectors, timeout=0.8)
    assert third.values["hung",] == 1


def test_slow_collectors_wait_together() -> None:
    def slow(deadline: float) -> Iterator[Metric]:
        time.sleep(0.3)
        return iter(())

    scraped = Scraped(Collectors({f"slow {number}": slow for number in range(5)} | {"good": good}))
    assert scraped.seconds < 0.9, "five times 0.3 s one after another would be 1.5 s"
    assert all(scraped.success(f"slow {number}") == 1 for number in range(5))


def test_when_every_thread_hangs_the_ones_behind_are_failures_and_come_next_time() -> None:
    gates = [Hanging() for _ in range(60)]
    collectors = Collectors({f"hanging {number}": gate for number, gate in enumerate(gates)} | {"last": good})
    first = Scraped(collectors, timeout=0.2)
    assert first.success("last") == 0, "0.1 s is not enough to pass 60 that hang"
    for gate in gates:
        gate.gate.set()
    deadline = time.monotonic() + 10
    later = first
    while later.success("last") != 1 and time.monotonic() < deadline:
        later = Scraped(collectors)
    assert later.values["good",] == 1


def test_what_cannot_hang_runs_in_the_scrape_s_own_thread_and_fails_alone_as_well() -> None:
    threads: list[threading.Thread] = []

    def prompt(deadline: float) -> Iterator[Metric]:
        threads.append(threading.current_thread())
        return good(deadline)

    functions: dict[str, CollectFunction] = {"prompt": Prompt(prompt), "failing": Prompt(failing), "partly": partly}
    scraped = Scraped(Collectors(functions))
    assert threads == [threading.current_thread()]
    assert [scraped.success(name) for name in functions] == [1, 0, 0]
    assert scraped.values["good",] == 1
    assert scraped.values["half",] == 1


def test_threads_wait_for_the_next_scrape_and_no_more_of_them_than_a_few() -> None:
    lanes = Lanes()
    threads: set[threading.Thread] = set()
    ended = threading.Semaphore(0)

    def note() -> None:
        threads.add(threading.current_thread())
        ended.release()

    for _ in range(20):
        lanes.start(note)
        assert ended.acquire(timeout=5)
        time.sleep(0.001)
    assert len(threads) <= 5, "one of them does nearly everything"

    gate = threading.Event()

    def hang() -> None:
        gate.wait(10)
        ended.release()

    for _ in range(KEPT + 5):
        lanes.start(hang)
    lanes.start(note)
    assert ended.acquire(timeout=5), "none waits for another that hangs"
    gate.set()
    assert all(ended.acquire(timeout=5) for _ in range(KEPT + 5))


def test_a_clock_that_is_set_back_makes_no_duration_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    collectors = Collectors({"good": good})
    assert Scraped(collectors).success("good") == 1
    monkeypatch.setattr(time, "time", lambda: 1.0)
    scraped = Scraped(collectors)
    assert scraped.values["tidewise_exporter_collector_duration_seconds", "good"] >= 0
    assert scraped.last_success("good") == 1


def test_overlapping_scrapes_share_one_run() -> None:
    hanging = Hanging()
    collectors = Collectors({"slow": hanging})
    results: list[Scraped] = []
    scrapes = [threading.Thread(target=lambda: results.append(Scraped(collectors))) for _ in range(3)]
    for scrape in scrapes:
        scrape.start()
    time.sleep(0.1)
    hanging.gate.set()
    for scrape in scrapes:
        scrape.join(10)
    assert hanging.calls == 1
    assert [result.text.count("\nhung 1.0") for result in results] == [1, 1, 1]


def test_a_scrape_that_gets_no_thread_says_so_and_the_next_one_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    collectors = Collectors({"good": good, "prompt": Prompt(lambda _: gauge(2))})
    with monkeypatch.context() as patched:
        patched.setattr(LANES, "start", refuse)
        scraped = Scraped(collectors)
    assert (scraped.success("good"), scraped.success("prompt")) == (0, 1)
    assert scraped.seconds < 5, "nobody waits for what was not begun"
    assert Scraped(collectors).success("good") == 1


def test_the_log_hears_of_changes_only(log_events: Callable[[], list[tuple[str, str]]]) -> None:
    broken = True

    def moody(deadline: float) -> Iterator[Metric]:
        if broken:
            raise OSError("the cable is out")
        return good(deadline)

    collectors = Collectors({"moody": moody})
    for _ in range(3):
        Scraped(collectors)
    broken = False
    for _ in range(3):
        Scraped(collectors)
    assert log_events() == [
        ("collector_failed", "OSError: the cable is out"),
        ("collector_recovered", ""),
    ]


@pytest.mark.parametrize(
    ("timeout", "budget"),
    [
        pytest.param(None, 9.5, id="no word from Prometheus: its default of 10 s is taken"),
        pytest.param(5.0, 4.5, id="half a second is left for rendering and the way back"),
        pytest.param(0.6, 0.3, id="of a very short timeout at least half is used"),
    ],
)
def test_budget(timeout: float | None, budget: float) -> None:
    assert budget_seconds(timeout) == pytest.approx(budget)
