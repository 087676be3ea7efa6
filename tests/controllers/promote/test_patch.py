"""Changing one mode in somebody's file: the smallest change, or none."""

import subprocess
from pathlib import Path

import pytest
import yaml

from controllers.config import Config
from controllers.domain import Mode
from controllers.promote.patch import PatchError, diff, with_mode
from exporters.runtime.config import validate

PATH = Path("tidewise.yaml")
TARGET = 'target: {command: {get: ["true"], set: ["true", "{replicas}"]}}'
BLOCK = f"""\
# our workers
workloads:
  - name: video     # the first
    demand: {{queue: jobs}}
    {TARGET}
    replicas: {{min: 0, max: 4}}   # as many as we can pay
    mode: shadow    # for now

  - name: other
    mode: shadow
    demand: {{queue: others}}
    {TARGET}
    replicas:
      max: 4
"""
WITHOUT = f"""\
workloads:
  - name: video
    demand: {{queue: jobs}}
    {TARGET}
    replicas:
      max: 4
    # the end
"""
FLOW = f"workloads: [{{name: video, demand: {{queue: jobs}}, {TARGET}, replicas: {{max: 4}}}}]\n"
ANCHOR = f"""\
workloads:
  - name: video
    mode: &mode shadow
    demand: {{queue: jobs}}
    {TARGET}
    replicas: {{max: 4}}
  - name: other
    mode: *mode
    demand: {{queue: others}}
    {TARGET}
    replicas: {{max: 4}}
"""


def changed(text: str, identity: str = "default/video", mode: Mode = Mode.ACT) -> str:
    config = validate(Config, yaml.safe_load(text), PATH)
    return with_mode(text, config, identity, mode, PATH)


@pytest.mark.parametrize(
    ("sentence", "text", "identity", "removed", "added"),
    [
        ("its value only", BLOCK, "default/video", "    mode: shadow    # for now", "    mode: act    # for now"),
        ("of the one that is meant", BLOCK, "default/other", "    mode: shadow", "    mode: act"),
        ("below what ends on its line", WITHOUT, "default/video", None, "    mode: act"),
        ("within braces", FLOW, "default/video", FLOW.strip(), FLOW.strip().replace("4}}", "4}, mode: act}")),
        ("quoted", BLOCK.replace("mode: shadow ", "mode: 'shadow' "), "default/video", None, None),
    ],
)
def test_nothing_else_changes(sentence: str, text: str, identity: str, removed: str | None, added: str | None) -> None:
    lines, after = text.splitlines(), changed(text, identity).splitlines()
    gone = [line for line in lines if line not in after or lines.count(line) != after.count(line)]
    assert removed is None or removed in gone, sentence
    assert added is None or added in after, sentence
    assert abs(len(after) - len(lines)) <= 1
    modes = {w["name"]: w.get("mode") for w in yaml.safe_load("\n".join(after))["workloads"]}
    assert modes[identity.partition("/")[2]] == "act"
    assert list(modes.values()).count("act") == 1


def test_windows_lines_and_a_file_without_a_last_newline_stay_as_they_are() -> None:
    windows = WITHOUT.replace("\n", "\r\n")
    after = changed(windows)
    assert after.count("\r\n") == after.count("\n") == windows.count("\n") + 1
    bare = FLOW.rstrip("\n")
    assert not changed(bare).endswith("\n")


def test_what_is_shared_by_an_anchor_is_left_to_a_person() -> None:
    with pytest.raises(
        PatchError, match=r"workloads\.0\.mode cannot be changed without breaking the file; change it by hand"
    ):
        changed(ANCHOR)
    with pytest.raises(PatchError, match=r"workloads\.1\.mode cannot be changed"):
        changed(ANCHOR, "default/other")


SHARED = f"""\
workloads:
  - {{name: other, demand: {{queue: others}}, target: &there {TARGET.removeprefix("target: ")}, replicas: {{max: 4}}}}
  - name: video
    demand: {{queue: jobs}}
    replicas:
      max: 4
    target: *there
  - {{name: mail, demand: {{queue: mail}}, replicas: {{max: 4}}, target: *there}}
"""


@pytest.mark.parametrize(
    ("identity", "added"),
    [
        ("default/video", "    demand: {queue: jobs}\n    mode: act\n"),
        ("default/mail", "replicas: {max: 4}, mode: act, target: *there}"),
    ],
)
def test_a_target_that_workloads_share_stays_so(identity: str, added: str) -> None:
    assert added in changed(SHARED, identity)


@pytest.mark.parametrize("name", ["tidewise.yaml", "our fleet.yaml"])
@pytest.mark.parametrize("text", [BLOCK, WITHOUT, FLOW, FLOW.rstrip("\n")])
def test_patch_takes_it(text: str, name: str, tmp_path: Path) -> None:
    file = tmp_path / name  # with -p0, patch takes no whole path and no space
    file.write_text(text)
    after = changed(text)
    said = "default/video, some words before it\n\n" + diff(text, after, file)
    try:
        done = subprocess.run(["patch", str(file)], input=said, text=True, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("no program patch")
    assert done.returncode == 0, done.stdout + done.stderr
    assert file.read_text() == after
