"""The cards through a C library that stands in for NVML: whole pages, and what happens on bad days."""

import contextlib
import ctypes
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

import pynvml
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporters.collector import CollectFunction, Collectors, PartialReadError
from exporters.gpu import card
from exporters.gpu.fleet import Fleet
from tests.exporters.gpu.conftest import HERE, TWO_CARDS, FleetFactory, State, until

Page = Callable[[Mapping[str, CollectFunction]], str]
A, B = "GPU-aaaaaaaa-0000-0000-0000-000000000000", "GPU-bbbbbbbb-0000-0000-0000-000000000000"


def scrape(fleet: Fleet, seconds: float = 5.0) -> tuple[dict[str, float], str | None]:
    """{series as it stands on the page: value} of one scrape, and the sentence of what could not be read."""
    found: dict[str, float] = {}
    problem = None
    try:
        for metric in fleet.collect(time.monotonic() + seconds):
            for sample in metric.samples:
                labels = ",".join(f'{key}="{text}"' for key, text in sample.labels.items())
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    except PartialReadError as error:
        problem = str(error)
    return found, problem


def of(uuid: str, found: Mapping[str, float]) -> dict[str, float]:
    """What is known of a card besides whether it works, and its XIDs."""
    return {
        series: value
        for series, value in found.items()
        if f'uuid="{uuid}"' in series and not series.startswith(("gpu_up", "gpu_problem", "gpu_xid"))
    }


def reasons(found: Mapping[str, float], family: str = "gpu_problem_active") -> list[str]:
    """The series of why something is down that are 1."""
    return [series for series, value in found.items() if series.startswith(family) and value == 1]


def down(uuid: str, reason: str) -> str:
    return f'gpu_problem_active{{uuid="{uuid}",reason="{reason}"}}'


def test_the_page_of_two_cards_of_different_ability_is_the_expected_text(
    cards: State, make_fleet: FleetFactory, page: Page
) -> None:
    fleet = make_fleet(owned=lambda memory: [])
    page({"nvml": fleet.collect})  # activity is measured between two scrapes
    assert page({"nvml": fleet.collect}) == (HERE / "two_cards_metrics.txt").read_text()


def test_the_exporter_as_a_process_shows_the_same_page(shim: Path, tmp_path: Path, cards: State) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"LD_LIBRARY_PATH": str(shim.parent)}
    command = [sys.executable, "-m", "exporters", "gpu", "--web.listen-address", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, env=environment, cwd=HERE.parents[2], stderr=subprocess.DEVNULL)
    try:
        text = ""

        def scraped() -> bool:
            nonlocal text
            with contextlib.suppress(OSError):
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10).read().decode()
            return "gpu_sm_active_ratio" in text  # from the second scrape on

        until(scraped, 30)
    finally:
        process.terminate()
        process.wait(10)
    ours = [line for line in text.splitlines() if re.match(r"(# \w+ )?gpu_", line)]
    assert "\n".join(ours) + "\n" == (HERE / "two_cards_metrics.txt").read_text()
    assert 'tidewise_exporter_collector_success{collector="gpu.nvml"} 1.0' in text


