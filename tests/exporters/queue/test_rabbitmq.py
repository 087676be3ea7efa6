"""RabbitMQ's queues: what its counts come to, and the page of a real server with real producers and consumers."""

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pika
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from exporters.collector import CollectFunction, PartialReadError
from exporters.queue import rabbitmq
from exporters.queue.rabbitmq import ReadError, Server, collectors, queue_states
from exporters.queue.state import QueueState
from testbed.parts import HOST, free_port
from testbed.rabbitmq import RabbitMQ

NOW = 1_800_000_000.0
URL = "http://127.0.0.1:15672"

MISTAKES = [
    pytest.param([{"url": URL}], "found no queue; name some", id="nothing asked for"),
    pytest.param([{"url": "amqp://h", "match": "a"}], "not the address of a management API", id="the address for AMQP"),
    pytest.param([{"url": "http://u:secret@h", "match": "a"}], "found a user in the address", id="a user in it"),
    pytest.param([{"url": URL, "match": "("}], "not a regular expression (missing )", id="a broken pattern"),
    pytest.param(
        [{"url": URL, "queues": [{"name": "a", "dead_letters": "d"}, {"name": "b", "dead_letters": "d"}]}],
        "the queue 'd' stands twice, so its messages would count twice",
        id="one queue of dead letters for two",
    ),
    pytest.param(
        [{"url": URL, "queues": [{"name": name}]} for name in "ab"], "stands twice; write its", id="a vhost twice"
    ),
    pytest.param(
        [{"url": URL, "vhost": vhost, "queues": [{"name": "a"}]} for vhost in "xy"],
        "the queue 'a' is in 0 and 1; give one of them a label_prefix",
        id="one name in two vhosts",
    ),
    pytest.param(
        [{"url": URL, "vhost": vhost, "match": vhost} for vhost in "xy"],
        "give each a label_prefix of its own",
        id="names that are found later and might be the same",
    ),
]


@pytest.mark.parametrize(("servers", "sentence"), MISTAKES)
def test_a_mistake_in_the_configuration_is_a_sentence(servers: list[dict[str, Any]], sentence: str) -> None:
    with pytest.raises(ValidationError) as refused:
        TypeAdapter(rabbitmq.Servers).validate_python(servers)
    said = "; ".join(detail["msg"] for detail in refused.value.errors(include_input=False))
    assert sentence in said
    assert "secret" not in said


STATS = {"publish": 9, "ack": 4, "deliver": 6, "deliver_no_ack": 2, "get": 1, "get_no_ack": 1, "redeliver": 3}
RUNNING = {"state": "running", "messages_ready": 3, "messages_unacknowledged": 2, "consumers": 1}
IDLE = {"state": "running", "messages_ready": 0, "messages_unacknowledged": 0, "consumers": 0}
BOTH = {"enqueued": 9.0, "completed": 7.0}
READ = [
    pytest.param(
        {**RUNNING, "message_stats": STATS, "head_message_timestamp": int(NOW) - 40},
        QueueState({"ready": 3, "active": 2}, {"ready": 40.0}, 1, BOTH),
        id="done is what was acknowledged or needed no acknowledgement; a redelivery is no arrival",
    ),
    pytest.param(
        {**RUNNING, "head_message_timestamp": None},
        QueueState({"ready": 3, "active": 2}, {}, 1, {"enqueued": 0, "completed": 0}),
        id="without a timestamp there is no age; before the first message all counters are 0",
    ),
    pytest.param(
        {**IDLE, "message_stats": {"publish": 9}, "head_message_timestamp": None},
        QueueState({"ready": 0, "active": 0}, {"ready": 0.0}, 0, {"enqueued": 9, "completed": 0}),
        id="nobody waits in an empty queue",
    ),
    pytest.param(
        {**RUNNING, "head_message_timestamp": int(NOW) + 61},
        QueueState({"ready": 3, "active": 2}, {}, 1, {"enqueued": 0, "completed": 0}),
        id="a time in the future is no age",
    ),
    pytest.param(
        None, QueueState({"ready": 0, "active": 0}, {"ready": 0.0}, 0), id="a queue that is not there holds 0"
    ),
    pytest.param({"state": "running"}, None, id="a queue that was just declared has no numbers yet"),
    pytest.param({**RUNNING, "state": "down"}, "it is down; see to the node that holds it", id="a node is away"),
    pytest.param(
        {**RUNNING, "messages_ready": "3"},
        "its messages_ready is '3', which is no count; is this RabbitMQ's management API?",
        id="text for a number",
    ),
    pytest.param(
        {**RUNNING, "message_stats": {"ack": -1}},
        "its ack is '-1', which is no count; is this RabbitMQ's management API?",
        id="a negative count",
    ),
]


