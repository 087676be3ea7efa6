"""What HAProxy 2.6 answers over its socket, word for word, as values and as sentences; its file, read and written.

HAProxy 3.0.11 gives the same columns and the same words, with another empty line behind some of them.
"""

import contextlib
import errno
import fcntl
import os
import socketserver
import stat
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from controllers.actuators import haproxy_file
from controllers.actuators.haproxy_plan import Block, Entry, Failure, Role, Seen, Slot, slot_of
from controllers.actuators.haproxy_socket import BusyError, Runtime, refuse, servers
from controllers.actuators.interface import ActuatorError, PermanentError
from controllers.config.haproxy import HaproxyTarget

WHERE = "/run/haproxy/admin.sock"
STATES = """\
1
# be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight \
srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state srv_agent_state \
bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl srv_check_port srv_check_addr srv_agent_addr \
srv_agent_port
3 be_app 1 own 127.0.0.1 0 0 1 1 2 8 2 0 6 0 0 0 - 19199 - 0 0 - - 0
3 be_app 2 tidewise-127.0.0.1:19101 127.0.0.1 2 8 1 1 0 15 3 2 6 0 0 0 - 19101 - 0 0 - - 0
3 be_app 3 tidewise-::1:19102 ::1 0 1 1 1 7 1 0 0 2 0 0 0 - 19102 - 0 0 - - 0
3 be_app 4 tidewise-127.0.0.1:19103 127.0.0.1 2 4 1 1 9 15 3 2 6 0 0 0 - 19103 - 0 0 - - 0

"""
# the columns that are read, where they are in 2.6; newer ones add to the right
STATS = """\
# pxname,svname,qcur,qmax,scur,smax,slim,stot,status,check_status,last_chk,
be_app,own,0,0,0,0,,0,DOWN,L4CON,Layer4 connection problem,
be_app,tidewise-127.0.0.1:19101,1,1,2,2,,4,DRAIN,L7OK,"Layer7 check passed, with a comma",
be_app,tidewise-::1:19102,0,0,0,0,,0,MAINT,INI,,
be_app,tidewise-127.0.0.1:19103,0,0,5,5,,5,UP,L7OK,Layer7 check passed,

"""


def test_servers_as_values() -> None:
    found = servers(STATES, STATS, WHERE, "be_app")
    assert found["own"] == Seen(
        Slot("own", "127.0.0.1", 19199), False, False, False, False, 0, "L4CON Layer4 connection problem"
    )
    drains = found["tidewise-127.0.0.1:19101"]
    assert (drains.draining, drains.running, drains.passed, drains.sessions) == (True, True, True, 3)
    assert found["tidewise-::1:19102"].maintenance
    assert found["tidewise-::1:19102"].slot.address == "[::1]:19102"
    began_disabled = found["tidewise-127.0.0.1:19103"]
    assert (began_disabled.maintenance, began_disabled.running, began_disabled.sessions) == (False, True, 5)


def test_a_newer_version_with_more_columns_and_a_server_that_comes_meanwhile() -> None:
    states = STATES.replace("srv_agent_port\n", "srv_agent_port srv_new\n").replace("- - 0\n", "- - 0 7\n")
    stats = STATS.replace("be_app,own,0,0,0,0,,0,DOWN,L4CON,Layer4 connection problem,\n", "")
    assert len(servers(states, stats, WHERE, "be_app")) == 3


@pytest.mark.parametrize(
    ("states", "stats"),
    [
        pytest.param("", STATS, id="nothing"),
        pytest.param(STATES[:400], STATS, id="cut in the middle of a line"),
        pytest.param(STATES.replace("\n\n", "\n"), STATS, id="cut between two lines"),
        pytest.param(STATES, STATS[:90], id="statistics that are cut"),
        pytest.param(STATES, STATS.replace("scur", "xcur"), id="statistics without sessions"),
        pytest.param(STATES.replace("1\n# be_id", "2\n# be_id"), STATS, id="a version of the format that is not known"),
        pytest.param(STATES.replace("127.0.0.1 0 0 1", "127.0.0.1 up 0 1"), STATS, id="a word for a number"),
        pytest.param(
            "HTTP/1.0 400 Bad request\r\n\r\n", "HTTP/1.0 400 Bad request\r\n\r\n", id="another server's socket"
        ),
    ],
)
def test_an_answer_that_is_not_whole_is_no_answer(states: str, stats: str) -> None:
    with pytest.raises(ActuatorError, match="is not whole or not HAProxy's"):
        servers(states, stats, WHERE, "be_app")


ADD = "add server be_app/x 10.0.0.5:80 check"


