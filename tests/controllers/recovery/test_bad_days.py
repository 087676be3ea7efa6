"""Bad days of recovery's neighbours, programs and disk: what freezes, who is told, and that nothing is done twice."""

import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from controllers.loop import StepError, Tick
from controllers.recovery.operation import Reason, Result


def shown(one: Any, name: str, **labels: str) -> float | None:
    """The sample on /metrics; None where there is none."""
    registry = CollectorRegistry()
    registry.register(one.recovery.published)
    return registry.get_sample_value(f"tidewise_recovery_{name}", labels)


def test_a_program_that_says_yes_and_does_nothing_is_not_believed(document: Any, stepped: Any, workers: Any) -> None:
    one = stepped(document())
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    assert one.book.open_one("workers", "w2").attempts[0].result is Result.DONE
    one.after(10)
    assert one.next("w2") == ("verify", "verifying")
    one.after(60)
    assert one.book.open_one("workers", "w2").attempts[0].failed is Reason.SYMPTOM_REMAINS


def test_a_command_that_hangs_is_ended_with_its_children_and_the_symptom_decides(
    document: Any, stepped: Any, workers: Any, tmp_path: Path
) -> None:
    hangs = tmp_path / "systemctl"
    hangs.write_text(f"#!/bin/sh\n(sleep 60; touch {tmp_path}/survived) &\necho $! > {tmp_path}/child\nsleep 60\n")
    hangs.chmod(0o755)
    restart = {"argv": [str(hangs), "restart", "worker@{instance}"], "timeout_seconds": 0.5}
    one = stepped(document(restart=restart))
    workers.hung.add("w2")
    began = time.monotonic()
    one.after(10)
    assert time.monotonic() - began < 5
    first = one.book.open_one("workers", "w2").attempts[0]
    assert first.result is Result.UNKNOWN
    assert "did not end within" in first.detail
    child = int((tmp_path / "child").read_text())
    assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text().split()[2]
    one.after(61)
    assert one.next("w2")[0] in ("wait", "restart")
    assert first.number == 1


@pytest.mark.parametrize("mode", ["down", "partial", "garbage"])
def test_prometheus_gone_freezes_pages_and_comes_back_without_a_restart(
    document: Any, stepped: Any, workers: Any, prometheus: Any, alertmanager: Any, mode: str
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url})).after(10)
    workers.hung.add("w2")
    prometheus.mode = mode
    one.after(10, times=6)
    assert alertmanager.posted == []  # it may only have been restarted
    one.after(10)
    assert workers.effects() == []
    assert alertmanager.standing(one.now) == {("RecoveryFrozen", "workers", "health_unknown")}
    assert shown(one, "decision_reason", target="workers", reason="health_unknown") == 1
    prometheus.mode = "well"
    one.after(10)
    assert workers.restarted() == ["w2"]


def test_prometheus_gone_in_the_middle_pages_at_once_and_counts_as_nothing(
    document: Any, stepped: Any, workers: Any, prometheus: Any, alertmanager: Any
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    prometheus.mode = "down"
    one.after(10)
    assert alertmanager.standing(one.now) == {("RecoveryFrozen", "workers", "health_unknown")}
    one.after(10, times=19)
    assert one.next("w2") == ("freeze", "health_unknown")
    assert workers.restarted() == ["w2"]
    workers.hung.clear()
    prometheus.mode = "well"
    one.after(10)
    assert one.next("w2") == ("verify", "stabilizing")  # from the beginning of the window


def test_a_symptom_that_is_no_number_is_not_a_symptom_that_is_gone(
    document: Any, stepped: Any, workers: Any, prometheus: Any
) -> None:
    one = stepped(document())
    prometheus.answers["hung"] = [({"instance": "w2"}, "NaN")]
    one.after(10)
    assert one.next("") == ("freeze", "health_unknown")
    assert "are no numbers" in one.recovery.published.landing()


def test_no_instances_is_none_and_never_all(document: Any, stepped: Any, workers: Any, alertmanager: Any) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    workers.hung |= {"w1", "w2"}
    workers.lost |= set(workers.names)
    one.after(10, times=8)
    assert workers.effects() == []
    assert alertmanager.standing(one.now) == {("RecoveryFrozen", "workers", "no_instances")}


def test_an_alertmanager_that_does_not_answer_may_hide_a_maintenance(
    document: Any, stepped: Any, workers: Any, alertmanager: Any
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    alertmanager.mode = "down"
    workers.hung.add("w2")
    one.after(10)
    assert one.next("w2") == ("freeze", "silences_unknown")
    assert shown(one, "page", alert="RecoveryFrozen", target="workers", reason="silences_unknown") == 1
    assert shown(one, "pages_undelivered") == 1
    alertmanager.mode = "well"
    one.after(10)
    assert workers.restarted() == ["w2"]
    assert shown(one, "pages_undelivered") == 0


def test_a_page_that_alertmanager_does_not_take_is_shown_and_told_as_soon_as_it_does(
    document: Any, stepped: Any, workers: Any, alertmanager: Any
) -> None:
    config = document(section={"alertmanager": alertmanager.url})
    one = stepped(config)
    workers.cures(False)
    workers.hung.add("w2")
    alertmanager.mode = "deaf"
    one.after(10, times=60)
    assert one.next("w2") == ("page", "ladder_end")
    assert alertmanager.posted == []
    assert shown(one, "pages_undelivered") == 1
    assert shown(one, "page", alert="RecoveryFailed", target="workers", reason="ladder_end") == 1
    again = stepped(config)  # the page is in the journal: a restart does not forget whom it has not told
    again.now = one.now
    again.after(10)
    assert shown(again, "pages_undelivered") == 1
    alertmanager.mode = "well"
    again.after(10)
    assert alertmanager.standing(again.now) == {("RecoveryFailed", "workers", "ladder_end")}
    assert shown(again, "pages_undelivered") == 0
    assert len(workers.effects()) == 3


def test_a_clock_that_was_set_back_freezes_pages_and_loses_nothing(
    document: Any, stepped: Any, workers: Any, alertmanager: Any
) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url}))
    workers.cures(False)
    workers.hung.add("w2")
    one.after(10)
    real = time.monotonic()
    one.recovery._clocks = (one.now, real)
    one.recovery.step(Tick(one.now - 600, Tick.starting(30).until))
    assert one.next("w2") == ("freeze", "clock_jumped")
    assert ("RecoveryFrozen", "workers", "clock_jumped") in alertmanager.standing(one.now - 600)
    one.recovery._distrusts_clock_until = 0.0
    one.now -= 600
    one.after(10, times=5)
    assert workers.restarted() == ["w2"]  # the attempt "in the future" has just been made