@pytest.mark.parametrize(("item", "outcome"), READ)
def test_a_queue_is_read(item: dict[str, Any] | None, outcome: QueueState | str | None) -> None:
    server = Server(url=URL, queues=[rabbitmq.Queue(name="jobs")])
    states, problems = queue_states(server, {} if item is None else {"jobs": item}, True, NOW)
    if isinstance(outcome, str):
        assert (states, problems) == ({}, [f"queue 'jobs': {outcome}"])
    else:
        assert (states, problems) == ({} if outcome is None else {"jobs": outcome}, [])


def test_dead_letters_are_the_failed_ones_of_their_queue_and_no_queue_of_their_own() -> None:
    queue = rabbitmq.Queue(name="jobs", dead_letters="dead", fed_by_dead_letters=True)
    server = Server(url=URL, queues=[queue], match=".*", label_prefix="eu/")
    states, problems = queue_states(server, {"jobs": RUNNING, "dead": RUNNING, "more": IDLE}, True, NOW)
    assert problems == []
    assert list(states) == ["eu/jobs", "eu/more"]
    assert states["eu/jobs"].messages == {"ready": 3, "active": 2, "failed": 5}
    assert states["eu/jobs"].counters == {"completed": 0}  # what comes by dead-lettering is counted nowhere
    assert queue_states(server, {"jobs": RUNNING}, True, NOW)[0]["eu/jobs"].messages["failed"] == 0


def test_a_server_that_keeps_no_statistics_is_no_server_without_messages() -> None:
    server = Server(url=URL, queues=[rabbitmq.Queue(name="jobs")])
    assert queue_states(server, {"jobs": {"state": "running"}}, False, NOW) == (
        {},
        ["queue 'jobs': the server gives no numbers (management.disable_stats); let it give them, or its totals"],
    )
    assert queue_states(server, {"jobs": RUNNING}, False, NOW)[0]["jobs"].counters == {}


def test_more_queues_than_wanted_are_said_and_not_shown() -> None:
    server = Server(url=URL, match="q.*", most=2)
    states, problems = queue_states(server, {f"q{number}": IDLE for number in range(3)}, True, NOW)
    assert (list(states), problems) == (["q0", "q1"], ["more than 2 queues match; narrow match, or raise most"])


def test_two_names_that_are_cut_to_the_same_are_told() -> None:
    names = ["x" * 250 + end for end in "ab"]
    states, problems = queue_states(Server(url=URL, match=".*"), dict.fromkeys(names, IDLE), True, NOW)
    assert [len(name) for name in states] == [200]
    assert len(problems) == 1


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
_ITEM = st.dictionaries(
    st.sampled_from(["state", "messages_ready", "messages_unacknowledged", "consumers", "head_message_timestamp"]),
    _JSON,
) | st.fixed_dictionaries({"messages_ready": st.integers(0, 9), "messages_unacknowledged": st.integers(0, 9)}).flatmap(
    lambda item: st.dictionaries(st.sampled_from(["publish", "ack"]), _JSON).map(lambda x: {**item, "message_stats": x})
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(st.text(max_size=8), _ITEM, max_size=4))
def test_whatever_stands_in_the_answer_is_a_state_or_a_problem(found: dict[str, Any]) -> None:
    states, _ = queue_states(Server(url=URL, match=".*", queues=[{"name": "a"}]), found, True, NOW)
    for state in states.values():
        assert all(count >= 0 for count in (*state.messages.values(), *state.counters.values()))
        assert all(age >= 0 for age in state.oldest_age.values())


