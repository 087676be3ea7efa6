"""The command actuator on real programs."""

import sys
import tempfile
import time
from pathlib import Path

import pytest

from controllers.actuators.command import command_actuator
from controllers.actuators.interface import ActuatorError
from controllers.actuators.shadow import in_shadow
from controllers.config import CommandTarget
from controllers.domain import Replicas


def target(folder: Path, *, get: str | None = None, put: str | None = None, seconds: float = 5.0) -> CommandTarget:
    """A file as the target: `get` and `put` are Python programs; {file} is the file that holds the number."""
    file = folder / "replicas"
    if not file.exists():
        file.write_text("3")
    get = get or "print(open({file!r}).read())"
    put = put or "import sys; open({file!r}, 'w').write(sys.argv[1])"
    return CommandTarget(
        get=[sys.executable, "-c", get.replace("{file!r}", repr(str(file)))],
        set=[sys.executable, "-c", put.replace("{file!r}", repr(str(file))), "{replicas}"],
        timeout_seconds=seconds,
    )


def test_a_number_is_read_and_set_and_set_again(tmp_path: Path) -> None:
    actuator = command_actuator(target(tmp_path))
    assert actuator.read_replicas(5) == Replicas(3, 3)
    actuator.apply(7, 5)
    actuator.apply(7, 5)
    assert actuator.read_replicas(5) == Replicas(7, 7)


def test_json_tells_wanted_and_ready(tmp_path: Path) -> None:
    actuator = command_actuator(target(tmp_path, get="""print('{"replicas": 5, "ready": 2}')"""))
    assert actuator.read_replicas(5) == Replicas(5, 2)


def test_json_tells_those_on_their_way_out(tmp_path: Path) -> None:
    actuator = command_actuator(target(tmp_path, get="""print('{"replicas": 5, "ready": 5, "draining": 2}')"""))
    assert actuator.read_replicas(5) == Replicas(5, 5, draining=2)


def test_the_victims_of_replacements_are_named(tmp_path: Path) -> None:
    one = target(
        tmp_path,
        put="import sys; open({file!r}, 'w').write(sys.argv[1]); open({file!r} + '.victims', 'w').write(sys.argv[2])",
    )
    actuator = command_actuator(one.model_copy(update={"set": [*one.set, "{victims}"]}))
    actuator.apply(4, 5, ("w1", "{replicas}"))
    assert (tmp_path / "replicas.victims").read_text() == "w1,{replicas}"
    actuator.apply(5, 5)
    assert (tmp_path / "replicas.victims").read_text() == ""


def test_those_with_least_in_hand_are_named_first(tmp_path: Path) -> None:
    one = target(
        tmp_path,
        put="import sys; open({file!r}, 'w').write(sys.argv[1]); open({file!r} + '.i', 'w').write(sys.argv[2])",
    )
    actuator = command_actuator(one.model_copy(update={"set": [*one.set, "{idle}"]}))
    actuator.apply(2, 5, in_hand={"w1": 3.0, "w2": 0.0, "w3": 1.0})
    assert (tmp_path / "replicas.i").read_text() == "w2,w3,w1"
    actuator.apply(2, 5)
    assert (tmp_path / "replicas.i").read_text() == ""


@pytest.mark.parametrize(
    ("get", "expected"),
    [
        ("print('lots')", "printed 'lots'; it must print a number"),
        ("print(-1)", "printed '-1'"),
        ("print('{\"ready\": 2}')", "it must print a number or"),
        ("print('true')", "printed 'true'"),
        ("", "printed ''"),
        ("import sys; sys.exit('no such fleet')", "exited 1; it said: no such fleet"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_the_words_of_the_program(tmp_path: Path, get: str, expected: str) -> None:
    with pytest.raises(ActuatorError) as error:
        command_actuator(target(tmp_path, get=get or "pass")).read_replicas(5)
    assert expected in str(error.value)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    missing = CommandTarget(get=[str(tmp_path / "nothing")], set=["x", "{replicas}"])
    with pytest.raises(ActuatorError, match="could not be started"):
        command_actuator(missing).read_replicas(5)


def test_a_program_that_hangs_is_stopped_with_its_children(tmp_path: Path) -> None:
    child = tmp_path / "child"
    get = (
        "import subprocess; p = subprocess.Popen(['sleep', '60']); "
        f"open({str(child)!r}, 'w').write(str(p.pid)); p.wait()"
    )
    with pytest.raises(ActuatorError, match="did not end within 1 s"):
        command_actuator(target(tmp_path, get=get, seconds=1.0)).read_replicas(5)
    pid = int(child.read_text())
    assert any(not running(pid) or time.sleep(0.05) for _ in range(100))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_exit_0_is_believed_only_after_reading_back(tmp_path: Path) -> None:
    with pytest.raises(ActuatorError, match=r"exited 0, but .* says 3, not 9"):
        command_actuator(target(tmp_path, put="pass")).apply(9, 5)


def test_nothing_is_given_to_a_shell(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    actuator = command_actuator(
        CommandTarget(get=["/bin/echo", f"3; touch {trap}"], set=["/bin/echo", f"{{replicas}} $(touch {trap})"])
    )
    with pytest.raises(ActuatorError):
        actuator.apply(3, 5)
    assert not trap.exists()


def test_shadow_looks_and_leaves_alone(tmp_path: Path) -> None:
    actuator = in_shadow(command_actuator(target(tmp_path)))
    actuator.apply(9, 5)
    assert actuator.read_replicas(5) == Replicas(3, 3)


def test_without_a_place_for_output_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    actuator = command_actuator(target(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(ActuatorError, match=r"there is no place for its output .* or name another in TMPDIR"):
        actuator.read_replicas(5)
