"""`tidewise surge`, `pause`, `resume`, `overrides`: what a person types, what is said, what the scaler keeps."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from controllers.__main__ import main
from controllers.domain import Direction, Mode
from controllers.recovery.http import Reply
from controllers.scale import steer
from controllers.scale.override_routes import Steered, routes
from controllers.scale.overrides import Overrides
from controllers.scale.steer import who
from exporters.runtime import bearer
from exporters.runtime.endpoint import Endpoint, Request, Response, json_response
from testbed.parts import free_port

TOKEN = "a-long-random-token-of-ours"


class Desk:
    """A configuration, and a scaler's routes behind a real endpoint."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.book = Overrides(folder / "overrides.jsonl")
        self.path = folder / "tidewise.yaml"
        self.token = folder / "token"
        self.token.write_text(f"{TOKEN}\n")
        self.port = port
        self.leads: list[bool] = []  # of the next requests; then it does
        self.write()

    def write(self, **scale: Any) -> None:
        target = {"command": {"get": ["true"], "set": ["true", "{replicas}"]}}
        workloads = [
            {"name": name, "demand": {"queue": name}, "target": target, "replicas": {"max": 4}, "mode": "act"}
            for name in ("video", "mail")
        ]
        workloads[0]["time_zone"] = "Asia/Seoul"
        section = {"url": f"http://127.0.0.1:{self.port}", "token_file": str(self.token), **scale}
        self.path.write_text(yaml.safe_dump({"workloads": workloads, "scale": section}))

    def refused(self, request: Request) -> Response | None:
        answer = bearer.refused(request, self.folder / "token-of-the-scaler", "scale.token_file")
        if answer is None and self.leads and not self.leads.pop(0):
            return json_response({"error": "another replica of the scaler acts; ask that one"}, 503)
        return answer


class Door:
    """One endpoint for all tests here; `table` are the routes of the present one."""

    def __init__(self) -> None:
        self.table: dict[tuple[str, str], Any] = {}
        self.port = free_port()
        names = (("POST", "/override"), ("POST", "/override/end"), ("GET", "/overrides"))
        table = {name: lambda request, name=name: self.table[name](request) for name in names}
        address = f"127.0.0.1:{self.port}"
        self.endpoint = Endpoint([address], CollectorRegistry(), process="scale", ready=lambda: None, routes=table)


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    one = Door()
    one.endpoint.start()
    yield one
    one.endpoint.stop()


@pytest.fixture
def desk(tmp_path: Path, door: Door) -> Desk:
    (tmp_path / "token-of-the-scaler").write_text(TOKEN)
    one = Desk(tmp_path, door.port)
    steered = {f"default/{name}": Steered(Mode.ACT, 4) for name in ("video", "mail")}
    door.table = dict(routes(one.book, steered, lambda _: 1, one.refused))
    return one


def run(desk: Desk, *words: str) -> int:
    return main([*words, "--config", str(desk.path)])


def without_times(text: str) -> str:
    return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)? [A-Z]+", "WHEN", text)


def test_a_surge_is_kept_and_told_with_its_end_and_its_bound(desk: Desk, capsys: Any) -> None:
    assert run(desk, "surge", "video", "+5", "--until", "2h", "--note", "launch\non television") == 0
    assert without_times(capsys.readouterr().out) == (
        f"default/video: +5 until WHEN (in 2 h), by {who()}: launch on television\n"
        "  on top of what is needed, 1 now\n"
        "  bounded by max 4\n"
        "  to end it sooner: tidewise resume default/video\n"
    )
    (one,) = desk.book.active("default/video", time.time())
    assert (one.surge, one.pause, one.by, one.note) == (5, None, who(), "launch on television")
    assert one.until - one.since == pytest.approx(7200, abs=5)


