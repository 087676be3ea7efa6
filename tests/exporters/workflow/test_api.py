"""n8n's public API, on a stand-in with its shapes."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporters.jsonapi import ApiError
from exporters.workflow import api
from exporters.workflow.api import PAGE
from tests.exporters.workflow.conftest import Page
from tests.exporters.workflow.stand_in import KEY, StandIn
from tests.exporters.workflow.tables import schedule

NOW = 0.0  # when this file's turn came: set below


@pytest.fixture(autouse=True, scope="module")
def _now() -> None:
    """Other files may take minutes between reading this one and running it."""
    global NOW
    NOW = float(int(time.time()))


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    return path


@pytest.fixture(params=[pytest.param(True, id="2.x"), pytest.param(False, id="an early 1.x")])
def n8n(request: pytest.FixtureRequest) -> Iterator[StandIn]:
    server = StandIn(request.param)
    server.workflows = [
        {"id": "cap", "name": "Captions", "active": True, "updatedAt": "2026-01-01T00:00:00.000Z",
         "nodes": schedule(field="hours"), "settings": {}},
        {"id": "arc", "name": "Old", "active": False, "isArchived": True, "nodes": []},
    ]  # fmt: skip
    yield server
    server.close()


@pytest.fixture
def page(n8n: StandIn, key_file: Path) -> Page:
    return Page({"api": n8n.url, "api_key_file": key_file})


def test_what_ended_before_is_remembered_and_what_ends_is_counted(n8n: StandIn, page: Page) -> None:
    n8n.end(n8n.start("cap", NOW - 900), NOW - 890)
    n8n.end(n8n.start("cap", NOW - 800), NOW - 790, "error")
    running = n8n.start("cap", NOW - 100)
    found = page.look()
    assert found["workflow_info cap Captions true"] == 1
    assert not [name for name in found if " arc" in name]
    assert found["workflow_expected_interval_seconds cap"] == 3600
    assert found["workflow_executions_total cap production"] == 0
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 890
    assert found["workflow_last_failure_timestamp_seconds cap"] == NOW - 790
    assert found.get("workflow_running cap") == (1 if n8n.new else None)  # an early one does not tell
    n8n.end(n8n.start("cap", NOW - 50), NOW - 40)
    n8n.end(running, NOW - 5, "error")
    found = page.look()
    assert found["workflow_executions_total cap production"] == 2
    assert found["workflow_execution_failures_total cap production"] == 1
    assert found["workflow_duration_seconds_sum cap"] == 105
    assert found["workflow_last_success_timestamp_seconds cap"] == NOW - 40
    assert page.look()["workflow_executions_total cap production"] == 2
    assert page.problem is None


def test_a_workflow_that_is_newer_than_the_list_is_counted_from_its_first_execution(n8n: StandIn, page: Page) -> None:
    page.look()
    n8n.workflows.append({"id": "new", "name": "New", "active": True, "nodes": []})
    assert "workflow_info new New true" not in page.look()  # the list is asked for every five minutes
    for ended in (1, 2):
        n8n.end(n8n.start("new", NOW - 9), NOW - 8)
        n8n.end(n8n.start("arc", NOW - 9), NOW - 8)
        n8n.asked.clear()
        assert page.look()["workflow_executions_total new production"] == ended
    assert not [path for path in n8n.asked if "workflows" in path]


@pytest.mark.parametrize("n8n", [pytest.param(True, id="2.x")], indirect=True)
def test_a_list_that_takes_longer_than_a_look_goes_on_at_the_next_one(
    n8n: StandIn, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    n8n.workflows += [{"id": f"w{number}", "name": "Many", "active": True, "nodes": []} for number in range(70)]
    n8n.end(n8n.start("w69", NOW - 90), NOW - 80)
    n8n.seconds_a_workflow = 0.005  # a page of 100 is too large for a look of 0.2 s
    monkeypatch.setattr(api, "WORKFLOWS_SECONDS", 0.0)
    said: list[str] = []
    found: dict[str, float] = {}
    while not found:
        assert len(said) < 20
        try:
            found = page.look(0.25)
        except ApiError as error:
            said.append(str(error))
    assert any("workflows are listed; it goes on at the next look" in one for one in said)
    assert len([name for name in found if name.startswith("workflow_info")]) == 71
    assert found["workflow_last_success_timestamp_seconds w69"] == NOW - 80, "what was read meanwhile is kept"
    n8n.workflows.pop()
    looks = 0
    while "workflow_info w69 Many true" in page.look(0.25):
        looks += 1
        assert page.problem is None, "the last list is shown while the next one is read"
        assert looks < 20
    assert looks > 0


def test_a_list_that_cannot_be_had_any_more_is_the_last_one_and_is_told(
    n8n: StandIn, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "WORKFLOWS_SECONDS", 0.0)
    assert page.look()["workflow_info cap Captions true"] == 1
    n8n.workflows = [{"no": "id"}]
    assert page.look()["workflow_info cap Captions true"] == 1
    assert page.problem is not None
    assert page.problem.startswith("the list of workflows is an old one: ")


def test_no_more_than_a_page_is_asked_for_where_little_happens(n8n: StandIn, page: Page) -> None:
    for _ in range(3 * PAGE):
        n8n.end(n8n.start("cap", NOW - 900), NOW - 890)
    page.look()
    n8n.asked.clear()
    page.look()
    assert len([path for path in n8n.asked if "status" not in path]) == 1
    assert not [path for path in n8n.asked if "workflows" in path]


def test_a_burst_over_several_pages_is_counted_whole_and_what_ended_long_ago_never(n8n: StandIn, page: Page) -> None:
    for _ in range(6 * PAGE):  # the first look reads four pages
        n8n.end(n8n.start("cap", NOW - 900), NOW - 890)
    page.look()
    for _ in range(3 * PAGE + 10):
        n8n.end(n8n.start("cap", NOW - 90), NOW - 80)
    assert page.look()["workflow_executions_total cap production"] == 3 * PAGE + 10
    for _ in range(9 * PAGE):
        n8n.end(n8n.start("cap", NOW - 70), NOW - 60)
    page.look()
    assert page.problem == "more executions ended than can be read at once; some are not counted"


def test_a_burst_of_which_a_page_fails_is_counted_whole_by_the_next_look(
    n8n: StandIn, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    n8n.end(n8n.start("cap", NOW - 900), NOW - 890)
    page.look()
    for _ in range(2 * PAGE):
        n8n.end(n8n.start("cap", NOW - 90), NOW - 80)
    answer = n8n._answer
    with monkeypatch.context() as patch:
        patch.setattr(n8n, "_answer", lambda path, key: (500, b"{}") if "cursor" in path else answer(path, key))
        with pytest.raises(Exception, match="answered 500"):
            page.look()
    assert page.look()["workflow_executions_total cap production"] == 2 * PAGE


@pytest.mark.parametrize("n8n", [True], indirect=True)
def test_one_that_ends_deep_in_the_list_is_followed_by_its_number(n8n: StandIn, page: Page) -> None:
    deep, deleted = n8n.start("cap", NOW - 5000), n8n.start("cap", NOW - 5000)
    for _ in range(5 * PAGE):
        n8n.end(n8n.start("cap", NOW - 900), NOW - 890)
    assert page.look()["workflow_running cap"] == 2
    n8n.end(deep, NOW - 10)
    del n8n.executions[deleted]
    found = page.look()
    assert (found["workflow_executions_total cap production"], found["workflow_running cap"]) == (1, 0)
    assert page.look() == found


def json_answer(status: int, body: bytes) -> Callable[[], tuple[int, bytes]]:
    return lambda: (status, body)


@pytest.mark.parametrize("n8n", [True], indirect=True)
@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (json_answer(200, b"<html>no API</html>"), "the answer is no JSON"),
        (json_answer(200, b"[1]"), "an answer of another kind"),
        (json_answer(200, b'{"data": [3]}'), "an answer of another kind"),
        (json_answer(302, b""), "answered 302; name the address that it sends to"),
        (json_answer(401, b"{}"), "answered 401; check the key"),
        (json_answer(500, b"{}"), "answered 500"),
    ],
)
def test_an_answer_that_is_none_fails_the_look_and_the_next_one_is_whole(
    n8n: StandIn, page: Page, raw: Any, message: str
) -> None:
    n8n.raw = raw
    with pytest.raises(Exception, match=message) as caught:
        page.look()
    assert KEY not in str(caught.value)
    n8n.raw = None
    assert page.look()["workflow_info cap Captions true"] == 1


@pytest.mark.parametrize("n8n", [True], indirect=True)
def test_a_wrong_or_odd_key_is_said_without_it(n8n: StandIn, page: Page, key_file: Path) -> None:
    for text, message in (
        ("wrong-key", "answered 401"),
        ("two\nlines", "must hold one line"),
        ("é", "no plain|not pl"),
    ):
        key_file.write_text(text)
        with pytest.raises(Exception, match=message) as caught:
            page.look()
        assert text not in str(caught.value)
    key_file.unlink()
    with pytest.raises(Exception, match=r"api_key_file: .* cannot be read"):
        page.look()
    key_file.write_text(KEY)
    assert page.look()


def test_a_server_that_is_gone_or_has_a_certificate_of_its_own_is_said(key_file: Path, tmp_path: Path) -> None:
    server = StandIn()
    port = server.url.rpartition(":")[2]
    server.close()
    with pytest.raises(Exception, match="refused"):
        Page({"api": server.url, "api_key_file": key_file}).look()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", tmp_path / "tls.key", "-out", tmp_path / "tls.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    server = StandIn()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.pem", tmp_path / "tls.key")
    server._server.socket = context.wrap_socket(server._server.socket, server_side=True)
    url = server.url.replace("http", "https")
    with pytest.raises(Exception, match=r"TLS failed .*self"):
        Page({"api": url, "api_key_file": key_file}).look()
    assert Page({"api": url, "api_key_file": key_file, "ca_file": tmp_path / "tls.pem"}).look() == {}
    server.close()
    assert port


def test_a_server_that_drips_keeps_no_one(key_file: Path) -> None:
    server = StandIn()
    server.raw = lambda: (time.sleep(0.6), (200, b"{}"))[1]
    began = time.monotonic()
    with pytest.raises(Exception, match="no answer in time"):
        Page({"api": server.url, "api_key_file": key_file}).look(seconds=0.2)
    assert time.monotonic() - began < 0.6
    server.close()


@pytest.mark.parametrize("answer", [b"H" * 40, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"])
def test_a_server_that_sends_a_byte_now_and_then_keeps_no_one(key_file: Path, answer: bytes) -> None:
    over = threading.Event()

    def drip(server: socket.socket) -> None:
        line, _ = server.accept()
        with line, contextlib.suppress(OSError):
            line.recv(65_536)
            line.sendall(answer)
            while not over.wait(0.05):
                line.sendall(b" ")

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=drip, args=(server,), daemon=True).start()
        try:
            with pytest.raises(Exception, match="no answer in time"):
                Page({"api": f"http://127.0.0.1:{server.getsockname()[1]}", "api_key_file": key_file}).look(seconds=0.2)
        finally:
            over.set()
