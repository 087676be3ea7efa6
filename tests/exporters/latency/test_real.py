"""A real nginx and a real HAProxy that write logs of real requests, and an exporter that is killed meanwhile."""

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporters.latency.counts import BOUNDS
from exporters.latency.formats import COMBINED_TIMED
from exporters.latency.logs import Log, LogReader
from testbed.parts import free_port
from testbed.services import HAProxy, Nginx

pytestmark = pytest.mark.real
ROOT = Path(__file__).resolve().parents[3]
HTTP = """
  log_format timed '{combined}';
  log_format lines escape=json '{{"status":$status,"took":"$request_time","request":{{"uri":"$request_uri"}}}}';
  access_log access.log timed;
  access_log lines.log lines;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 "ok"; }}
    location /broken {{ return 500; }}
    location /gone {{ return 444; }}
  }}
"""
HAPROXY = """
global
  log stdout format raw local0
defaults
  mode http
  log global
  option httplog
  retries 0
  timeout connect 1s
  timeout client 5s
  timeout server 1s
frontend fe
  bind 127.0.0.1:{port}
  http-request use-service prometheus-exporter if {{ path /metrics }}
  use_backend dead if {{ path /dead }}
  default_backend shop
backend shop
  server s1 127.0.0.1:{behind}
backend dead
  server d1 127.0.0.1:1
"""


@pytest.fixture(scope="module")
def nginx(services_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    port = free_port()
    text = HTTP.format(combined=COMBINED_TIMED, port=port)
    with Nginx(tmp_path_factory.mktemp("nginx"), text, port=port, root=services_root) as server:
        yield server


class Client:
    """Asks on one connection. `asked`: how often."""

    def __init__(self, port: int) -> None:
        self.asked = 0
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)

    def get(self, path: str) -> int:
        self.asked += 1
        try:
            self._connection.request("GET", path)
            answer = self._connection.getresponse()
            answer.read()
            return answer.status
        except http.client.RemoteDisconnected:
            self._connection.close()
            return 0


def counts(log: LogReader) -> tuple[dict[str, float], Counter[tuple[str, str, str]]]:
    """What a log's collector shows, by name, and of the histogram the counts by service, route and class."""
    plain: dict[str, float] = {}
    seen: Counter[tuple[str, str, str]] = Counter()
    for metric in log.collect(time.monotonic() + 5):
        for sample in metric.samples:
            if sample.name == "request_duration_seconds_count" and sample.value:
                seen[sample.labels["service"], sample.labels["route"], sample.labels["code_class"]] = int(sample.value)
            elif not sample.name.startswith("request_duration"):
                plain[sample.labels.get("reason", sample.name)] = sample.value
    return plain, seen


def until(true: Callable[[], bool]) -> None:
    """Logs are written a moment after the answer."""
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nginx_writes_and_rotates_while_it_is_asked(nginx: Nginx) -> None:
    timed = LogReader(Log(path=nginx.folder / "access.log", service="shop"), None, BOUNDS)
    fields = {"duration": "took", "uri": "request.uri"}
    lines = LogReader(
        Log.model_validate({"path": nginx.folder / "lines.log", "service": "j", "format": "json", "fields": fields}),
        None,
        BOUNDS,
    )
    counts(timed), counts(lines)
    client = Client(nginx.port)
    for number in range(3):
        for path in ("/", f"/videos/{number}?size=2", "/broken", "/gone"):
            client.get(path)
        for name in ("access.log", "lines.log"):
            (nginx.folder / name).rename(nginx.folder / f"{name}.{3 - number}")
        client.get("/before/reopening")
        nginx.reopen()
        until(lambda: (nginx.folder / "access.log").exists() and (nginx.folder / "lines.log").exists())
        client.get("/after")
    expected = {("/", "2xx"): 3, ("/videos/:id", "2xx"): 3, ("/broken", "5xx"): 3, ("other", "none"): 3,
                ("/before/reopening", "2xx"): 3, ("/after", "2xx"): 3}  # fmt: skip
    for log in (timed, lines):
        until(lambda log=log: counts(log)[0]["request_log_lines_total"] == client.asked)
        plain, seen = counts(log)
        assert {key[1:]: count for key, count in seen.items()} == expected
        assert (plain["request_log_malformed_total"], plain["request_log_gaps_total"]) == (0, 0)
        assert plain["server_error"] == 3


