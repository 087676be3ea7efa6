"""Servers of a real HAProxy, started and stopped under load: nothing is lost, whatever happens meanwhile."""

import contextlib
import itertools
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from controllers.actuators import haproxy, haproxy_file, haproxy_plan
from controllers.actuators.haproxy_socket import Runtime
from controllers.actuators.interface import Actuator, ActuatorError, NoCapacityError, PermanentError
from controllers.check_targets import report
from controllers.config import Config
from controllers.domain import Replicas
from tests.controllers.actuators import haproxy_server
from tests.controllers.actuators.haproxy_ground import Ground, Load, settle, until

pytestmark = pytest.mark.real


@pytest.fixture
def ground(services_root: Path, tmp_path: Path) -> Iterator[Ground]:
    with Ground(tmp_path, services_root) as one:
        yield one


def test_from_one_to_four_and_back_nothing_is_lost(ground: Ground) -> None:
    actuator = ground.actuator()
    assert actuator.read_replicas(5) == Replicas(0, 0)
    settle(actuator, 1)
    with Load(ground.haproxy.port) as load:
        until(lambda: load.answers["200"] > 50)
        settle(actuator, 4)
        assert ground.running() == [0, 1, 2, 3]
        before = sum(load.servers.values())
        until(lambda: sum(load.servers.values()) > before + 200)
        settle(actuator, 1)
        before = load.answers["200"]
        until(lambda: load.answers["200"] > before + 50)
    assert len(load.servers) == 4  # each of them answered
    assert load.lost == {}
    assert len(ground.running()) == 1
    assert len(ground.lines()) == 1


def test_a_reload_in_the_middle_keeps_servers_and_drains_and_loses_nothing(ground: Ground) -> None:
    ground.drain = 1.6
    actuator = ground.actuator()
    settle(actuator, 3)
    with (
        Load(ground.haproxy.port) as load,
        Load(ground.haproxy.port, kept=0, fresh=0, slow=6, path="/slow/1.2") as slow,
    ):
        until(lambda: load.answers["200"] > 50)
        actuator.apply(1, 5)  # two drain
        reload(ground)
        # two came back disabled (1: in maintenance, 4: by the file): the new process sends them nothing
        assert sorted(admin for _, admin in states(ground).values()) == [0, 5, 5]
        assert actuator.read_replicas(5) == Replicas(1, 1, draining=2, unfinished=True)
        actuator.apply(1, 5)
        assert sorted(ground.running()) == [0, 1, 2]  # the old process may still have requests in them
        settle(actuator, 1)
        (ground.folder / "loads").write_text("1.2")
        actuator.apply(2, 5)
        assert "starting" in "".join(ground.lines())
        reload(ground)
        settle(actuator, 2)
        until(lambda: slow.answers["200"] > 15)
    assert load.lost == {}
    assert slow.lost == {}


def test_a_haproxy_that_is_started_anew_has_the_servers_of_its_file(ground: Ground) -> None:
    actuator = ground.actuator()
    settle(actuator, 2)
    ground.haproxy.stop()
    with pytest.raises(ActuatorError, match=r"admin.sock: HAProxy cannot be reached \(.*\); is it running, with"):
        actuator.read_replicas(5)
    ground.haproxy.start()
    until(lambda: actuator.read_replicas(5) == Replicas(2, 2))
    assert ground.told().count(f"start {ground.ports[0]}") == 1


def test_servers_that_haproxy_has_lost_come_back_and_those_that_the_file_has_lost_stay(ground: Ground) -> None:
    actuator = ground.actuator()
    old = ground.file.read_text()
    settle(actuator, 2)
    new = ground.file.read_text()
    ground.file.write_text(old)  # somebody put an older file in place
    assert actuator.read_replicas(5) == Replicas(2, 2, unfinished=True)
    actuator.apply(2, 5)
    assert len(ground.lines()) == 2
    ground.file.write_text(old)
    ground.haproxy.stop()
    ground.haproxy.start()  # of the older file
    ground.file.write_text(new)
    now = actuator.read_replicas(5)
    assert (now.wanted, now.ready, now.unfinished) == (2, 0, True)
    settle(actuator, 2)


