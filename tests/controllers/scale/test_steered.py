"""The scaler's step with people in it: surges and pauses in force, recommendations said once, a journal that broke."""

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from controllers.config import Config, ConfigError
from controllers.domain import Direction, Override
from controllers.scale.overrides import Overrides
from controllers.scale.records import read
from controllers.scale.run import build
from controllers.scale.scaler import Scaler
from tests.controllers.scale.scripted import NAME, NOW, PRESENT, Fleet, ScriptedSource, reasons, shown, tick

LOW = PRESENT | {"workload:demand:rate1m": 0.2, "workload:backlog:sum": 0.0}  # one replica does it


def configured(folder: Path, mode: str) -> Config:
    workload = {
        "name": "video",
        "demand": {"queue": "video-jobs"},
        "target": {"command": {"get": ["true"], "set": ["true", "{replicas}"]}},
        "replicas": {"min": 1, "max": 8},
        "stabilization_window_seconds": 0,
        "mode": mode,
    }
    scale = {
        "records": str(folder / "records"),
        "record_every_seconds": 0,
        "overrides": str(folder / "overrides.jsonl"),
        "replacements": str(folder / "replacements.json"),
    }
    return Config.model_validate({"workloads": [workload], "scale": scale})


class Scene:
    def __init__(self, folder: Path, mode: str = "act", replicas: int = 4) -> None:
        self.book = Overrides(folder / "overrides.jsonl")
        self.source, self.fleet = ScriptedSource(), Fleet(replicas)
        self.source.values = LOW
        targets = {NAME: self.fleet.actuator()}
        self.scaler = Scaler(configured(folder, mode), self.source, targets, overrides=self.book)  # type: ignore[arg-type]

    def step(self, after: float) -> int:
        """The number of the target afterwards."""
        self.source.now = NOW + after
        self.scaler.step(tick(after))
        return self.fleet.replicas.wanted


def override(id: str, after: float, seconds: float, **what: Any) -> Override:  # noqa: A002 - its name
    return Override(id, NOW + after, NOW + after + seconds, "ann@desk", **what)


def test_a_surge_is_told_within_the_maximum_and_taken_back_when_it_lapses(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    assert scene.step(0) == 1
    scene.book.begin(NAME, override("surge", 10, 60, surge=3))
    assert scene.step(15) == 4
    assert shown(scene.scaler, "scale_override", workload=NAME, kind="surge") == 3.0
    assert "surge" in reasons(scene.scaler)
    scene.book.begin(NAME, override("more", 20, 30, surge=99))
    assert scene.step(30) == 8
    assert {"surge", "max_replicas"} <= reasons(scene.scaler)
    scene.step(200)
    assert scene.step(400) == 1, "both lapsed by themselves"
    assert shown(scene.scaler, "scale_override", workload=NAME, kind="surge") is None


def test_a_pause_holds_the_number_its_way_only_and_a_resume_ends_it(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.book.begin(NAME, override("pause", -5, 600, pause=Direction.DOWN))
    assert scene.step(0) == 4
    assert "paused" in reasons(scene.scaler)
    scene.source.values = PRESENT
    assert scene.step(15) == 8, "upwards it goes on"
    scene.source.values = LOW
    assert scene.step(30) == 8
    scene.book.end(NAME, "eve@desk", NOW + 40)
    scene.step(300)
    assert scene.step(500) == 1


def test_what_is_decided_holds_what_people_asked_for(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    asked = override("surge", -5, 600, surge=2, note="launch")
    scene.book.begin(NAME, asked)
    scene.step(0)
    (record,) = read(tmp_path / "records")
    assert record.state.overrides == (asked,)


def test_a_recommendation_is_one_log_line_until_it_changes(tmp_path: Path) -> None:
    scene = Scene(tmp_path, "recommend")
    with capture_logs() as logs:
        scene.step(0)
        scene.step(15)
        scene.source.values = PRESENT
        scene.step(30)
    said = [(one["workload"], one["current"], one["desired"]) for one in logs if one["event"] == "recommended"]
    assert said == [(NAME, 4, 1), (NAME, 4, 8)]
    assert scene.fleet.told == []
    assert shown(scene.scaler, "scale_recommendation", workload=NAME) == 8.0


def test_a_journal_that_breaks_meanwhile_is_said_and_what_was_known_counts(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.book.begin(NAME, override("surge", -5, 600, surge=2))
    path = tmp_path / "overrides.jsonl"
    path.write_bytes(path.read_bytes() + b"junk\n")
    assert scene.step(0) == 3
    assert "The overrides: " in (page := scene.scaler.published.landing())
    assert "line 2 is damaged" in page


def test_a_damaged_journal_stops_the_start_with_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "overrides.jsonl").write_text("junk\n")
    with pytest.raises(ConfigError, match="line 1 is damaged, and what it said may still be in force"):
        build(configured(tmp_path, "act"), ScriptedSource())  # type: ignore[arg-type]
