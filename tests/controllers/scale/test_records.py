"""Decision records: kept on change, read back whole, torn lines left out, the decision computable again."""

from dataclasses import replace
from pathlib import Path

import pytest

from controllers.domain import Forecast, Horizon, Mode, Pending, Reason, Recommendation, Replicas, Sample
from controllers.scale.decide import decide
from controllers.scale.meaning import MEANING
from controllers.scale.records import Record, RecordError, Records, read
from controllers.scale.state import LeadTime, Rules, State
from controllers.scale.why import counterfactuals, explanation, same_decision

NOW = 1_800_000_000.0
RULES = Rules(
    "demo/video", True, 1, 20, 5.0, 0.95, 1, None, 60.0, 60.0, 300.0, None, 4, 15.0, 120.0, Mode.SHADOW
)  # fmt: skip
STATE = State(
    now=NOW,
    demand=Sample(19.87654321, NOW - 3.25),
    backlog=Sample(12.0, NOW - 3.25),
    service_seconds=0.5012345,
    lead_time=LeadTime(60.1, 62.3),
    replicas=Replicas(12, 10, (Pending(2, 31.5),)),
    forecast=Forecast(
        NOW - 20,
        NOW + 880,
        "",
        True,
        (Horizon(120, 21.5, {0.1: 20.0, 0.9: 23.0}, {0.9: 24.0}, {0.5: 2500.0, 0.9: 2600.0, 0.98: 2650.0}),),
    ),
    recommendations=(Recommendation(NOW - 60, 12),),
    wanted=(Recommendation(NOW - 60, 12),),
    known_since=NOW - 900,
)


def record(state: State = STATE, outcome: Reason = Reason.SHADOW) -> Record:
    return Record(state, RULES, decide(state, RULES), outcome)


def test_a_record_reads_back_as_it_was_and_its_decision_follows_from_it(tmp_path: Path) -> None:
    Records(tmp_path, 0).write(record())
    (back,) = read(tmp_path)
    assert back == record()
    assert same_decision(back)


def test_a_forged_decision_does_not_follow_from_its_record() -> None:
    whole = record()
    assert not same_decision(replace(whole, decision=replace(whole.decision, desired=3)))


def test_only_changes_and_every_so_often(tmp_path: Path) -> None:
    records = Records(tmp_path, 600)
    unknown = replace(STATE, replicas=None)
    later = [record(replace(unknown, now=NOW + s)) for s in (0, 15, 30, 610)]
    assert [records.write(one) for one in later] == [True, False, False, True]
    assert records.write(record(replace(STATE, now=NOW + 615)))


def test_a_line_torn_by_a_kill_is_left_out_and_the_next_is_whole(tmp_path: Path) -> None:
    Records(tmp_path, 0).write(record())
    (path,) = tmp_path.glob("*.jsonl")
    path.write_bytes(path.read_bytes() + b'{"state": {"now": 18000')
    Records(tmp_path, 0).write(record(replace(STATE, now=NOW + 15)))
    assert [r.decision.at for r in read(tmp_path)] == [NOW, NOW + 15]


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RecordError, match="could not be written"):
        Records(tmp_path / "file" / "records", 0).write(record())


def test_a_folder_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no such folder"):
        list(read(tmp_path / "nothing"))


def test_reading_a_span_of_time(tmp_path: Path) -> None:
    records = Records(tmp_path, 0)
    for days in range(3):
        records.write(record(replace(STATE, now=NOW + 86400 * days)))
    assert [r.decision.at for r in read(tmp_path, since=NOW + 1, until=NOW + 86400)] == [NOW + 86400]


def test_every_reason_has_its_meaning() -> None:
    assert set(MEANING) == set(Reason)


def test_an_explanation_names_numbers_reasons_and_what_would_be_otherwise() -> None:
    text = "\n".join(explanation(record()))
    for part in (
        "demo/video at 2027-01-15 08:00:00 UTC",
        "19.88 a second, measured 3 s before",
        "10 ready of 12, starting 2 since 32 s",
        "0.501 s a piece (learned), 1 at a time (configured)",
        "mode is shadow",
        "without forecast",
        "95.0% wait at most 5 s",
    ):
        assert part in text, text
    assert dict(counterfactuals(record()))["without forecast"] == "12"  # 11 would do, 12 is stabilised