@pytest.mark.parametrize(
    ("flags", "way", "said"),
    [
        ([], Direction.BOTH, "pause"),
        (["--up"], Direction.UP, "pause up"),
        (["--down"], Direction.DOWN, "pause down"),
    ],
)
def test_a_pause_either_way(desk: Desk, capsys: Any, flags: list[str], way: Direction, said: str) -> None:
    assert run(desk, "pause", "default/video", *flags, "--until", "90m") == 0
    assert without_times(capsys.readouterr().out).startswith(
        f"default/video: {said} until WHEN (in 1 h 30 min), by {who()}\n"
    )
    assert [one.pause for one in desk.book.active("default/video", time.time())] == [way]


def test_a_clock_time_is_of_the_workload_s_zone(desk: Desk, capsys: Any) -> None:
    assert run(desk, "surge", "video", "+1", "--until", "21:00") == 0
    assert re.search(r"\+1 until \d{4}-\d\d-\d\d 21:00 KST \(in ", capsys.readouterr().out)


def test_the_list_shows_what_is_in_force_and_who_did_what_before(desk: Desk, capsys: Any) -> None:
    run(desk, "surge", "video", "+1", "--until", "2h", "--note", "launch")
    run(desk, "pause", "mail", "--up", "--until", "1h")
    assert run(desk, "resume", "mail") == 0
    assert run(desk, "resume", "mail") == 0
    capsys.readouterr()
    assert run(desk, "overrides") == 0
    assert without_times(capsys.readouterr().out) == (
        "in force\n"
        f"  default/video  +1  until WHEN  2 h left  WHEN by {who()}: launch\n"
        "\n"
        "before\n"
        f"  default/mail  pause up  until WHEN  ended WHEN by {who()}  WHEN by {who()}\n"
    )
    assert run(desk, "overrides", "mail", "--last", "0") == 0
    assert capsys.readouterr().out == "in force: none\n"


def test_resume_says_what_it_ended(desk: Desk, capsys: Any) -> None:
    run(desk, "surge", "video", "+1", "--until", "2h")
    run(desk, "pause", "video", "--until", "1h", "--note", "import")
    capsys.readouterr()
    assert run(desk, "resume", "video") == 0
    assert without_times(capsys.readouterr().out) == (
        f"default/video: ended +1 until WHEN, by {who()}\ndefault/video: ended pause until WHEN, by {who()}: import\n"
    )
    assert run(desk, "resume", "video") == 0
    assert capsys.readouterr().out == "default/video: nothing was in force\n"