@pytest.mark.parametrize(
    ("command", "answer", "error", "sentence"),
    [
        ("set server be_app/x state ready", "\n", None, ""),
        (ADD, "New server registered.\n\n", None, ""),
        ("del server be_app/x", "Server deleted.\n", None, ""),
        ("del server be_app/x", "Server deleted.\n\n", None, ""),  # 3.0
        (
            ADD,
            "No such backend.\n",
            PermanentError,
            "HAProxy has no backend be_app; correct `backend`, or reload HAProxy",
        ),
        ("set server be_app/x state ready", "Permission denied\n\n", PermanentError, "give the `stats socket` line"),
        (
            ADD,
            "Backend must use a dynamic load balancing to support dynamic servers.\n",
            PermanentError,
            "backend be_app has a `balance` that cannot take servers while HAProxy runs",
        ),
        (ADD, "unknown keyword 'chekc'; did you mean 'check' maybe ?\n\n", PermanentError, "correct `options`"),
        (ADD, "Unknown command, but maybe one of the following", PermanentError, "2.6 or newer is needed"),
        (
            "del server be_app/x",
            "Server still has connections attached to it, cannot remove it.\n",
            BusyError,
            "still has",
        ),
        (
            "del server be_app/x",
            "Only servers in maintenance mode can be deleted.\n",
            ActuatorError,
            "was answered: Only",
        ),
        (
            ADD,
            "Already exists a server with the same name in backend.\n",
            ActuatorError,
            "was answered: Already exists",
        ),
        ("set server be_app/x state drain", "No such server.\n\n", ActuatorError, "was answered: No such server."),
        (ADD, "\x00\ufffd{}", ActuatorError, "was answered: "),
    ],
)
def test_a_refusal_is_a_sentence(command: str, answer: str, error: type[Exception] | None, sentence: str) -> None:
    if error is None:
        refuse(answer, command, WHERE, "be_app")
        return
    with pytest.raises(error) as said:
        refuse(answer, command, WHERE, "be_app")
    assert type(said.value) is error
    assert str(said.value).startswith(WHERE)
    assert sentence in str(said.value)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Callable[[bytes, float], Runtime]]:
    """A socket that answers everything alike, after a while."""
    running: list[socketserver.BaseServer] = []

    def start(answer: bytes, seconds: float = 0.0) -> Runtime:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                self.rfile.readline()
                time.sleep(seconds)
                with contextlib.suppress(BrokenPipeError):  # whoever asked has left
                    self.wfile.write(answer)

        one = socketserver.ThreadingUnixStreamServer(str(tmp_path / "s"), Handler)
        one.daemon_threads = True
        running.append(one)
        threading.Thread(target=one.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return Runtime(str(tmp_path / "s"), "be_app")

    yield start
    for one in running:
        one.shutdown()
        one.server_close()


def test_a_socket_that_hangs_is_left_in_time(server: Callable[..., Runtime]) -> None:
    runtime = server(b"", 1.0)
    with pytest.raises(ActuatorError, match="HAProxy did not answer 'show info' in time; is it hanging"):
        runtime.uptime_seconds(time.monotonic() + 0.2)
    with pytest.raises(ActuatorError, match="in time"):
        runtime.seen(time.monotonic() - 1)


def test_an_answer_of_another_program(server: Callable[..., Runtime]) -> None:
    with pytest.raises(ActuatorError, match=r"the answer to 'show info' is not whole or not HAProxy's: '220 smtp'"):
        server(b"220 smtp\r\n").uptime_seconds(time.monotonic() + 5)


FILE = """\
global
  daemon
frontend fe
  default_backend be_app
backend be_other
  # tidewise: begin
  # tidewise: end
backend be_app
\tbalance leastconn
\t# tidewise: begin
\t# tidewise: end
\tserver own 10.0.0.1:80 check
listen stats
  bind :9000
"""
A, B = slot_of("tidewise-", "10.0.0.5", 8000), slot_of("tidewise-", "::1", 8001)
BLOCK = Block(
    (Entry(A, Role.SERVING, 1800000000.0), Entry(B, Role.LEAVING, 1800000060.25)),
    (Failure("tidewise-10.0.0.5:8002", 2, 1800000030.5),),
)


def test_the_block_is_written_into_its_own_backend_and_read_again() -> None:
    written = haproxy_file.rendered(FILE, BLOCK, "be_app", "check inter 1s", "f")
    assert written == FILE.replace(
        "\t# tidewise: begin\n",
        "\t# tidewise: begin\n"
        f"\t{haproxy_file.NOTE}\n"
        "\tserver tidewise-10.0.0.5:8000 10.0.0.5:8000 check inter 1s # serving since 1800000000.000\n"
        "\tserver tidewise-::1:8001 [::1]:8001 check inter 1s disabled # leaving since 1800000060.250\n"
        "\t# failed tidewise-10.0.0.5:8002 2 times, last at 1800000030.500\n",
    )
    assert haproxy_file.parsed(written, "be_app", "tidewise-", "f") == BLOCK
    assert haproxy_file.parsed(written, "be_other", "tidewise-", "f") == Block()
    assert haproxy_file.rendered(written, Block(), "be_app", "check", "f").count("server tidewise") == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "f: backend be_app: found no section of it; into `backend be_app`, write the two lines"),
        ("backend be_app\n  balance roundrobin\n", "found no place for its servers; into `backend be_app`"),
        ("backend be_app\n# tidewise: begin\nlisten x\n# tidewise: end\n", "found no place for its servers"),
        (FILE + "backend be_app\n# tidewise: begin\n", "line 16: a second '# tidewise: begin' in backend be_app"),
        (
            FILE.replace("\t# tidewise: end", "\tserver x 10.0.0.2:80\n\t# tidewise: end"),
            "line 11: 'server x 10.0.0.2:80' stands between the marks and is not of ours; move it out",
        ),
        (
            FILE.replace(
                "\t# tidewise: end", "\tserver old-10.0.0.5:1 10.0.0.5:1 check # serving since 1.0\n# tidewise: end"
            ),
            "line 11: the server old-10.0.0.5:1 is not called tidewise-10.0.0.5:1; was `prefix` changed?",
        ),
    ],
)
def test_a_file_that_is_not_as_it_should_be(text: str, sentence: str) -> None:
    with pytest.raises(PermanentError) as said:
        haproxy_file.parsed(text, "be_app", "tidewise-", "f")
    assert sentence in str(said.value)