def test_whoever_is_ended_after_any_effect_is_gone_on_with_by_the_next(
    services_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGKILL leaves exactly the effects so far, and no lock."""

    class Killed(BaseException):
        """Nobody catches it."""

    left = [-1]

    def deadly(function: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            answer = function(*args)
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            return answer

        return wrapped

    monkeypatch.setattr(Runtime, "tell", deadly(Runtime.tell))
    monkeypatch.setattr(haproxy, "run_program", deadly(haproxy.run_program))
    monkeypatch.setattr(haproxy_file, "write", deadly(haproxy_file.write))
    nothing = ["/bin/true", "{port}"]  # what listens there is there all the time, so that this goes fast
    with Ground(tmp_path, services_root, slots=2, drain=0.2) as ground:
        for port in ground.ports:
            haproxy_server.start(port, ground.folder)
        again = partial(ground.actuator, start=nothing, stop=nothing, options="check inter 20ms rise 1 fall 2")
        settle(again(), 1)
        with Load(ground.haproxy.port, slow=0) as load:
            killed = {1: 0, 2: 0}
            for effects, replicas in itertools.product(range(1, 9), (2, 1)):
                left[0] = effects
                try:
                    settle(again(), replicas)
                except Killed:
                    killed[replicas] += 1
                left[0] = -1
                settle(again(), replicas)
                assert len(ground.lines()) == len(states(ground)) == replicas
        assert killed == {2: 7, 1: 6}  # every effect of a way up, and of a way down
        assert load.lost == {}


TELLS_UNTIL_IT_IS_KILLED = """
import json, sys
from controllers.actuators.haproxy import haproxy_actuator
from controllers.actuators.interface import ActuatorError
from controllers.config.haproxy import HaproxyTarget
actuator = haproxy_actuator(HaproxyTarget.model_validate(json.loads(sys.argv[1])))
print("begins", flush=True)
while True:
    for replicas in (3, 1):
        for _ in range(8):
            try:
                actuator.apply(replicas, 10)
            except ActuatorError:
                pass  # its predecessor's programs may still run
"""


def test_a_process_that_is_killed_at_any_moment_leaves_what_the_next_goes_on_with(
    services_root: Path, tmp_path: Path
) -> None:
    """A real SIGKILL, also while a program of its own runs and while it writes; traffic goes on."""
    chance = random.Random(7)
    with Ground(tmp_path, services_root, slots=4, drain=0.5) as ground:
        settle(ground.actuator(), 1)
        with Load(ground.haproxy.port, slow=1, path="/slow/0.2") as load:
            for _ in range(5):
                process = subprocess.Popen(
                    [sys.executable, "-c", TELLS_UNTIL_IT_IS_KILLED, json.dumps(ground.settings())],
                    stdout=subprocess.PIPE,
                )
                with process:
                    assert process.stdout is not None
                    assert process.stdout.readline() == b"begins\n"
                    time.sleep(chance.uniform(0.05, 1.2))
                    process.kill()
                assert ground.lines(), "the file is whole"
            settle(ground.actuator(), 2, 20.0)
        servers = [line for line in ground.lines() if line.startswith("server ")]  # a killed start may count as failed
        assert len(servers) == len(states(ground)) == len(ground.running()) == 2
        assert load.lost == {}


def test_others_servers_are_neither_counted_nor_touched_nor_doubled(services_root: Path, tmp_path: Path) -> None:
    ground = Ground(tmp_path, services_root, slots=2)
    own = f"server mine 127.0.0.1:{ground.ports[0]}"
    ground.file.write_text(ground.file.read_text() + f"  {own}\n  server tidewise-mine 127.0.0.1:1\n")
    with ground:
        actuator = ground.actuator()
        assert actuator.read_replicas(5) == Replicas(0, 0)
        settle(actuator, 1)
        assert ground.running() == [1]
        with pytest.raises(NoCapacityError, match=r"1 of 2 servers, of 2 in `servers`: .*:\d+ is also mine") as no:
            actuator.apply(2, 5)
        assert no.value.told == 1
        settle(actuator, 0)
        assert set(states(ground)) == {"mine", "tidewise-mine"}
        assert own in ground.file.read_text()


def test_a_server_that_never_gets_healthy_is_taken_out_again_and_tried_a_few_times_only(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(haproxy_plan, "SETTLE_SECONDS", 0.1)
    ground.drain = 0.2
    actuator = ground.actuator(ready_seconds=0.6, servers=[f"127.0.0.1:{ground.ports[0]}"])
    (ground.folder / "deaf").touch()
    said = []
    for _ in range(3):
        with pytest.raises(ActuatorError) as error:
            settle(actuator, 1)
        said.append(str(error.value))
        until(lambda: not told_again(actuator).unfinished)
        assert ground.running() == []
        assert set(states(ground)) == set()
    assert "was not healthy within 0.6 s (last check: L4CON" in said[0]
    with pytest.raises(NoCapacityError, match="failed to start 3 times"):
        actuator.apply(1, 5)
    assert ground.lines()[0].startswith(f"# failed {ground.name(0)} 3 times")
    assert ground.told().count(f"start {ground.ports[0]}") == 3


def test_a_program_that_fails_says_its_words_and_another_server_is_taken_next_time(ground: Ground) -> None:
    actuator = ground.actuator(start=["/bin/sh", "-c", f"test $0 != {ground.ports[0]} && sh -c 'exit 0'", "{port}"])
    with pytest.raises(ActuatorError, match="exited 1; it said: nothing on standard error"):
        actuator.apply(1, 5)
    assert actuator.read_replicas(5).wanted == 0
    with pytest.raises(ActuatorError, match=r"sleep 60 .*: did not end within 1 s and was stopped"):  # not a minute
        ground.actuator(start=["/bin/sh", "-c", "sleep 60 # $0", "{port}"]).apply(1, 1.4)
    with pytest.raises(ActuatorError):  # nothing listens there, but it is another one
        settle(ground.actuator(start=["/bin/true", "{port}"], ready_seconds=0.3), 1)
    assert any(ground.name(1) in line for line in ground.lines())


def test_who_goes_first_is_named_or_idle(ground: Ground) -> None:
    actuator = ground.actuator()
    settle(actuator, 4)
    actuator.apply(3, 5, victims=(ground.name(1),))
    assert f"server {ground.name(1)}" in leaving(ground)
    address = f"127.0.0.1:{ground.ports[2]}"
    actuator.apply(2, 5, in_hand={ground.name(0): 2.0, address: 0.0, ground.name(3): 1.0})
    assert f"server {ground.name(2)}" in leaving(ground)
    settle(actuator, 2)
    assert ground.running() == [0, 3]


def test_a_server_that_drains_is_taken_back_rather_than_another_started(ground: Ground) -> None:
    actuator = ground.actuator(drain_seconds=60.0)
    settle(actuator, 2)
    actuator.apply(1, 5)
    settle(actuator, 2)
    assert [line for line in ground.told() if "stop" in line] == []
    assert ground.running() == [0, 1]


def test_standby_machines_are_only_put_into_rotation_and_taken_out(ground: Ground) -> None:
    for port in ground.ports[:2]:
        haproxy_server.start(port, ground.folder)
    actuator = ground.actuator(start=None, stop=None)
    settle(actuator, 2)
    settle(actuator, 0)
    assert ground.running() == [0, 1]


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"socket": "/nowhere/admin.sock"}, ActuatorError, "/nowhere/admin.sock: HAProxy cannot be reached (No such"),
        ({"socket": "127.0.0.1:1"}, ActuatorError, "127.0.0.1:1: HAProxy cannot be reached (Connection refused)"),
        ({"socket": "operator.sock"}, PermanentError, "' is refused; give the `stats socket` line `level admin`"),
        ({"backend": "be_other"}, PermanentError, "backend be_other: found no section of it; into `backend be_other`"),
        ({"file": "/nowhere/haproxy.cfg"}, PermanentError, "/nowhere/haproxy.cfg: cannot be read (No such file"),
        ({"options": "check chekc"}, PermanentError, "unknown keyword 'chekc'"),
    ],
)
def test_what_is_set_up_wrongly_is_said_and_nothing_is_written(
    ground: Ground, changes: dict[str, str], error: type[Exception], sentence: str
) -> None:
    if changes.get("socket") == "operator.sock":
        changes = {"socket": str(ground.folder / "operator.sock")}
    before = ground.file.read_text()
    with pytest.raises(error) as said:
        ground.actuator(**changes).apply(1, 5)
    assert sentence in str(said.value)
    assert ground.file.read_text() == before
    assert ground.told() == []


def test_a_balance_that_takes_no_servers_is_named(services_root: Path, tmp_path: Path) -> None:
    with (
        Ground(tmp_path, services_root, balance="static-rr") as ground,
        pytest.raises(
            PermanentError, match="has a `balance` that cannot take servers while HAProxy runs; choose one of"
        ),
    ):
        ground.actuator().apply(1, 5)


def test_somebody_elses_server_of_our_name_is_refused(services_root: Path, tmp_path: Path) -> None:
    ground = Ground(tmp_path, services_root)
    ground.file.write_text(ground.file.read_text() + f"  server {ground.name(0)} 127.0.0.1:1\n")
    with ground, pytest.raises(PermanentError, match=r"at 127.0.0.1:1, not at .*: somebody else's; rename it"):
        ground.actuator().read_replicas(5)


def test_two_at_once_are_one_after_the_other(ground: Ground) -> None:
    with (
        haproxy_file.held(ground.file),
        pytest.raises(
            ActuatorError, match="another tidewise is changing the servers; is `tidewise scale` running twice"
        ),
    ):
        ground.actuator().apply(1, 5)


def test_check_says_what_is_there_and_what_is_missing(ground: Ground) -> None:
    def said(seconds: float = 0.1, **changes: Any) -> tuple[list[str], bool]:
        workload = {"name": "app", "demand": {"service": "be_app"}, "replicas": {"max": 4}, "mode": "act"}
        target = {"haproxy": ground.settings(**changes)}
        config = Config.model_validate({"workloads": [{**workload, "target": target}]})
        return report(config, None, {"default/app": seconds})  # type: ignore[arg-type]

    assert said() == (["default/app: haproxy: 0 of 0 replicas work"], False)
    (error,), missing = said(socket=f"{ground.folder}/operator.sock")
    assert error.startswith(
        f"error: default/app: {ground.folder}/operator.sock: 'set server be_app/tidewise-none state"
    )
    assert "level admin" in error
    assert missing
    text = ground.file.read_text()
    ground.file.write_text(text.replace("defaults\n", "defaults\n  default-server maxconn 7\n"))
    _, warning = said()[0]
    assert warning.startswith(
        f"warning: default/app: {ground.file}: line 5: HAProxy applies default-server at a reload"
    )
    ground.file.write_text(text)
    _, warning = said(seconds=2.0)[0]
    assert warning == (
        "warning: default/app: what a server has in hand 1 s after its drain began is cut off, and one request takes "
        "2 s in the mean and 6 s now and then; raise target.haproxy.drain_seconds"
    )


def reload(ground: Ground) -> None:
    """Another process answers afterwards."""

    def pid() -> str:
        return next(line for line in ground.ask("show info").splitlines() if line.startswith("Pid:"))

    before = pid()
    ground.haproxy.reload()
    until(lambda: pid() != before)


def states(ground: Ground) -> dict[str, tuple[int, int]]:
    """(operational, administrative) state of each server, as HAProxy's numbers."""
    rows = [line.split() for line in ground.ask("show servers state be_app").splitlines()[2:] if line]
    return {row[3]: (int(row[5]), int(row[6])) for row in rows}


def leaving(ground: Ground) -> str:
    return "\n".join(line for line in ground.lines() if "leaving" in line)


def told_again(actuator: Actuator) -> Replicas:
    """As `scale` does it: the number that is wanted now, once more."""
    with contextlib.suppress(ActuatorError):
        actuator.apply(actuator.read_replicas(5).wanted, 5)
    return actuator.read_replicas(5)
