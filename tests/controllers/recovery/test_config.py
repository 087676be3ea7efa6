"""The `recovery:` section: a first target in fifteen lines, and one exact sentence for each mistake."""

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml

from controllers.config import load
from controllers.config.recovery import is_instance
from controllers.recovery.operation import Limits, Step
from controllers.recovery.run import main
from exporters.runtime.config import ConfigError

FIRST = """\
recovery:
  token_file: /etc/tidewise/recovery.token
  alertmanager: http://127.0.0.1:9093
  targets:
    - name: workers
      mode: act
      instances: {promql: 'up{job="worker"}'}
      healthy: up{job="worker"} == 1
      liveness: up{job="worker"}
      symptoms: [{alert: WorkerHung}]
      restart: {argv: [systemctl, restart, "worker@{instance}"]}
"""


def written(folder: Path, document: Any) -> Path:
    path = folder / "tidewise.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_a_first_target_takes_at_most_fifteen_lines_and_has_the_safe_defaults(tmp_path: Path) -> None:
    assert len(FIRST.splitlines()) <= 15
    section = load(written(tmp_path, FIRST)).recovery
    assert section is not None
    (target,) = section.targets
    (symptom,) = target.symptoms
    assert symptom.expression == 'ALERTS{alertname="WorkerHung",alertstate="firing"}'
    assert target.ladder(symptom) == (Step.RESTART, Step.PAGE)
    assert target.limits(section) == Limits()


def test_the_page_about_recovery_shows_this_first_target() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "recovery.md").read_text()
    assert textwrap.indent(FIRST, "    ") in page


def change(document: dict[str, Any], **target: Any) -> None:
    document["recovery"]["targets"][0].update(target)


def another(document: dict[str, Any], **target: Any) -> None:
    document["recovery"]["targets"].append({**document["recovery"]["targets"][0], **target})


T = "recovery.targets.0"


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (lambda d: change(d, restrat={}), f"{T}.restrat: unknown key; did you mean 'restart'?"),
        (lambda d: change(d, mode="full"), f"{T}.mode: found 'full'; it must be 'shadow', 'recommend' or 'act'"),
        (lambda d: change(d, symptoms=[]), f"{T}.symptoms: found a list []; it must be a list of at least 1"),
        (
            lambda d: change(d, restart={"argv": ["restart-all"]}),
            f"{T}.restart: argv: found ['restart-all']; an argument after the first must hold {{instance}}",
        ),
        (
            lambda d: change(d, instances=["w1"], healthy=None),
            f"{T}: healthy: is missing; with a list of instances nothing else shows that one is there",
        ),
        (
            lambda d: change(d, instances=["w1", "--all"]),
            "found '--all'; write letters, digits and _ . : @ / % [ ] -, beginning with a letter, a digit, _ or [",
        ),
        (
            lambda d: change(d, symptoms=[{"alert": "Hung", "ladder": ["page", "restart"]}]),
            f"{T}.symptoms.0: ladder: found page, restart; name each step once and end with page",
        ),
        (
            lambda d: change(d, symptoms=[{"alert": "Hung", "ladder": ["replace", "page"]}]),
            f"{T}: symptoms.0.ladder: found replace; say how under 'replace:', or take it out",
        ),
        (
            lambda d: change(d, symptoms=[{"alert": "Hung"}, {"alert": "Hung", "promql": "x"}]),
            f"{T}: symptoms: found the alert Hung twice; remove one",
        ),
        (
            lambda d: change(d, replace={}),
            f"{T}: workload: is missing; the scaler is asked to replace an instance of a workload",
        ),
        (
            lambda d: change(d, workload="default/none"),
            f"{T}.workload: found 'default/none', which is no workload; known: default/video (write namespace/name)",
        ),
        (
            lambda d: change(d, depends_on=["database"]),
            "recovery: targets.0.depends_on: no target 'database'; known: workers",
        ),
        (lambda d: another(d), "recovery: targets.1.name: 'workers' stands twice; rename one"),
        (
            lambda d: (change(d, depends_on=["b"]), another(d, name="b", depends_on=["workers"])),
            "recovery: targets: workers needs b needs workers; nothing in a circle can be mended first",
        ),
        (
            lambda d: change(d, stability_seconds=-1.0),
            f"{T}.stability_seconds: found -1.0; it must be more than 0",
        ),
        (
            lambda d: d["recovery"].update(limits={"group_ratio": 1.5}),
            "recovery.limits.group_ratio: found 1.5; it must be at most 1",
        ),
    ],
)
def test_mistakes(tmp_path: Path, document: Any, mistake: Any, message: str) -> None:
    found = document()
    mistake(found)
    with pytest.raises(ConfigError) as error:
        load(written(tmp_path, found))
    assert message in str(error.value)


def test_without_targets_the_process_does_not_start(tmp_path: Path) -> None:
    for text in ("workloads: []\n", "recovery: {}\n"):
        with pytest.raises(
            ConfigError, match=r"recovery\.targets: there are none; docs/recovery\.md shows a first one"
        ):
            main(["--config", str(written(tmp_path, text))])


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("w1", True),
        ("10.0.0.7:9100", True),
        ("[::1]:9100", True),
        ("worker@3.service", True),
        ("prod/web-1", True),
        ("", False),
        ("-rf", False),
        ("a b", False),
        ("a\n", False),
        ("a;b", False),
        ("$HOME", False),
        ("../etc", False),
        ("a/../b", False),
        ("/etc", False),
        ("a" * 201, False),
    ],
)
def test_what_may_name_an_instance(name: str, is_one: bool) -> None:
    assert is_instance(name) is is_one
