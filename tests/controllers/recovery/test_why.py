"""`tidewise recovery status` and `why`: what was done, what was not, and why, from the journal alone."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.recovery.meaning import MEANING
from controllers.recovery.operation import Reason
from controllers.recovery.run import main


@pytest.fixture
def ask(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def answer(document: Any, *argv: str) -> tuple[int, str, str]:
        path = tmp_path / "tidewise.yaml"
        path.write_text(yaml.safe_dump(document))
        capsys.readouterr()
        status = main([*argv, "--config", str(path)])
        out, err = capsys.readouterr()
        return status, out, err

    return answer


def test_every_reason_has_its_words() -> None:
    assert set(MEANING) == set(Reason)


def test_the_story_of_a_repair(ask: Any, document: Any, stepped: Any, workers: Any) -> None:
    config = document()
    one = stepped(config).after(10)
    workers.hung.add("w2")
    one.after(10)
    status, out, _ = ask(config, "status")
    assert status == 0
    assert "workers: 1 open (mode act)" in out
    assert "w2: WorkerHung since 2027-01-15 08:00:20Z; restart 1 done" in out
    one.after(50, times=4)
    status, out, _ = ask(config, "why", "workers")
    assert status == 0
    story = [
        "opened: WorkerHung is confirmed; ladder restart -> page",
        "restart because peers_fine",
        "peers_fine: it is this instance's fault: its peers are fine",
        "seen: sick, alive; of its peers 4 healthy, 0 sick, 0 unknown",
        "restart attempt 1 begins",
        "ended: done: ",
        "verify (restart) because stabilizing",
        "closed: recovered",
        "repaired 1 times, in 50 s on average",
    ]
    at = -1
    for line in story:
        at = out.find(line, at + 1)
        assert at >= 0, f"{line!r} is not there, or not in its place:\n{out}"
    assert ask(config, "status")[1] == "workers: nothing open (mode act)\n"


def test_why_nothing_is_done(ask: Any, document: Any, stepped: Any, workers: Any, prometheus: Any) -> None:
    config = document()
    one = stepped(config).after(10)
    workers.hung |= {"w1", "w2", "w3"}
    one.after(10)
    _, out, _ = ask(config, "why", "workers", "--last", "6")
    assert "freeze (restart) because breaker" in out
    assert MEANING[Reason.BREAKER] in out
    assert len(out.splitlines()) == 6
    prometheus.mode = "down"
    one.after(10)
    out = ask(config, "status")[1]
    assert out.count("freeze because health_unknown") == 3
    prometheus.mode = "well"
    workers.hung.clear()
    one.after(60, times=4)
    assert ask(config, "status")[1] == "workers: nothing open (mode act)\n"


def test_what_cannot_be_answered_says_so(ask: Any, document: Any, tmp_path: Path) -> None:
    config = document()
    status, _, err = ask(config, "why", "worker")
    assert (status, err.strip()) == (2, f"{tmp_path}/tidewise.yaml: no target 'worker'; did you mean 'workers'?")
    status, _, err = ask(config, "status")
    assert status == 1
    assert "journal.db: no such file; has `tidewise recovery` run" in err
    (tmp_path / "journal.db").write_bytes(b"")
    status, _, err = ask(config, "status")
    assert status == 1
    assert "damaged" in err


def test_a_target_without_history(ask: Any, document: Any, stepped: Any) -> None:
    config = document()
    stepped(config).after(10)
    assert ask(config, "why", "workers")[1] == "workers: nothing was ever done or held back\n"
