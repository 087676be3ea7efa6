"""What is done to workers, and when: only what can be mended before the end."""

import itertools
import json
from pathlib import Path

import pytest

from demo.failures import Mishaps, until_restarted
from demo.recording import Failure
from demo.settings import Settings


@pytest.mark.parametrize(
    ("minutes", "start_up", "expected"),
    [
        pytest.param(7.0, 60.0, ["killed", "hung"], id="the whole show"),
        pytest.param(2.0, 10.0, ["killed", "hung"], id="the shortest one of the README"),
        pytest.param(2.5, 60.0, ["killed"], id="too short for a second repair"),
        pytest.param(60.0, 600.0, ["killed", "hung"], id="workers that need ten minutes"),
    ],
)
def test_failures_are_planned_one_after_the_other_and_so_that_both_are_mended(
    minutes: float, start_up: float, expected: list[str]
) -> None:
    planned = Settings(Path("."), minutes=minutes, start_up_seconds=start_up).failures_planned
    assert [what for what, _ in planned] == expected
    times = [at for _, at in planned]
    assert all(later - earlier >= start_up + 10.0 for earlier, later in itertools.pairwise(times))
    assert times[-1] + start_up + 20.0 < minutes * 60.0


def test_in_the_whole_show_both_happen_before_the_rise() -> None:
    chosen = Settings(Path("."))
    assert all(at < chosen.seconds_before_rise for _, at in chosen.failures_planned)
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
