"""The real `tidewise-exporter` process: its arguments, its pages, its end."""

import base64
import http.client
import json
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import bcrypt
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as parse_text

from exporters import own
from exporters.__main__ import main
from exporters.config import exporters_model
from exporters.registry import EXPORTERS, exporter
from exporters.runtime.config import validate
from exporters.runtime.process import version
from tests.exporters.authority import Authority

COMMAND = (sys.executable, "-m", "exporters")


class Process:
    """A running exporter. `address`: where it serves, as its log says."""

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.popen = subprocess.Popen([*COMMAND, *arguments], cwd=folder, stderr=subprocess.PIPE, text=True)
        assert self.popen.stderr is not None
        self.started = json.loads(self.popen.stderr.readline())
        self.address = self.started["listen"][0]

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=20) as response:
            return str(response.read().decode())


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Process]]:
    """Starts exporters in an empty folder; those still running at the end are killed."""
    running: list[Process] = []

    def run(*arguments: str) -> Process:
        running.append(Process(arguments, tmp_path))
        return running[-1]

    yield run
    for process in running:
        process.popen.kill()
        process.popen.communicate()


def refusal(folder: Path, *arguments: str) -> str:
    """What an exporter that does not start writes to stderr; it must exit with 2 and without a traceback."""
    done = subprocess.run([*COMMAND, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_host_needs_no_configuration_and_ends_at_a_signal(start: Callable[..., Process]) -> None:
    process = start("host", "--web.listen-address", "127.0.0.1:0", "--web.listen-address", "127.0.0.1:0")
    assert len(process.started["listen"]) == 2
    text = process.get("/metrics")
    assert 'tidewise_exporter_collector_success{collector="host.cpu"} 1.0' in text
    assert f'tidewise_build_info{{process="tidewise-exporter",python="{sys.version.split()[0]}"' in text
    assert process.get("/-/ready") == "ready\n"
    assert "<p>Exporters: host.</p>" in process.get("/")

    asked = time.monotonic()
    process.popen.send_signal(signal.SIGTERM)
    _, rest = process.popen.communicate(timeout=20)
    assert process.popen.returncode == 0
    assert time.monotonic() - asked < 4
    assert [json.loads(line)["event"] for line in rest.splitlines()] == ["stopped"]


def test_control_c_ends_it_without_a_traceback(start: Callable[..., Process]) -> None:
    process = start("host", "--web.listen-address", "127.0.0.1:0")
    process.popen.send_signal(signal.SIGINT)
    _, rest = process.popen.communicate(timeout=20)
    assert process.popen.returncode == 0
    assert "Traceback" not in rest


@pytest.mark.real
def test_host_and_queue_in_one_process_from_the_default_file(
    start: Callable[..., Process], redis_url: str, tmp_path: Path
) -> None:
    queue = f"{{redis: [{{url: '{redis_url}', queues: [{{name: jobs}}]}}]}}"
    (tmp_path / "tidewise.yaml").write_text(f"exporters: {{listen: ['127.0.0.1:0'], queue: {queue}}}\n")
    text = start("host", "queue", "--web.telemetry-path", "/m", "--log.format", "json").get("/m")
    assert 'queue_messages{queue="jobs",state="ready",system="redis"} 0.0' in text
    assert "host_load1 " in text


def test_a_scrape_s_short_timeout_is_kept(start: Callable[..., Process], tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)  # accepts and never answers
        server = f"127.0.0.1:{deaf.getsockname()[1]}"
        (tmp_path / "tidewise.yaml").write_text(
            f"exporters: {{queue: {{redis: [{{url: 'redis://{server}', queues: [{{name: jobs}}]}}]}}}}\n"
        )
        process = start("host", "queue", "--web.listen-address", "127.0.0.1:0")
        request = urllib.request.Request(
            f"http://{process.address}/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "1"}
        )
        asked = time.monotonic()
        with urllib.request.urlopen(request, timeout=20) as response:
            text = response.read().decode()
        assert time.monotonic() - asked < 1
    assert "\nhost_load1 " in text
    assert "\nqueue_" not in text
    assert f'tidewise_exporter_collector_success{{collector="queue.redis.{server}/0"}} 0.0\n' in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("", f"name what to export, any of: {', '.join(EXPORTERS)}"),
        ("hots", "argument NAME: unknown exporter 'hots'; did you mean 'host'?"),
        ("printer", f"argument NAME: unknown exporter 'printer'; known here: {', '.join(sorted(EXPORTERS))}"),
        (
            "host --web.telemetry-path m",
            "argument --web.telemetry-path: found 'm'; a path begins with a slash, for example /metrics",
        ),
        (
            "host --web.telemetry-path /metrics?x",
            "argument --web.telemetry-path: found '/metrics?x'; take a path without ?, # and %, and not below /-/",
        ),
        (
            "host --web.max-requests -1",
            "argument --web.max-requests: found '-1'; it must be a whole number, 0 for no limit",
        ),
        ("--demo --config x.yaml", "--demo reads no configuration; leave --config out, or --demo"),
    ],
)
def test_a_wrong_argument_is_a_sentence(capsys: pytest.CaptureFixture[str], arguments: str, sentence: str) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments.split())
    assert refused.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"tidewise-exporter: error: {sentence}"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("host --config none.yaml", "none.yaml: no such file; create it, or name another with --config"),
        (
            "host --web.listen-address 9811",
            "'9811' is not an address; write HOST:PORT, for example 127.0.0.1:9811 or [::1]:9811",
        ),
    ],
)
def test_a_start_that_cannot_be_is_a_sentence(tmp_path: Path, arguments: str, sentence: str) -> None:
    assert refusal(tmp_path, *arguments.split()) == f"tidewise-exporter: {sentence}\n"


