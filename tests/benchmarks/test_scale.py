"""The scaler's benchmark on a handful of workloads: it runs, and prints each figure with its limit."""

import pytest

from benchmarks import scale


@pytest.mark.real
@pytest.mark.usefixtures("parts_root")
def test_it_prints_every_figure_with_its_limit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scale, "RUNS", 1)
    assert scale.main(["--workloads", "4"]) in (0, 1)
    said = capsys.readouterr().out
    for line in ("one cycle, 4 workloads", "observe: present series", "decision records", "decide(), a queue", "peer"):
        assert line in said


def test_an_unknown_part_is_refused_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        scale.main(["cycles"])
    assert "unknown part 'cycles'; there are cycle, decide" in capsys.readouterr().err
