"""The benchmark of `tidewise why`, small: its questions are answered, and its own plain read agrees."""

from pathlib import Path
from typing import Any

from benchmarks import why


def test_a_small_one_prints_each_question_with_its_ratio(tmp_path: Path, capsys: Any) -> None:
    words = ["--workloads", "3", "--days", "2", "--changes", "6", "--times", "1", "--folder", str(tmp_path)]
    why.main(words)
    said = capsys.readouterr().out
    assert said.startswith("750 records of 3 workloads and 2 days")
    assert [line.partition(":")[0] for line in said.splitlines()[1:]] == [
        "plain read of all",
        "the last decision",
        "one of the first day",
        "of one that stopped on the first day",
        "the last 20 changes",
    ]
    assert list(tmp_path.iterdir()) == []