# --- an API that behaves badly


class Answering(BaseHTTPRequestHandler):
    """Answers everything with what the server was told."""

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Authorization"]))  # type: ignore[attr-defined]
        status, body = self.server.answer(self.path)  # type: ignore[attr-defined]
        self.send_response(status)
        self.end_headers()
        self.wfile.writelines(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def answering() -> Iterator[HTTPServer]:
    """A server on loopback; set `answer` to a function from a path to (status, parts of the body)."""
    with HTTPServer((HOST, 0), Answering) as server:
        server.asked = []  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def drip() -> Iterator[bytes]:
    for _ in range(100):
        yield b" "
        time.sleep(0.05)


BAD = [
    pytest.param(401, [b"{}"], r"refused the user 'watcher'; check password_file", id="a wrong password"),
    pytest.param(404, [b"{}"], r"there is no virtual host '/'", id="no such virtual host"),
    pytest.param(503, [b"{}"], r"answered with the status 503", id="an overloaded server"),
    pytest.param(200, [b"<html>"], r"the answer is not the JSON that was asked for", id="a page for people"),
    pytest.param(200, [b"[" * 40_000], r"the answer is not the JSON that was asked for", id="JSON too deep to read"),
    pytest.param(200, [b"1"], r"the answer is not the JSON that was asked for", id="JSON of something else"),
    pytest.param(200, [b'{"items": 3}'], r"the answer is no list of queues", id="an object of something else"),
    pytest.param(200, (b"x" * 1000 for _ in range(100)), r"its answer is larger than 50000 bytes", id="a huge answer"),
    pytest.param(200, drip(), r"no answer in time", id="an answer that never ends"),
]


@pytest.mark.parametrize(("status", "body", "sentence"), BAD)
def test_a_bad_answer_is_a_failed_read_with_a_sentence(
    answering: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, body: Any, sentence: str
) -> None:
    monkeypatch.setattr(rabbitmq, "LARGEST_ANSWER", 50_000)
    answering.answer = lambda path: (status, body)  # type: ignore[attr-defined]
    (tmp_path / "password").write_text("geheim-ü\n")
    server = Server(
        url=f"http://{HOST}:{answering.server_port}", user="watcher", password_file=tmp_path / "password", match="x"
    )
    began = time.monotonic()
    with pytest.raises(ReadError, match=sentence) as failed:
        list(collectors([server])[server.address](began + 0.5))
    assert "geheim" not in str(failed.value)
    assert time.monotonic() - began < 3  # the deadline was half a second


@pytest.mark.parametrize("part", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["header", "body"])
def test_a_server_that_sends_a_byte_now_and_then_is_cut_off_at_the_deadline(part: bytes) -> None:
    with socket.create_server((HOST, 0)) as listening:

        def trickle() -> None:
            with listening.accept()[0] as line, contextlib.suppress(OSError):
                line.sendall(part)
                while True:
                    line.sendall(b"x")
                    time.sleep(0.02)

        threading.Thread(target=trickle, daemon=True).start()
        server = Server(url=f"http://{HOST}:{listening.getsockname()[1]}", match="x")
        began = time.monotonic()
        with pytest.raises(ReadError, match="no answer in time"):
            list(collectors([server])[server.address](began + 0.4))
        assert time.monotonic() - began < 2


def test_a_connection_is_kept_between_scrapes() -> None:
    ports = []

    class Keeping(Answering):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            ports.append(self.client_address[1])
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

    with ThreadingHTTPServer((HOST, 0), Keeping) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        api = rabbitmq.Api(Server(url=f"http://{HOST}:{server.server_port}", match="x"))
        for _ in range(3):
            assert api.get("/overview", {}, time.monotonic() + 5) == {}
        server.shutdown()
    assert len(ports) == 3
    assert len(set(ports)) == 1


def test_a_dead_server_and_a_missing_password_file_are_told(tmp_path: Path) -> None:
    server = Server(url=f"http://{HOST}:{free_port()}", match="x")
    with pytest.raises(ReadError, match=r"cannot be reached \(.*[Rr]efused"):
        list(collectors([server])[server.address](time.monotonic() + 1))
    server = Server(url=server.url, match="x", password_file=tmp_path / "none")
    with pytest.raises(ReadError, match=r"the password_file .*none cannot be read \(No such file or directory\)"):
        list(collectors([server])[server.address](time.monotonic() + 1))


def test_a_certificate_is_checked_against_the_ca_file(answering: HTTPServer, tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program openssl is not here")
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, *names, *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    answering.socket = context.wrap_socket(answering.socket, server_side=True)
    answering.answer = lambda path: (200, [json.dumps([{"name": "q", **IDLE}]).encode()])  # type: ignore[attr-defined]
    url = f"https://{HOST}:{answering.server_port}"
    with pytest.raises(ReadError, match=r"TLS failed .*check its certificate and ca_file"):
        list(collectors([Server(url=url, match="q")])[f"{HOST}:{answering.server_port}/"](time.monotonic() + 2))
    trusting = Server(url=url, match="q", ca_file=tmp_path / "cert.pem")
    assert list(collectors([trusting])[trusting.address](time.monotonic() + 2))


# --- a real server


Page = Callable[[Mapping[str, CollectFunction]], str]


@pytest.fixture
def shown(page: Page, rabbitmq: RabbitMQ, rabbitmq_vhost: str) -> Callable[..., Callable[[list[str]], None]]:
    """`shown(queues=…)(lines)`: waits until the page of the vhost says these lines; what is missing fails the test."""

    def watch(**options: Any) -> Callable[[list[str]], None]:
        functions = collectors([Server(url=rabbitmq.management_url, vhost=rabbitmq_vhost, **options)])

        def lines_are(wanted: list[str]) -> None:
            deadline = time.monotonic() + 15
            while missing := sorted(set(wanted) - set(page(functions).splitlines())):
                assert time.monotonic() < deadline, (missing, page(functions))
                time.sleep(0.05)

        return lines_are

    return watch


def line(family: str, value: float, queue: str = "jobs", state: str = "") -> str:
    more = f',state="{state}"' if state else ""
    return f'queue_{family}{{queue="{queue}"{more},system="rabbitmq"}} {float(value)}'


@pytest.mark.real
def test_messages_go_from_ready_to_active_to_done(rabbitmq: RabbitMQ, rabbitmq_vhost: str, shown: Any) -> None:
    page_says = shown(queues=[{"name": "jobs", "dead_letters": "dead"}])
    page_says([line("messages", 0, state=state) for state in ("ready", "active", "failed")])  # not declared yet

    with pika.BlockingConnection(pika.URLParameters(rabbitmq.vhost_url(rabbitmq_vhost))) as connection:
        channel = connection.channel()
        channel.queue_declare("dead")
        to_dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        channel.queue_declare("jobs", arguments=to_dead)
        for _ in range(6):
            channel.basic_publish("", "jobs", b"job", pika.BasicProperties(timestamp=int(time.time()) - 1000))
        taken: list[int] = []
        channel.basic_qos(prefetch_count=2)
        for _ in range(2):  # two consumers, each with two of them
            channel.basic_consume("jobs", lambda channel, method, *_: taken.append(method.delivery_tag))
        while len(taken) < 4:
            connection.process_data_events(0.05)
        page_says([
            line("messages", 2, state="ready"), line("messages", 4, state="active"),
            line("messages", 0, state="failed"), line("consumers", 2), line("enqueued_total", 6),
            line("completed_total", 0),
        ])  # fmt: skip

        channel.basic_ack(taken.pop(0))
        channel.basic_nack(taken.pop(0), requeue=False)  # to the dead letters
        channel.basic_nack(taken.pop(0), requeue=True)  # comes again: no arrival
        while len(taken) < 4:
            connection.process_data_events(0.05)
        page_says([
            line("messages", 0, state="ready"), line("messages", 4, state="active"),
            line("messages", 1, state="failed"), line("enqueued_total", 6), line("completed_total", 1),
        ])  # fmt: skip

        channel.queue_delete("jobs")
        page_says([line("messages", 0, state="active"), line("consumers", 0), line("messages", 1, state="failed")])


@pytest.mark.real
def test_a_user_who_may_only_watch_finds_the_queues_of_a_kind(
    rabbitmq: RabbitMQ, rabbitmq_vhost: str, shown: Any, tmp_path: Path
) -> None:
    (tmp_path / "password").write_text("päss word\n")
    rabbitmq.api("PUT", "/users/watcher", {"password": "päss word", "tags": "monitoring"})
    nothing = {"configure": "^$", "write": "^$", "read": "^$"}
    rabbitmq.api("PUT", f"/permissions/{rabbitmq_vhost}/watcher", nothing)
    page_says = shown(match="jobs.*", label_prefix="eu/", user="watcher", password_file=tmp_path / "password")

    with pika.BlockingConnection(pika.URLParameters(rabbitmq.vhost_url(rabbitmq_vhost))) as connection:
        channel = connection.channel()
        names = ["jobs", "jobs.1", 'jobs."2"', "jobs.\\n", "jöbs", "not-jobs"]
        for name in names:
            channel.queue_declare(name)
        for _ in range(3):
            channel.basic_publish("", "jobs", b"job", pika.BasicProperties(timestamp=int(time.time())))
        channel.basic_get("jobs", auto_ack=True)
        page_says([
            line("messages", 2, "eu/jobs", "ready"), line("enqueued_total", 3, "eu/jobs"),
            line("completed_total", 1, "eu/jobs"), *(line("messages", 0, f"eu/{name}", "ready") for name in
            ("jobs.1", 'jobs.\\"2\\"', "jobs.\\\\n")),
        ])  # fmt: skip


@pytest.mark.real
def test_many_named_queues_come_with_one_list(
    rabbitmq_vhost: str, rabbitmq: RabbitMQ, page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    rabbitmq.api("PUT", f"/queues/{rabbitmq_vhost}/here", {})
    server = Server(url=rabbitmq.management_url, vhost=rabbitmq_vhost, queues=[{"name": "here"}, {"name": "gone"}])
    few = page(collectors([server]))
    monkeypatch.setattr("exporters.queue.rabbitmq.FEW", 1)
    many = page(collectors([server]))
    assert line("messages", 0, "gone", "ready") in few.splitlines()
    assert line("messages", 0, "gone", "ready") in many.splitlines()


@pytest.mark.real
def test_a_refused_password_and_a_missing_vhost_are_told(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("wrong")
    for options, sentence in (
        ({"match": "x", "password_file": tmp_path / "password"}, "refused the user 'guest'"),
        ({"match": "x", "vhost": "nowhere"}, "there is no virtual host 'nowhere'"),
        ({"queues": [{"name": "jobs"}], "vhost": "nowhere"}, "there is no virtual host 'nowhere'"),
    ):
        server = Server(url=rabbitmq.management_url, **options)
        with pytest.raises(ReadError, match=sentence):
            list(collectors([server])[server.address](time.monotonic() + 5))


def test_what_could_be_read_is_there_beside_what_could_not(answering: HTTPServer, page: Page) -> None:
    items = [{"name": "a", **RUNNING}, {"name": "b", **RUNNING, "state": "crashed"}]
    answering.answer = lambda path: (200, [json.dumps(items).encode()])  # type: ignore[attr-defined]
    server = Server(url=f"http://{HOST}:{answering.server_port}", match="a|b")
    assert 'queue_messages{queue="a",state="ready",system="rabbitmq"} 3.0' in page(collectors([server]))
    with pytest.raises(PartialReadError, match=r"^queue 'b': it is crashed; see to the node that holds it$"):
        list(collectors([server])[server.address](time.monotonic() + 2))