def test_the_file_keeps_its_mode_and_its_place_behind_a_link(tmp_path: Path) -> None:
    real, link = tmp_path / "real.cfg", tmp_path / "haproxy.cfg"
    real.write_text(FILE)
    real.chmod(0o640)
    link.symlink_to(real)
    haproxy_file.write(link, "new\n")
    assert link.is_symlink()
    assert real.read_text() == "new\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert [path.name for path in tmp_path.iterdir() if "new" in path.name] == []


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    file = tmp_path / "haproxy.cfg"
    file.write_text(FILE)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ActuatorError, match=r"haproxy.cfg: cannot be written \(No space left on device\); make room"):
        haproxy_file.write(file, "x")
    assert file.read_text() == FILE
    assert list(tmp_path.iterdir()) == [file]


TARGET = {"socket": WHERE, "backend": "be_app", "file": "/etc/haproxy/haproxy.cfg", "servers": ["10.0.0.5:8000-8002"]}


def test_a_target_of_few_words() -> None:
    target = HaproxyTarget.model_validate(TARGET)
    assert target.addresses == [("10.0.0.5", 8000), ("10.0.0.5", 8001), ("10.0.0.5", 8002)]
    assert HaproxyTarget.model_validate(TARGET | {"servers": ["[::1]:80", "10.0.0.5:1"]}).addresses[0] == ("::1", 80)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"socket": "admin.sock"}, "found 'admin.sock'; write the whole path of HAProxy's stats socket, or HOST:PORT"),
        ({"servers": ["web1:80"]}, "found 'web1:80'; write IP:PORT or IP:FIRST-LAST, for example 10.0.0.5:8000-8019"),
        ({"servers": ["10.0.0.5:90-80"]}, "found '10.0.0.5:90-80'"),
        ({"servers": ["10.0.0.5"]}, "found '10.0.0.5'"),
        ({"servers": ["10.0.0.500:80"]}, "found '10.0.0.500:80'"),
        ({"servers": ["10.0.0.5:1-60000"]}, "found '10.0.0.5:1-60000'"),
        ({"servers": ["10.0.0.5:80-82", "10.0.0.5:81"]}, "found ('10.0.0.5', 81) twice; remove one"),
        ({"options": "inter 1s"}, "with the word check in it and without disabled"),
        ({"options": "check disabled"}, "without disabled"),
        ({"options": "check; shutdown sessions server a/b"}, "write what stands behind a server's address"),
        ({"options": "check\nserver x 1.1.1.1:1"}, "write what stands behind"),
        ({"start": ["systemctl", "start", "app@{port}"]}, "found one of start and stop; give both, or none"),
        (
            {"start": ["a"], "stop": ["b", "{port}"]},
            "start: found ['a']; one argument must hold one of {name}, {address}",
        ),
    ],
)
def test_a_target_that_cannot_be(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValidationError) as said:
        HaproxyTarget.model_validate(TARGET | changes)
    assert sentence in str(said.value)


def test_a_disk_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "haproxy.cfg"
    file.write_text("")

    def refuses(*asked: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(ActuatorError, match=r"cannot be locked \(No locks available\); keep"), haproxy_file.held(file):
        pass