def test_a_damaged_journal_acts_on_nothing_and_pages_until_it_is_restored(
    document: Any, stepped: Any, workers: Any, alertmanager: Any, tmp_path: Path
) -> None:
    path = tmp_path / "journal.db"
    one = stepped(document(section={"alertmanager": alertmanager.url})).after(10)
    one.recovery.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    workers.hung.add("w2")
    again = stepped(document(section={"alertmanager": alertmanager.url}))
    for _ in range(2):
        with pytest.raises(StepError, match="damaged") as error:
            again.after(10)
        assert error.value.kind == "journal_corrupt"
    assert workers.effects() == []
    assert alertmanager.standing(again.now) == {("RecoveryJournalBroken", "all", "journal_broken")}
    assert shown(again, "journal_up") == 0
    assert "damaged" in again.recovery.published.landing()
    path.write_bytes(whole)
    again.after(10)
    assert workers.restarted() == ["w2"]
    assert shown(again, "journal_up") == 1


class FullDisk:
    """A step that may fail for want of room, and only for that."""

    def __init__(self, step: Any) -> None:
        self.step = step
        self.met = False

    def __call__(self, tick: Tick) -> None:
        try:
            self.step(tick)
        except StepError as error:
            if error.kind != "journal_full":
                raise
            self.met = True


def test_a_full_disk_acts_on_nothing_and_pages(document: Any, stepped: Any, workers: Any, alertmanager: Any) -> None:
    one = stepped(document(section={"alertmanager": alertmanager.url})).after(10)
    connection = one.recovery._journal._connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")
    workers.cures(False)
    one.recovery.step = FullDisk(one.recovery.step)
    for _ in range(100):
        workers.hung ^= {"w2"}
        if one.after(10).recovery.step.met:
            break
    done = len(workers.effects())
    for _ in range(5):
        workers.hung ^= {"w2"}
        one.after(10)
    assert one.recovery.step.met
    assert len(workers.effects()) == done
    assert ("RecoveryJournalBroken", "all", "journal_broken") in alertmanager.standing(one.now)


def test_who_was_overtaken_acts_on_nothing(document: Any, stepped: Any, workers: Any) -> None:
    """Two processes at once: the one that started later is the only one that acts."""
    old, new = stepped(document()).after(10), stepped(document()).after(10)
    workers.hung.add("w2")
    with pytest.raises(StepError, match="another recovery took over"):
        old.after(10)
    assert workers.effects() == []
    new.after(20)
    assert workers.restarted() == ["w2"]


def test_who_was_stopped_between_deciding_and_acting_does_not_act(
    document: Any, stepped: Any, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by SIGSTOP: when it goes on, its successor has already taken over, and taken stock of its attempt."""
    old = stepped(document()).after(10)
    workers.hung.add("w2")
    reserve = old.recovery._reserved

    def stopped_after_reserving(*arguments: Any) -> Any:
        reserved = reserve(*arguments)
        stepped(document()).after(30)
        return reserved

    monkeypatch.setattr(old.recovery, "_reserved", stopped_after_reserving)
    with pytest.raises(StepError, match="another recovery took over"):
        old.after(10)
    assert workers.effects() == []


def test_a_forgotten_outcome_is_found_by_the_symptom_and_not_by_trying_again(
    document: Any, stepped: Any, workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = stepped(document())
    workers.hung.add("w2")
    monkeypatch.setattr(one.recovery, "_ended", lambda *_: None)  # the answer is lost
    one.after(10)
    monkeypatch.undo()
    one.after(10)
    (attempt,) = one.book.open_one("workers", "w2").attempts
    assert attempt.result is Result.UNKNOWN
    one.after(60, times=4)
    assert one.book.open_operations() == []
    assert workers.restarted() == ["w2"]
