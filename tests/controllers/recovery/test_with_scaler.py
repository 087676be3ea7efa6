"""Recovery and scaler, each a process of its own: a hung instance is replaced once, whoever is killed meanwhile."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from controllers.recovery.journal import read_journal
from controllers.recovery.operation import Reason, Result

ROOT = Path(__file__).resolve().parents[3]
HEADERS = {"Authorization": "Bearer the-token-of-the-scaler"}

# A fleet in a folder: each file is an instance; the first to go are those that were named.
TELL = """\
#!/bin/sh
cd {folder}/fleet && echo "$1 $2" >> ../told
number=3
while [ $(ls | wc -l) -lt $1 ]; do number=$((number + 1)); touch w$number; done
for victim in $(echo $2 | tr , ' ') $(ls -r); do [ $(ls | wc -l) -le $1 ] || rm -f $victim; done
"""


class Fleet:
    """Instances w1 to w3, of which w2 hangs, and the scaler that has them."""

    def __init__(self, folder: Path, prometheus: Any) -> None:
        self.folder = folder
        (folder / "fleet").mkdir()
        for name in ("w1", "w2", "w3"):
            (folder / "fleet" / name).touch()
        self._program("tell", TELL.format(folder=folder))
        self._program("count", f"#!/bin/sh\nls {folder}/fleet | wc -l\n")
        (folder / "scaler.token").write_text("the-token-of-the-scaler\n")
        prometheus.answers["up"] = prometheus.answers["up == 1"] = lambda: [({"instance": n}, 1) for n in self.names()]
        prometheus.answers["hung"] = lambda: [({"instance": "w2"}, 1)] if "w2" in self.names() else []

    def _program(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)
        (self.folder / name).chmod(0o755)

    def names(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "fleet").iterdir())

    def told(self) -> list[str]:
        """'NUMBER VICTIMS' of each time that the number was set."""
        return (self.folder / "told").read_text().splitlines() if (self.folder / "told").exists() else []

    def workload(self) -> dict[str, Any]:
        command = {"get": [str(self.folder / "count")], "set": [str(self.folder / "tell"), "{replicas}", "{victims}"]}
        return {"name": "video", "demand": {"queue": "q"}, "target": {"command": command},
                "replicas": {"min": 1, "max": 3}, "mode": "act"}  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path, prometheus: Any) -> Fleet:
    return Fleet(tmp_path, prometheus)


@pytest.fixture
def scaler(fleet: Fleet, prometheus: Any, tmp_path: Path) -> Iterator[str]:
    """`tidewise scale` of that fleet; the address it listens on."""
    section = {
        "listen": ["127.0.0.1:0"],
        "interval_seconds": 1,
        "records": str(tmp_path / "decisions"),
        "replacements": str(tmp_path / "replacements.json"),
        "token_file": str(tmp_path / "scaler.token"),
    }
    config = {"prometheus": {"url": prometheus.url}, "workloads": [fleet.workload()], "scale": section}
    (tmp_path / "scale.yaml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "controllers", "scale", "--config", str(tmp_path / "scale.yaml")],
        cwd=ROOT, stderr=(tmp_path / "scale.log").open("w"), stdout=subprocess.DEVNULL, env=dict(os.environ),
    )  # fmt: skip

    def started() -> list[str]:
        lines = (tmp_path / "scale.log").read_text().splitlines()
        return [line for line in lines if line.startswith("{") and json.loads(line).get("event") == "started"]

    try:
        until(lambda: bool(started()))
        yield f"http://{json.loads(started()[0])['addresses'][0]}"
    finally:
        process.terminate()
        assert process.wait(30) == 0


def until(done: Callable[[], bool], seconds: float = 45.0) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def test_a_hung_instance_is_replaced_once_though_recovery_is_killed_before_it_writes_down_the_answer(
    process: Any, document: Callable[..., Any], fleet: Fleet, scaler: str, tmp_path: Path
) -> None:
    replace = {"url": scaler, "token_file": str(tmp_path / "scaler.token"), "mode": "act", "timeout_seconds": 30}
    config = document(
        section={"interval_seconds": 0.05, "limits": {"back_off_seconds": 0.05, "back_off_max_seconds": 0.1}},
        stability_seconds=0.2, workload="default/video", restart=None, replace=replace,
    )  # fmt: skip
    process.start(config, tmp_path, TIDEWISE_KILL_AT="outcome:before")
    assert process.wait() == -signal.SIGKILL, (tmp_path / "log").read_text()
    (entry,) = json.loads(
        (tmp_path / "replacements.json").read_text()
    )  # it was sent, acknowledged, and not written down
    (operation,) = read_journal(tmp_path / "journal.db")[1].operations.values()
    assert operation.pending is not None
    assert entry["operation"] == f"{operation.id}/replace/1"
    answer = requests.get(f"{scaler}/replace", params={"operation": entry["operation"]}, headers=HEADERS, timeout=30)
    assert (answer.status_code, answer.json()["instance"]) == (200, "w2")

    process.start(config, tmp_path)
    until(lambda: not read_journal(tmp_path / "journal.db")[1].open_operations())
    assert process.stop() == 0
    (operation,) = read_journal(tmp_path / "journal.db")[1].operations.values()
    (attempt,) = operation.attempts
    assert (attempt.result, attempt.detail) == (Result.DONE, "acknowledged, as the scaler says")
    assert operation.closed_for is Reason.RECOVERED
    # one more came first, beyond the maximum; then the victim went, and nobody else
    assert fleet.names() == ["w1", "w3", "w4"]
    assert [line.split()[0] for line in fleet.told()] == ["4", "3"]
    assert fleet.told()[-1] == "3 w2"
    assert len(json.loads((tmp_path / "replacements.json").read_text())) == 1