def test_every_mistake_of_the_file_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        "exporters:\n  lissen: ['127.0.0.1:0']\n  queue: {redis: [{url: 'redis://h', queues: [{nam: jobs}]}]}\n"
    )
    assert refusal(tmp_path, "queue", "--config", "bad.yaml").splitlines() == [
        "tidewise-exporter: bad.yaml: exporters.queue.redis.0.queues.0.name: is missing; add it",
        "tidewise-exporter: bad.yaml: exporters.queue.redis.0.queues.0.nam: unknown key; did you mean 'name'?",
        "tidewise-exporter: bad.yaml: exporters.lissen: unknown key; did you mean 'listen'?",
    ]


def test_every_mistake_of_the_web_configuration_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("tls_server_config: {cert_fil: a}\nbasic_auth_users: {alice: wonderland}\n")
    assert refusal(tmp_path, "host", "--web.config.file", "web.yml").splitlines() == [
        "tidewise-exporter: web.yml: tls_server_config.cert_file: is missing; add it",
        "tidewise-exporter: web.yml: tls_server_config.key_file: is missing; add it",
        "tidewise-exporter: web.yml: tls_server_config.cert_fil: unknown key; did you mean 'cert_file'?",
        (
            "tidewise-exporter: web.yml: basic_auth_users.alice: what stands here is no bcrypt hash; "
            "docs/exporters/web.md shows how to make one"
        ),
    ]