def test_where_there_is_no_library_the_exporter_runs_and_says_so(tmp_path: Path) -> None:
    program = (
        "import time, json, pynvml\n"
        "from pathlib import Path\n"
        "from exporters.gpu.fleet import Fleet\n"
        "def none(name): raise OSError(name)\n"
        "pynvml.CDLL = none\n"
        "fleet = Fleet(lambda: pynvml, Path('/proc'), None)\n"
        "for _ in range(2):\n"
        "    samples = [s for m in fleet.collect(time.monotonic() + 5) for s in m.samples]\n"
        "    print([(s.name, *s.labels.values()) for s in samples if s.value])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, cwd=HERE.parents[2]
    )
    assert done.stdout.splitlines()[-1] == "[('gpu_driver_problem_active', 'library_not_found')]", done.stderr
    assert done.stdout.count("gpu_driver_down") == 1, "one line in the log"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(9, "driver_not_loaded"), (12, "library_not_found"), (18, "version_mismatch"), (999, "error"), (20, "error")],
)
def test_a_driver_that_cannot_be_asked_is_told_with_its_reason_and_logged_once(
    code: int, reason: str, cards: State, make_fleet: FleetFactory, log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    cards.set(nvmlInitWithFlags=f"error {code}")
    fleet = make_fleet()
    for _ in range(3):
        found, problem = scrape(fleet)
        assert found["gpu_driver_up"] == 0
        assert reasons(found, "gpu_driver_problem") == [f'gpu_driver_problem_active{{reason="{reason}"}}']
        assert {series.split("{")[0] for series in found} == {"gpu_driver_up", "gpu_driver_problem_active"}
        assert problem is None
    cards.set(nvmlInitWithFlags=None)
    found, _ = scrape(fleet)
    assert found["gpu_driver_up"] == 1
    assert found[f'gpu_up{{uuid="{A}"}}'] == 1
    assert [event for event, _ in log_events()] == ["gpu_driver_down", "gpu_driver_up"]


def test_a_driver_that_is_unloaded_under_a_running_exporter_takes_its_series_along_and_brings_them_back(
    cards: State, make_fleet: FleetFactory
) -> None:
    fleet = make_fleet()
    before, _ = scrape(fleet)
    cards.set(gpu0="error 9", gpu1="error 9", nvmlInitWithFlags="error 9")
    for _ in range(2):
        found, _ = scrape(fleet)
        assert found["gpu_driver_up"] == 0
        assert of(A, found) == of(B, found) == {}
    cards.set(gpu0=None, gpu1=None, nvmlInitWithFlags=None)
    after, _ = scrape(fleet)
    assert after == before


@pytest.mark.parametrize(("code", "reason"), [(15, "lost"), (16, "reset_required"), (28, "lost")])
def test_a_lost_card_is_down_without_series_the_other_stays_and_a_reset_brings_it_back(
    code: int,
    reason: str,
    cards: State,
    make_fleet: FleetFactory,
    log_events: Callable[[], list[tuple[str, str]]],
) -> None:
    fleet = make_fleet()
    before, _ = scrape(fleet)
    cards.set(gpu0__nvmlDeviceGetPowerUsage=f"error {code}")
    for _ in range(3):
        found, problem = scrape(fleet)
        assert found[f'gpu_up{{uuid="{A}"}}'] == 0
        assert reasons(found) == [down(A, reason)]
        assert of(A, found) == {}
        assert of(B, found) == of(B, before)
        assert found["gpu_driver_up"] == 1
        assert problem is None
    cards.set(gpu0__nvmlDeviceGetPowerUsage="631950")
    found, _ = scrape(fleet)
    assert reasons(found) == []
    assert found == before
    assert [event for event, _ in log_events()] == ["gpu_lost", "gpu_found_again"]


def test_nvml_is_initialised_anew_for_a_lost_card_and_given_back_each_time(
    cards: State, shim: Path, make_fleet: FleetFactory
) -> None:
    fleet = make_fleet()
    scrape(fleet)
    cards.set(gpu1="error 15")
    scrape(fleet)
    cards.calls()
    for _ in range(3):
        scrape(fleet)
    calls = cards.calls()
    assert calls.count("nvmlInitWithFlags") == calls.count("nvmlShutdown") == 3
    fleet.close()
    library = ctypes.CDLL(str(shim))
    assert (library.shimInitialised(), library.shimSamples()) == (0, 0)


def test_for_a_lost_card_nvml_is_not_initialised_at_every_scrape(cards: State, make_fleet: FleetFactory) -> None:
    fleet = make_fleet(retry_seconds=30.0)
    cards.set(gpu1="error 15")
    for _ in range(5):
        scrape(fleet)
    assert cards.calls().count("nvmlInitWithFlags") == 1


def test_a_card_that_is_not_listed_any_more_is_gone_and_remembered_by_its_name(
    cards: State, make_fleet: FleetFactory, tmp_path: Path
) -> None:
    listing = tmp_path / "proc" / "driver" / "nvidia" / "gpus"
    (listing / "0000:00:09.0").mkdir(parents=True)
    (listing / "0000:00:0a.0").mkdir()
    fleet = make_fleet()
    scrape(fleet)
    (listing / "0000:00:0a.0").rmdir()
    cards.set(nvmlDeviceGetCount_v2="1")
    found, _ = scrape(fleet)
    assert found[f'gpu_up{{uuid="{B}"}}'] == 0
    assert reasons(found) == [down(B, "gone")]
    assert of(A, found)
    (listing / "0000:00:0a.0").mkdir()  # plugged in again
    cards.set(nvmlDeviceGetCount_v2="2")
    found, _ = scrape(fleet)
    assert reasons(found) == []
    assert of(B, found)


def test_a_card_that_is_lost_from_the_beginning_has_no_name_yet(cards: State, make_fleet: FleetFactory) -> None:
    cards["nvmlDeviceGetHandleByIndex_v2.1"] = "error 15"
    fleet = make_fleet()
    for _ in range(2):
        found, _ = scrape(fleet)
        assert reasons(found) == [down("unknown-0", "lost")]
    cards["nvmlDeviceGetHandleByIndex_v2.1"] = None
    found, _ = scrape(fleet)
    assert reasons(found) == []
    assert not any("unknown" in series for series in found)


def test_a_card_that_is_counted_and_may_not_be_opened_is_not_lost(cards: State, make_fleet: FleetFactory) -> None:
    cards["nvmlDeviceGetHandleByIndex_v2.1"] = "error 4"
    found, problem = scrape(make_fleet())
    assert (reasons(found), problem) == ([], None)
    assert of(A, found)
    assert [series for series in found if series.startswith("gpu_up")] == [f'gpu_up{{uuid="{A}"}}']


def test_a_card_that_can_no_longer_be_named_is_down_by_the_name_it_had(cards: State, make_fleet: FleetFactory) -> None:
    fleet = make_fleet()
    scrape(fleet)
    cards["gpu1"] = "error 16"
    cards["nvmlDeviceGetHandleByIndex_v2.1"] = "error 16"
    for _ in range(3):
        found, _ = scrape(fleet)
        assert reasons(found) == [down(B, "reset_required")]


def test_a_call_that_hangs_costs_its_card_once_and_no_other_and_is_left_alone_until_it_returns(
    cards: State, make_fleet: FleetFactory
) -> None:
    fleet = make_fleet(patience_seconds=0.3)
    before, _ = scrape(fleet)
    cards.set(gpu0__nvmlDeviceGetTemperature__0="hang")
    began = time.monotonic()
    found, problem = scrape(fleet)
    assert time.monotonic() - began < 3
    assert problem == f"{A}: a call does not return; the card is left alone until it does"
    assert reasons(found) == [down(A, "no_answer")]
    assert of(A, found) == {}
    assert of(B, found) == of(B, before)
    cards.calls()
    for _ in range(3):
        found, problem = scrape(fleet, seconds=60)
        assert problem is not None
        assert of(B, found) == of(B, before)
    assert not [call for call in cards.calls() if call.startswith("gpu0")]
    cards.set(gpu0__nvmlDeviceGetTemperature__0="59")
    until(lambda: scrape(fleet)[1] is None)
    found, _ = scrape(fleet)
    assert of(A, found).keys() >= of(A, before).keys()


def test_a_hanging_card_is_within_the_budget_of_the_scrape_and_the_collector_is_incomplete(
    cards: State, make_fleet: FleetFactory, log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    fleet = make_fleet(patience_seconds=0.2)
    collectors = Collectors({"gpu.nvml": fleet.collect, "other": lambda deadline: ()})
    cards.set(gpu1="hang")
    for _ in range(2):
        success = {
            sample.labels["collector"]: sample.value
            for metric in collectors.collect()
            if metric.name == "tidewise_exporter_collector_success"
            for sample in metric.samples
        }
        assert success == {"gpu.nvml": 0, "other": 1}
    assert [event for event, _ in log_events()] == ["collector_incomplete"]
    cards.set(gpu1=None)


def test_a_driver_that_hangs_while_it_starts_is_left_alone_until_it_returns(
    cards: State, make_fleet: FleetFactory
) -> None:
    fleet = make_fleet(patience_seconds=0.2)
    cards.set(nvmlInitWithFlags="hang")
    for _ in range(3):
        found, problem = scrape(fleet)
        assert reasons(found, "gpu_driver_problem") == ['gpu_driver_problem_active{reason="no_answer"}']
        assert problem is not None
        assert problem.startswith("the NVIDIA driver does not answer")
    assert cards.calls().count("nvmlInitWithFlags") == 1
    cards.set(nvmlInitWithFlags=None)
    until(lambda: scrape(fleet)[1] is None)


def test_what_a_card_does_not_know_is_absent_no_failure_and_not_asked_for_at_every_scrape(
    cards: State, make_fleet: FleetFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet()
    found, problem = scrape(fleet)
    assert problem is None
    assert not [series for series in of(B, found) if "power" in series]
    asked = cards.calls()
    scrape(fleet)
    asked_again = cards.calls()
    assert "gpu1.nvmlDeviceGetPowerUsage" in asked
    assert "gpu1.nvmlDeviceGetPowerUsage" not in asked_again
    assert len(asked_again) < 60
    assert asked_again.count("gpu0.nvmlDeviceGetFieldValues") == 1
    cards.set(gpu1__nvmlDeviceGetPowerUsage="30000")
    cards.set(gpu1__nvmlDeviceGetTemperature__0="error 15")  # lost, and reset
    scrape(fleet)
    cards.set(gpu1__nvmlDeviceGetTemperature__0="31")
    found, _ = scrape(fleet)
    assert of(B, found)[f'gpu_power_watts{{uuid="{B}"}}'] == 30
    cards.set(gpu1__nvmlDeviceGetEnforcedPowerLimit="40000")
    monkeypatch.setattr(card, "REMEMBER_SECONDS", -1.0)
    scrape(fleet)
    later = time.monotonic() + 601
    monkeypatch.setattr(time, "monotonic", lambda: later)
    found, _ = scrape(fleet)
    assert of(B, found)[f'gpu_power_limit_watts{{uuid="{B}"}}'] == 40


@pytest.mark.parametrize("code", [4, 13, 25])
def test_what_may_not_be_asked_or_an_older_driver_has_not_is_as_little_a_failure(
    code: int, cards: State, make_fleet: FleetFactory
) -> None:
    cards.set(gpu0__nvmlDeviceGetComputeRunningProcesses_v3=f"error {code}", gpu0__field__83=f"error {code}")
    found, problem = scrape(make_fleet())
    assert problem is None
    assert f'gpu_processes{{uuid="{A}"}}' not in found
    assert f'gpu_energy_joules_total{{uuid="{A}"}}' not in found


def test_a_question_that_fails_for_no_known_reason_loses_its_own_series_and_is_told(
    cards: State, make_fleet: FleetFactory
) -> None:
    fleet = make_fleet()
    before, _ = scrape(fleet)
    cards.set(gpu0__nvmlDeviceGetPowerUsage="error 999")
    found, problem = scrape(fleet)
    assert problem == f"{A}: nvmlDeviceGetPowerUsage: Unknown Error"
    assert of(A, before).keys() - of(A, found).keys() == {f'gpu_power_watts{{uuid="{A}"}}'}
    assert found[f'gpu_up{{uuid="{A}"}}'] == 1


@pytest.mark.parametrize("call", ["nvmlDeviceGetName", "nvmlDeviceGetPciInfo_v3"])
def test_what_a_card_is_called_is_asked_again_when_it_failed_at_first_and_then_never_more(
    cards: State, make_fleet: FleetFactory, call: str
) -> None:
    fleet = make_fleet()
    right = cards[f"gpu0.{call}"]
    cards[f"gpu0.{call}"] = "error 999"
    _, problem = scrape(fleet)
    assert problem is not None
    cards[f"gpu0.{call}"] = right
    found, problem = scrape(fleet)
    assert problem is None
    [info] = [series for series in found if series.startswith("gpu_info{") and A in series]
    assert '=""' not in info
    cards.calls()
    scrape(fleet)
    assert f"gpu0.{call}" not in cards.calls()


def test_a_card_that_answers_nothing_but_errors_is_down(cards: State, make_fleet: FleetFactory) -> None:
    fleet = make_fleet()
    scrape(fleet)
    cards.set(gpu1="error 999")
    found, problem = scrape(fleet)
    assert reasons(found) == [down(B, "error")]
    assert of(B, found) == {}
    assert problem is not None


def test_a_card_that_counts_the_errors_of_each_link_alone_has_their_sum(cards: State, make_fleet: FleetFactory) -> None:
    for field in (38, 45, 52, 59):
        cards[f"gpu0.field.{field}"] = None
    fleet = make_fleet()
    assert not [series for series in scrape(fleet)[0] if series.startswith("gpu_nvlink_errors")]
    fleet.close()
    cards["gpu0.field.161"], cards["gpu0.field.163"] = "3", "0"
    found, problem = scrape(make_fleet())
    errors = {series: value for series, value in found.items() if series.startswith("gpu_nvlink_errors")}
    assert errors == {
        f'gpu_nvlink_errors_total{{uuid="{A}",kind="replay"}}': 6,
        f'gpu_nvlink_errors_total{{uuid="{A}",kind="crc"}}': 0,
    }
    assert problem is None


FUNCTIONS = sorted({line.split(":")[0] for line in TWO_CARDS.read_text().splitlines() if line.startswith("gpu0.nvml")})


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(function=st.sampled_from([*FUNCTIONS, "gpu0", "gpu0.mig2"]), code=st.sampled_from([*range(1, 31), 999, 12345]))
def test_whatever_fails_and_however_the_page_is_there_and_the_other_card_is_right(
    cards: State, make_fleet: FleetFactory, function: str, code: int
) -> None:
    fleet = make_fleet()
    before, _ = scrape(fleet)
    line = cards[function]
    cards[function] = f"error {code}"
    try:
        for _ in range(2):
            found, _ = scrape(fleet)
            if found["gpu_driver_up"]:
                assert of(B, found) == of(B, before)
                assert bool(of(A, found)) == bool(found[f'gpu_up{{uuid="{A}"}}'])
            else:
                assert of(B, found) == {}
    finally:
        cards[function] = line
    for _ in range(2):
        found, problem = scrape(fleet)
    assert problem is None
    assert found["gpu_driver_up"] == found[f'gpu_up{{uuid="{A}"}}'] == 1
    fleet.close()


def test_a_name_that_is_no_text_harms_nothing(cards: State, make_fleet: FleetFactory, page: Page) -> None:
    path = cards.path
    text = path.read_bytes().replace(b"NVIDIA GeForce GT 1030", b'NV"\\IDIA \xff\xfe card')
    path.write_bytes(text)
    assert scrape(make_fleet())[1] is None, "nothing that another scrape could mend"
    found = page({"nvml": make_fleet().collect})
    assert f'index="1",name="",pci_bus_id="00000000:00:0A.0",uuid="{B}"' in found


def test_xids_are_counted_by_number_and_survive_a_reset_of_the_card(cards: State, make_fleet: FleetFactory) -> None:
    fleet = make_fleet()
    found, _ = scrape(fleet)
    zeros = {series: value for series, value in found.items() if series.startswith("gpu_xid")}
    assert len(zeros) == 8
    assert set(zeros.values()) == {0}, "the card that knows no events has none"
    began = time.time()
    cards["event.1"], cards["event.2"], cards["event.3"] = "0 79", "0 31", "0 31"

    def counted(xid: int) -> float:
        return scrape(fleet)[0].get(f'gpu_xid_errors_total{{uuid="{A}",xid="{xid}"}}', 0)

    until(lambda: counted(31) == 2)
    assert counted(79) == 1
    found, _ = scrape(fleet)
    for xid in (31, 79):
        assert began <= found[f'gpu_xid_last_timestamp_seconds{{uuid="{A}",xid="{xid}"}}'] <= time.time()
    cards.set(gpu0="error 15")
    for _ in range(2):
        found, _ = scrape(fleet)
        assert found[f'gpu_up{{uuid="{A}"}}'] == 0
        assert counted(79) == 1
    cards.set(gpu0=None)
    for _ in range(2):  # found again; its events are asked for again
        scrape(fleet)
    cards["event.4"] = "0 79"
    until(lambda: counted(79) == 2)


def test_two_scrapes_at_once_get_the_same_activity(
    cards: State, make_fleet: FleetFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = make_fleet()
    scrape(fleet)
    monkeypatch.setattr(card, "SHORTEST_WINDOW_SECONDS", 60.0)
    assert f'gpu_sm_active_ratio{{uuid="{A}"}}' not in scrape(fleet)[0], "nothing is known of so short a time"
    monkeypatch.setattr(card, "SHORTEST_WINDOW_SECONDS", 0.0)
    first, _ = scrape(fleet)
    monkeypatch.setattr(card, "SHORTEST_WINDOW_SECONDS", 60.0)
    cards.calls()
    assert scrape(fleet)[0] == first
    assert "gpu0.nvmlGpmSampleGet" not in cards.calls()


def test_scrapes_in_a_row_keep_no_sample_of_activity_behind(cards: State, shim: Path, make_fleet: FleetFactory) -> None:
    fleet = make_fleet()
    for _ in range(20):
        scrape(fleet)
    assert ctypes.CDLL(str(shim)).shimSamples() == 1
    assert sys.getrefcount(pynvml.nvmlLib) < 50