def test_an_exporter_that_is_killed_counts_each_line_once_over_its_lives(nginx: Nginx, tmp_path: Path) -> None:
    config = {"logs": [{"path": str(nginx.folder / "access.log"), "service": "shop"}], "state_folder": str(tmp_path)}
    (tmp_path / "tidewise.yaml").write_text(json.dumps({"exporters": {"latency": config}}))
    command = [sys.executable, "-m", "exporters", "latency", "--config", "tidewise.yaml"]
    command += ["--web.listen-address", "127.0.0.1:0", "--log.format", "json"]
    ending, client = threading.Event(), Client(nginx.port)

    def traffic() -> None:
        while not ending.is_set():
            client.get("/videos/17")
            time.sleep(0.001)

    def life(*, last: bool) -> list[float]:
        """What was shown, until the exporter is killed."""
        with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as exporter:
            try:
                assert exporter.stderr is not None
                address = json.loads(exporter.stderr.readline())["listen"][0]
                shown = [scraped(address)]
                if not shown[0] and not last:
                    asking.start()
                while not (enough(shown, client) if last else len(shown) > 4 and shown[-1] > shown[0]):
                    time.sleep(0.02)
                    shown.append(scraped(address))
                return shown
            finally:
                exporter.kill()

    asking = threading.Thread(target=traffic)
    first = life(last=False)  # began at the log's end
    second = life(last=False)
    ending.set()
    asking.join()
    third = life(last=True)
    shown = [*first, *second, *third]
    assert first[0] == 0
    assert first[-1] > 0
    assert second[0] >= first[-1]
    assert shown == sorted(shown), "a counter fell, which Prometheus would take for a restart"
    assert shown[-1] == client.asked


def enough(shown: list[float], client: Client) -> bool:
    assert len(shown) < 100, f"{shown[-1]} of {client.asked}"
    return shown[-1] == client.asked


def scraped(address: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text = response.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    return families["request_log_lines"].samples[0].value


def test_haproxy_tells_who_ended_what_and_its_own_page_has_what_the_adapter_reads(
    nginx: Nginx, services_root: Path, tmp_path: Path
) -> None:
    port = free_port()
    config = HAPROXY.format(port=port, behind=nginx.port)
    with HAProxy(tmp_path, config, port=port, root=services_root) as server:
        log = LogReader(
            Log(path=server.log_path, format="haproxy", service_from="backend", routes=["/videos/{id}"]), None, BOUNDS
        )
        until(lambda: "BADREQ" in server.log_path.read_text())  # the one who looked whether it listens
        before = counts(log)[0]["request_log_lines_total"]
        for path in ("/", "/videos/1", "/videos/2", "/broken", "/gone", "/dead"):
            Client(port).get(path)
        with socket.create_connection(("127.0.0.1", port)) as impatient:
            impatient.sendall(b"GET /half HTTP")
        until(lambda: counts(log)[0]["request_log_lines_total"] == before + 7)
        _, seen = counts(log)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
            page = {line.partition("{")[0] for line in response.read().decode().splitlines()}
    assert seen == {
        ("shop", "/", "2xx"): 1,
        ("shop", "/videos/{id}", "2xx"): 2,
        ("shop", "/broken", "5xx"): 1,
        ("shop", "/gone", "5xx"): 1,  # nginx closed the connection: 502
        ("dead", "/dead", "5xx"): 1,
        ("fe", "other", "4xx"): 1,  # HAProxy answered itself
    }
    reader = log._requests
    failures = {key: count for key, count in reader._failures.items() if count}
    assert failures == {
        ("shop", "server_error"): 1,
        ("shop", "bad_gateway"): 1,
        ("dead", "unavailable"): 1,
        ("fe", "client_aborted"): 1,
    }
    adapter = (ROOT / "prometheus" / "rules" / "adapter-haproxy.yml").read_text()
    names = set(re.findall(r"\bhaproxy_\w+", adapter))
    assert len(names) == 2
    assert names <= page
