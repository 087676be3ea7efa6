"""What is done to workers, and when: only what can be mended before the end."""

import json
from pathlib import Path

import pytest

from demo.failures import Mishaps, until_restarted
from demo.recording import Failure
from demo.settings import NOTICED_SECONDS, STABILITY_SECONDS, Settings


@pytest.mark.parametrize(
    ("minutes", "start_up"),
    [
        pytest.param(7.0, 60.0, id="the whole show"),
        pytest.param(1.5, 0.0, id="the shortest"),
        pytest.param(2.5, 60.0, id="the shortest with a minute's start-up"),
        pytest.param(11.5, 600.0, id="the shortest with ten"),
        pytest.param(60.0, 10.0, id="the longest"),
    ],
)
def test_failures_come_one_after_the_other_and_both_can_be_mended_before_the_end(
    minutes: float, start_up: float
) -> None:
    chosen = Settings(Path("."), minutes=minutes, start_up_seconds=start_up)
    (first, killed_at), (second, hung_at) = chosen.failures_planned
    assert (first, second) == ("killed", "hung")
    slowest = NOTICED_SECONDS + chosen.restart_seconds + STABILITY_SECONDS
    assert killed_at + slowest <= hung_at
    assert hung_at + slowest <= chosen.live_seconds


def test_in_the_whole_show_both_happen_before_the_rise() -> None:
    chosen = Settings(Path("."))
    assert all(at < chosen.seconds_before_rise - chosen.start_up_seconds for _, at in chosen.failures_planned)
    assert Settings(Path("."), failures=False).failures_planned == []


def test_without_a_foreman_nothing_is_done_and_that_is_said(tmp_path: Path) -> None:
    mishaps = Mishaps(tmp_path, [("killed", 5.0), ("hung", 50.0)], live_start=1000.0)
    assert mishaps.look(1004.0) == []
    (told,) = mishaps.look(1006.0)
    assert "left out" in told
    assert mishaps.done == []


def test_a_failure_ends_with_the_restart_of_its_own_worker(tmp_path: Path) -> None:
    lines = [
        {"at": 90.0, "event": "restart", "slot": 3},
        {"at": 101.0, "event": "died", "slot": 3},
        {"at": 110.0, "event": "restart", "slot": 4},
        {"at": 112.0, "event": "restart", "slot": 3},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "fleet.jsonl").write_text(text + '{"at": 113.0, "ev')  # cut short by a kill
    found = until_restarted([Failure("killed", "worker-03", 100.0), Failure("hung", "worker-09", 100.0)], tmp_path)
    assert [one.restarted_at for one in found] == [112.0, None]