@pytest.mark.parametrize(
    ("sentence", "words", "status", "said"),
    [
        (
            "a typing mistake",
            ["surge", "vidoe", "+1", "--until", "1h"],
            2,
            "no workload 'vidoe'; did you mean 'video'?",
        ),
        (
            "no such moment",
            ["surge", "video", "+1", "--until", "soon"],
            2,
            "--until: found 'soon'; write a time such as",
        ),
        ("gone by", ["pause", "video", "--until", "2020-01-01"], 2, "--until: found '2020-01-01', which has passed"),
        (
            "a month",
            ["pause", "video", "--until", "30d"],
            2,
            "--until: found '30d', more than 7 days ahead; what is to",
        ),
    ],
)
def test_what_is_wrong_is_said(
    desk: Desk, capsys: Any, sentence: str, words: list[str], status: int, said: str
) -> None:
    assert run(desk, *words) == status
    assert said in capsys.readouterr().err, sentence
    assert desk.book.trail() == ()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["surge", "video", "+5"], "the following arguments are required: --until"),
        (["surge", "video", "-2", "--until", "1h"], "found '-2'; a surge only adds: write +1 to +10000"),
        (["surge", "video", "many", "--until", "1h"], "found 'many'; a surge only adds: write +1 to +10000"),
        (["pause", "video", "--up", "--down", "--until", "1h"], "not allowed with argument --up"),
    ],
)
def test_wrong_usage(desk: Desk, capsys: Any, words: list[str], said: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(desk, *words)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_without_a_token_or_with_another_it_says_which_file(desk: Desk, capsys: Any) -> None:
    desk.token.write_text("quite-another-token-than-theirs")
    assert run(desk, "overrides") == 1
    assert f"the token in {desk.token} is not the scaler's (scale.token_file there)" in capsys.readouterr().err
    desk.write(token_file=None)
    assert run(desk, "surge", "video", "+1", "--until", "1h") == 2
    assert "scale.token_file is not configured, so nobody can prove who they are" in capsys.readouterr().err


def test_a_scaler_that_does_not_answer(desk: Desk, capsys: Any) -> None:
    desk.write(url="http://127.0.0.1:9")
    assert run(desk, "resume", "video") == 1
    said = capsys.readouterr().err
    assert said.startswith("http://127.0.0.1:9 does not answer (")
    assert "is `tidewise scale` running, and is scale.url its address?" in said


@pytest.mark.parametrize("words", [["overrides"], ["resume", "video"], ["surge", "video", "+1", "--until", "1h"]])
@pytest.mark.parametrize("answer", [{"status": "ok"}, {"overrides": [{}], "ended": [{}], "override": {}}])
def test_an_answer_of_somebody_else_is_said(
    desk: Desk, capsys: Any, monkeypatch: pytest.MonkeyPatch, words: list[str], answer: dict[str, Any]
) -> None:
    monkeypatch.setattr(steer, "exchange", lambda *asked: Reply(200, answer))
    assert run(desk, *words) == 1
    assert capsys.readouterr().err.startswith("the scaler's answer is of another kind (")


def test_behind_one_address_the_one_that_acts_is_found_and_one_that_does_not_is_told(desk: Desk, capsys: Any) -> None:
    desk.leads = [False, False]
    assert run(desk, "surge", "video", "+1", "--until", "1h") == 0
    assert len(desk.book.trail()) == 1
    capsys.readouterr()
    desk.leads = [False] * 9
    assert run(desk, "overrides") == 1
    assert "this one does not lead, and another may; give scale.url the address" in capsys.readouterr().err


@pytest.mark.real
def test_a_surge_outlives_the_scaler_and_is_seen_in_its_metrics_and_in_why(stage: Any, capsys: Any) -> None:
    token = stage.folder / "token"
    token.write_text(TOKEN)
    (stage.folder / "there").write_text("5")
    told = stage.folder / "there"
    stage.ports["scale"] = free_port()
    stage.config = {
        "prometheus": {"url": stage.prometheus.url},
        "workloads": [
            {
                "name": "video",
                "demand": {"queue": "video-jobs"},
                "target": {
                    "command": {
                        "get": ["cat", str(told)],
                        "set": ["sh", "-c", f'echo "$1" > {told}', "sh", "{replicas}"],
                    }
                },
                "replicas": {"min": 1, "max": 20},
                "slo": {"wait_seconds": 60},
                "mode": "act",
            }
        ],
        "scale": {
            "interval_seconds": 1,
            "record_every_seconds": 0,
            "token_file": str(token),
            "overrides": str(stage.folder / "overrides.jsonl"),
            "replacements": str(stage.folder / "replacements.json"),
            "url": f"http://127.0.0.1:{stage.ports['scale']}",
        },
    }
    stage.start("scale")
    stage.steps(1)
    before = int(told.read_text())
    assert main(["surge", "video", "+3", "--until", "1h", "--note", "launch", "--config", str(stage.path)]) == 0
    line = 'tidewise_scale_override{kind="surge",workload="default/video"} 3.0'
    stage.until(lambda: line in stage.page() and int(told.read_text()) == before + 3, "three more")
    stage.kill("scale")
    stage.start("scale")
    stage.until(lambda: line in stage.page(), "the surge after a restart")
    stage.steps(2)
    assert int(told.read_text()) == before + 3
    capsys.readouterr()
    assert main(["why", "video", "--config", str(stage.path)]) == 0
    said = without_times(capsys.readouterr().out)
    assert f"  override               +3 until WHEN, by {who()}: launch\n" in said
    assert "  without overrides " in said
    assert main(["resume", "video", "--config", str(stage.path)]) == 0
    stage.until(lambda: "tidewise_scale_override{" not in stage.page(), "its end")
