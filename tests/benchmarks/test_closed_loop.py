"""The comparison's benchmark: who is better than whom, what is kept, and one small run of it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.closed_loop import Pair, better, is_smooth, main, report, summary
from controllers.replay import ours
from controllers.replay.compare import AtLevel
from controllers.replay.protocol import Demand, scored


def at(*costs: float | None) -> list[AtLevel]:
    return [AtLevel(cost, None if cost is None else "x", cost) for cost in costs]


def pair(trace: str = "nasa_http", lead: float = 900.0, **costs: tuple[float | None, ...]) -> Pair:
    every = {name: at(*each) for name, each in {"oracle": (1.0, 1.0, 1.0), **costs}.items()}
    return Pair(trace, lead, True, every, {}, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "ours", "theirs", "is_better"),
    [
        ("less everywhere", (1.1, 1.0, 0.9), (1.2, 1.1, 1.0), True),
        ("the same but once less", (1.1, 1.0, 0.9), (1.1, 1.0, 1.0), True),
        ("a level that they do not reach", (9.0, 1.0, 0.9), (None, 1.0, 0.9), True),
        ("a level that we do not reach", (None, 1.0, 0.9), (9.0, 0.9, 0.8), False),
        ("more everywhere", (1.2, 1.1, 1.0), (1.1, 1.0, 0.9), False),
        ("each wins somewhere", (1.2, 1.0, 1.0), (1.1, 1.1, 1.0), None),
        ("alike", (1.0, 1.0, 1.0), (1.0, 1.0, 1.0), None),
    ],
)
def test_pareto(
    name: str, ours: tuple[float | None, ...], theirs: tuple[float | None, ...], is_better: bool | None
) -> None:
    assert better(pair(tidewise=ours, hpa=theirs), "hpa") is is_better, name


def test_figures_are_told_beside_what_was_asked() -> None:
    found = summary(
        [
            pair(tidewise=(1.1, 1.0, 0.9), hpa=(1.2, 1.1, 1.0)),
            pair("tweets_amzn", 300.0, tidewise=(1.5, 1.4, 1.3), hpa=(1.4, 1.3, 1.2)),
        ]
    )
    assert found["nasa_http, 15 min: cost x oracle at <= 1 %"]["met"] is True
    assert found["tweets_amzn, 5 min: cost x oracle at <= 1 %"]["met"] is False
    assert found["genai_gpu_seconds, 5 min: cost x oracle at <= 1 %"]["met"] is None
    smooth = found["smooth loads: cost / tuned HPA's, the worst"]
    assert smooth["is"] == pytest.approx(1.3 / 1.2)
    assert smooth["where"] == "tweets_amzn, 5 min"
    assert found["pairs on which ours is Pareto-better than every rival"]["is"] == 0.5
    assert found["pairs and rivals by which ours is dominated"]["which"] == ["tweets_amzn 5 min by hpa"]


def test_an_hour_that_tells_of_the_next_is_smooth() -> None:
    wave = 10 + np.sin(np.arange(600) / 24)
    assert is_smooth(scored(Demand(0.0, 600.0, wave), 60.0))
    assert not is_smooth(scored(Demand(0.0, 600.0, np.random.default_rng(1).uniform(0, 1, 600)), 60.0))
    assert not is_smooth(scored(Demand(0.0, 600.0, np.ones(600)), 60.0))


def test_a_small_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr(ours, "OBJECTIVES", (0.9,))
    monkeypatch.setattr(ours, "SHORTAGES", (10.0, 100.0))
    rng = np.random.default_rng(1)
    values = rng.poisson(100 + 80 * np.sin(np.arange(5 * 48) / 48 * 2 * np.pi))
    with gzip.open(tmp_path / "wave.csv.gz", "wt") as text:
        text.write("timestamp,value\n")
        text.writelines(f"{1800 * place},{value}\n" for place, value in enumerate(values))
    out, kept = tmp_path / "out.json", tmp_path / "kept"
    options = ["--traces", str(tmp_path), "--leads", "15m", "--policies", "hpa", "--refit", "1d", "--no-speed"]
    assert main([*options, "--no-queue", "--keep", str(kept), "--json", str(out)]) == 0
    told = capsys.readouterr()
    assert "wave, 15 min" in told.out
    found = json.loads(out.read_text())
    assert found["failed"] == []
    assert set(found["pairs"][0]["service"]) == {"tidewise", "hpa", "oracle"}
    assert len(list(kept.iterdir())) == 1
    assert main([*options, "--no-queue", "--keep", str(kept)]) == 0
    assert capsys.readouterr().out == told.out, "what was kept says the same"
    assert main([*options, "--only", "none"]) == 1
    assert "no none.csv.gz in" in capsys.readouterr().err


def test_a_report_without_queues_has_none() -> None:
    assert "queue" not in report([pair(tidewise=(1.1, 1.0, 0.9), hpa=(None, 1.1, 1.0))])
