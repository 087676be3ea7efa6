"""What is started is watched and ended: parts that die, Ctrl-C, the folder and its lock."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from demo import stage as stage_module
from demo.folder import MARK, FolderError, taken
from demo.interrupts import Interrupts
from demo.processes import OwnProcess
from demo.stage import Stage


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def stage(said: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Stage]:
    monkeypatch.setattr(stage_module, "RESTART_SECONDS", 0.1)
    made = Stage(said.append)
    yield made
    made.stop()


def sleeper(folder: Path, name: str = "sleeper", seconds: float = 60.0) -> OwnProcess:
    """A process that does nothing for so long."""
    (folder / "sleeper.py").write_text(f"import time; print('awake', flush=True); time.sleep({seconds})")
    process = OwnProcess(name, folder, "sleeper", [])
    process.argv = [sys.executable, str(folder / "sleeper.py")]
    return process


def wait_for(true: Callable[[], object], seconds: float = 10.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not come true in time"
        time.sleep(0.02)


def test_a_part_that_dies_is_said_and_started_again(stage: Stage, said: list[str], tmp_path: Path) -> None:
    part = sleeper(tmp_path)
    stage.start(part)
    wait_for(lambda: "awake" in part.log_tail())
    os.kill(part.pid or 0, signal.SIGKILL)
    wait_for(lambda: not part.running)
    stage.watch()
    assert said == ["sleeper ended by itself (signal SIGKILL); it is started again in 0.1 s. Its log ends:\n    awake"]
    time.sleep(0.15)
    stage.watch()
    assert part.running
    assert said[1:] == ["sleeper runs again"]


def test_a_part_that_keeps_dying_is_left_in_the_end(stage: Stage, said: list[str], tmp_path: Path) -> None:
    part = sleeper(tmp_path, seconds=0.0)
    stage.start(part)
    until = time.monotonic() + 10
    while "the demo goes on without it" not in said[-1] if said else True:
        assert time.monotonic() < until, said
        stage.watch()
        time.sleep(0.02)
    assert said.count("sleeper runs again") == 3
    stage.watch()
    assert "the demo goes on without it" in said[-1]


def test_an_end_that_was_expected_is_no_news(stage: Stage, said: list[str], tmp_path: Path) -> None:
    part = sleeper(tmp_path, seconds=0.0)
    stage.start(part)
    stage.expect_end("sleeper")
    wait_for(lambda: not part.running)
    stage.watch()
    assert said == []


def test_named_parts_end_first_then_all(stage: Stage, tmp_path: Path) -> None:
    first, second = sleeper(tmp_path, "first"), sleeper(tmp_path, "second")
    stage.start(first)
    stage.start(second)
    stage.stop("first")
    assert (first.running, second.running) == (False, True)
    assert list(stage.pids) == ["second"]
    stage.stop()
    assert not second.running


def test_kill_ends_even_what_ignores_a_request(stage: Stage, tmp_path: Path) -> None:
    part = sleeper(tmp_path)
    (tmp_path / "sleeper.py").write_text(
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('awake', flush=True); time.sleep(60)"
    )
    stage.start(part)
    wait_for(lambda: "awake" in part.log_tail())
    stage.kill()
    wait_for(lambda: not part.running)


def test_the_first_request_to_stop_is_polled_and_the_second_goes_harder() -> None:
    harder: list[int] = []
    before = signal.getsignal(signal.SIGTERM)
    with Interrupts(lambda: harder.append(1)) as interrupts:
        assert not interrupts.wait(0.0)
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupts.wait(1.0)
        with pytest.raises(KeyboardInterrupt):
            interrupts.check()
        assert harder == []
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.count == 2
        assert harder == [1]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_long_call_is_cut_short_at_once() -> None:
    with Interrupts(lambda: None) as interrupts:
        began = time.monotonic()
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), interrupts.at_once():
            time.sleep(10)
        assert time.monotonic() - began < 5


def test_the_folder_is_emptied_only_where_a_demo_made_it(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    with taken(folder):
        (folder / "old.json").write_text("{}")
        (folder / "prometheus").mkdir()
    with taken(folder):
        assert [path.name for path in folder.iterdir()] == [MARK]
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("words")
    with pytest.raises(FolderError, match="holds files that no demo made"), taken(precious):
        pass
    assert (precious / "thesis.txt").read_text() == "words"


def test_two_demos_do_not_share_a_folder(tmp_path: Path) -> None:
    with taken(tmp_path / "demo"):
        with pytest.raises(FolderError, match="another demo runs in it"), taken(tmp_path / "demo"):
            pass
        (tmp_path / "demo" / "kept").write_text("still here")
    assert (tmp_path / "demo" / "kept").exists()


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="give a folder of yours"), taken(tmp_path / "file"):
        pass