def hashed(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


def test_a_day_behind_tls_a_password_and_client_certificates(start: Callable[..., Process], tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    prometheus = authority.issue("prometheus")
    stranger = Authority(tmp_path, "elsewhere").issue("stranger")
    authority.issue("tls")
    web = tmp_path / "web.yml"

    def write(user: str, password: str) -> None:
        web.write_text(
            "tls_server_config: {cert_file: tls.crt, key_file: tls.key, client_ca_file: ca.crt, "
            "client_auth_type: RequireAndVerifyClientCert}\n"
            f"basic_auth_users: {{{user}: '{hashed(password)}'}}\n"
        )

    write("scraper", "first")
    process = start("host", "--web.config.file", "web.yml", "--web.listen-address", "127.0.0.1:0")
    port = int(process.address.rpartition(":")[2])

    def connect(certificate: tuple[Path, Path] | None = prometheus) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("localhost", port, timeout=20, context=authority.trust(certificate))

    def ask(
        connection: http.client.HTTPSConnection, user: str, password: str, path: str = "/metrics"
    ) -> tuple[int, str]:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        connection.request("GET", path, headers={"Authorization": f"Basic {token}"} if user else {})
        response = connection.getresponse()
        if response.status == 401:
            assert response.headers["WWW-Authenticate"].startswith("Basic ")
        return response.status, response.read().decode()

    def serial(connection: http.client.HTTPSConnection) -> str:
        return str(connection.sock.getpeercert()["serialNumber"])

    scraper = connect()
    assert ask(scraper, "scraper", "first")[0] == 200
    one_connection = scraper.sock
    for _ in range(99):
        status, page = ask(scraper, "scraper", "first")
        assert status == 200
    assert scraper.sock is one_connection
    assert "\nhost_load1 " in page

    for user, password, path in (("", "", "/-/healthy"), ("scraper", "guess", "/metrics"), ("nobody", "first", "/")):
        assert ask(connect(), user, password, path)[0] == 401
    for certificate in (None, stranger):
        with pytest.raises((OSError, http.client.HTTPException)):
            ask(connect(certificate), "scraper", "first")

    before = serial(scraper)
    authority.issue("tls")
    rotated = connect()
    assert ask(rotated, "scraper", "first")[0] == 200
    assert serial(rotated) != before
    assert ask(scraper, "scraper", "first")[0] == 200, "the old connection goes on"

    write("newcomer", "second")
    assert ask(scraper, "scraper", "first")[0] == 401
    assert ask(scraper, "newcomer", "second")[0] == 200

    web.write_text("basic_auth_users: {")  # somebody is at work on it
    status, page = ask(scraper, "newcomer", "second")
    assert status == 200
    assert "\ntidewise_web_config_reload_success 0.0\n" in page
    assert '\ntidewise_web_refused_total{reason="credentials"} 4.0\n' in page
    assert '\ntidewise_web_refused_total{reason="handshake"} 2.0\n' in page

    process.popen.send_signal(signal.SIGTERM)
    _, log = process.popen.communicate(timeout=20)
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events == ["web_config_loaded"] * (len(events) - 2) + ["web_config_refused", "stopped"]


def test_one_scrape_more_than_may_run_is_refused_at_once(start: Callable[..., Process], tmp_path: Path) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)  # accepts and never answers
        server = f"127.0.0.1:{deaf.getsockname()[1]}"
        (tmp_path / "tidewise.yaml").write_text(
            f"exporters: {{queue: {{redis: [{{url: 'redis://{server}', queues: [{{name: jobs}}]}}]}}}}\n"
        )
        process = start("queue", "--web.max-requests", "1", "--web.listen-address", "127.0.0.1:0")
        first, second = (http.client.HTTPConnection(process.address, timeout=20) for _ in range(2))
        first.request("GET", "/metrics", headers={"X-Prometheus-Scrape-Timeout-Seconds": "1.5"})
        deaf.settimeout(20)
        held, _ = deaf.accept()  # the first scrape is with the server now
        second.request("GET", "/metrics")
        refused = second.getresponse()
        assert (refused.status, refused.read()) == (
            503,
            b"too many scrapes are running, the limit is 1; ask again later\n",
        )
        assert first.getresponse().status == 200
        held.close()


def test_a_demo_needs_nothing_shows_everything_and_says_what_it_is(start: Callable[..., Process]) -> None:
    process = start("--demo", "--web.listen-address", "127.0.0.1:0")
    assert process.started["collectors"] == [f"demo.{name}" for name in EXPORTERS]
    assert process.popen.stderr is not None
    assert json.loads(process.popen.stderr.readline())["event"] == "demo"
    text = process.get("/metrics")
    assert "\ntidewise_exporter_demo 1.0\n" in text
    for name in EXPORTERS:
        assert f'tidewise_exporter_collector_success{{collector="demo.{name}"}} 1.0\n' in text
        for family in exporter(name).FAMILIES:
            assert f"# HELP {family.series} " in text
    assert "<strong>Demo: every value of these exporters is made up.</strong>" in process.get("/")


def test_a_demo_of_some_shows_those(start: Callable[..., Process]) -> None:
    process = start("--demo", "queue", "--web.listen-address", "127.0.0.1:0")
    assert process.started["collectors"] == ["demo.queue"]


def test_what_an_exporter_says_of_itself_is_what_is_declared(start: Callable[..., Process], tmp_path: Path) -> None:
    (tmp_path / "web.yml").write_text("http_server_config: {headers: {X-Frame-Options: deny}}\n")
    process = start("--demo", "host", "--web.config.file", "web.yml", "--web.listen-address", "127.0.0.1:0")
    of_host = {family.name for family in exporter("host").FAMILIES}
    found = {family.name: family for family in parse_text(process.get("/metrics")) if family.name not in of_host}
    declared = {family.name: family for family in own.FAMILIES}
    assert set(found) == set(declared)
    for name, family in declared.items():
        assert (found[name].type, found[name].documentation) == (family.kind, family.meaning)
        for sample in found[name].samples:
            assert set(sample.labels) == set(family.labels)


def test_a_port_in_use_is_a_sentence(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        assert refusal(tmp_path, "host", "--web.listen-address", address) == (
            f"tidewise-exporter: {address}: the address is in use; "
            "stop the process that has it or listen on another port\n"
        )


def test_help_teaches_and_version_tells() -> None:
    helped = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "tidewise-exporter host queue --config tidewise.yaml" in helped
    assert [name for name in EXPORTERS if f"\n  {name:<10}" in helped] == list(EXPORTERS), "each in a line"
    first_file = textwrap.dedent(helped[helped.index("  exporters:\n") :])
    assert validate(exporters_model(list(EXPORTERS)), yaml.safe_load(first_file)["exporters"], Path("first.yaml"))
    told = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
    assert told == f"tidewise-exporter {version()}\n"
