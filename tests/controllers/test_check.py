"""`tidewise check`, on the terminal: against nothing, and against a real Prometheus that scrapes a page of ours."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import structlog

from controllers import check, rules
from controllers.config import Prometheus as Settings
from controllers.config import load
from controllers.sources.prometheus import Source
from testbed.parts import Prometheus, create_blocks

ROOT = Path(__file__).resolve().parents[2]
WORKLOAD = """\
workloads:
  - name: {name}
    demand: {demand}
    target: {{command: {{get: [count], set: [scale, "{{replicas}}"]}}}}
    replicas: {{max: 4}}
    slo: {{wait_seconds: {wait}}}
    capacity: {{service_seconds: 1}}
"""


def text(name: str = "video-analysis", demand: str = "{queue: video-jobs}", wait: float = 60.0) -> str:
    return WORKLOAD.format(name=name, demand=demand, wait=wait)


@pytest.fixture
def checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Checks a file's content: (exit status, standard output, standard error)."""

    def run(content: str, *options: str) -> tuple[int, str, str]:
        path = tmp_path / "tidewise.yaml"
        path.write_text(content)
        status = check.main([str(path), *options])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_file_alone(checked) -> None:
    status, out, _ = checked(text(), "--no-prometheus")
    assert status == 0
    assert "no mistakes; 1 workload\n" in out


@pytest.mark.parametrize(
    ("sentence", "more", "warning"),
    [
        (
            "a price without a budget",
            "    price: {per_replica_hour: 12 KRW}\n",
            "workloads.0.price: there is no budget",
        ),
        (
            "a budget that nobody may ask",
            "    price: {per_replica_hour: 12 KRW}\nbudget: {total: 100 KRW}\n",
            "budget.token_file: is missing, so the ledger permits nothing and replicas with a price are not added",
        ),
        ("both", "    price: {per_replica_hour: 12 KRW}\nbudget: {total: 100 KRW, token_file: /run/t}\n", None),
        ("neither", "", None),
    ],
)
def test_prices_and_a_budget_that_do_not_meet(checked, sentence: str, more: str, warning: str | None) -> None:
    status, out, _ = checked(text() + more, "--no-prometheus")
    assert status == 0
    assert (f"warning: {warning}" in out) if warning else "warning" not in out, sentence


def test_a_file_without_workloads_asks_nobody(checked) -> None:
    status, out, _ = checked("exporters: {host: {}}\n", "--prometheus", "http://127.0.0.1:1")
    assert status == 0
    assert "no workloads" in out


def test_a_queue_that_the_files_own_exporter_does_not_watch(checked) -> None:
    exporters = "exporters: {queue: {redis: [{url: 'redis://h:1', queues: [{name: video-jobs}]}]}}\n"
    status, out, _ = checked(exporters + text(demand="{queue: vidoe-jobs}"), "--no-prometheus")
    assert status == 0
    assert (
        "warning: workloads.0.demand.queue: 'vidoe-jobs' is not watched by this file's exporters.queue.redis; "
        "did you mean 'video-jobs'?"
    ) in out
    assert "warning" not in checked(exporters + text(), "--no-prometheus")[1]


def test_what_the_calendar_has_and_a_file_that_cannot_be_read(checked, tmp_path: Path) -> None:
    (tmp_path / "bad.ics").write_text("no calendar")
    calendar = f"""\
    time_zone: Asia/Seoul
    calendar:
      holidays: KR
      events: [{{name: sale, at: "2024-01-05T10:00", for: 2h, every: friday}}]
      floors: [{{cron: "* * * * *", for: 5m, demand_per_second: 7}}]
      ics: [{tmp_path}/none.ics, {tmp_path}/bad.ics]
"""
    try:
        status, out, _ = checked(text() + calendar, "--no-prometheus")
    finally:
        structlog.reset_defaults()
    assert status == 0
    assert f"warning: workloads.0.calendar.ics.0: {tmp_path}/none.ics cannot be read (No such file or directory)" in out
    assert f"warning: workloads.0.calendar.ics.1: {tmp_path}/bad.ics cannot be read (" in out
    line = next(line for line in out.splitlines() if line.startswith("default/video-analysis: calendar (Asia/Seoul): "))
    assert re.search(r"next holiday 20\d\d-\d\d-\d\d \(.+\); event 'sale' 5\d times so far", line)
    assert "; at least 7 per second from " in line


def test_prometheus_is_down(checked) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        status, _, err = checked(text(), "--prometheus", url)
    assert status == 1
    assert f"prometheus.url: {url} tells nothing (unreachable: " in err
    assert "Connection refused" in err
    assert "--no-prometheus looks at the file only" in err


def labels(name: str) -> str:
    state = ',state="ready"' if "message" in name else ""
    return f'system="redis",queue="video-jobs"{state}'


class Page:
    """A /metrics page of one queue: for ten minutes ten jobs a second have come and five were finished, 0.4 s each."""

    def __init__(self) -> None:
        self.up = True
        self.began = time.time() - 600
        page = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if page.up else 503)
                self.end_headers()
                self.wfile.write(page.text(time.time()).encode())

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.address = f"127.0.0.1:{self._server.server_port}"

    def samples(self, now: float) -> dict[str, float]:
        seconds = now - self.began
        return {
            "queue_messages": 5 * seconds // 1,
            "queue_oldest_message_age_seconds": 3.0,
            "queue_enqueued_total": 10 * seconds // 1,
            "queue_completed_total": 5 * seconds // 1,
            "queue_process_seconds_sum": 0.4 * (5 * seconds // 1),
            "queue_process_seconds_count": 5 * seconds // 1,
        }

    def text(self, now: float) -> str:
        return "".join(f"{name}{{{labels(name)}}} {value}\n" for name, value in self.samples(now).items())

    def history(self) -> str:
        """What a Prometheus would have of it, as OpenMetrics."""
        times = range(int(self.began) + 1, int(time.time()) - 1, 5)
        where = f'job="tidewise-exporter",instance="{self.address}"'
        lines = []
        for name in self.samples(0):
            lines.append(f"# TYPE {name.removesuffix('_total')} {'counter' if name.endswith('_total') else 'unknown'}")
            lines += [f"{name}{{{labels(name)},{where}}} {self.samples(at)[name]} {at}" for at in times]
        return "\n".join([*lines, "# EOF\n"])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    page = Page()
    yield page
    page.stop()


@pytest.fixture(scope="module")
def prometheus(page: Page, parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Knows the rules of the workload video-analysis, and of no other."""
    folder = tmp_path_factory.mktemp("check")
    (folder / "tidewise.yaml").write_text(text())
    (folder / "workloads.yml").write_text(rules.render(load(folder / "tidewise.yaml")))
    (folder / "prometheus.yml").write_text(f"""\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
rule_files: [{ROOT}/prometheus/rules/*.yml, workloads.yml]
scrape_configs: [{{job_name: tidewise-exporter, static_configs: [{{targets: ["{page.address}"]}}]}}]
""")
    (folder / "history.om").write_text(page.history())
    server = Prometheus(folder, folder / "prometheus.yml", root=parts_root)
    create_blocks(folder / "history.om", server.data_folder, root=parts_root)
    with server:
        source = Source(Settings(url=server.url))
        until = time.monotonic() + 30  # its first scrape takes some seconds; until then it has the history only
        while time.monotonic() < until and not source.instant("up == 1"):
            time.sleep(0.1)
        yield server


def eventually(run: Callable[[], tuple[int, str, str]], right: Callable[[int, str, str], bool]) -> tuple[int, str, str]:
    until = time.monotonic() + 40
    while True:
        found = run()
        if right(*found) or time.monotonic() > until:
            return found
        time.sleep(0.3)


@pytest.mark.real
class TestWithPrometheus:
    """In this order: the last test takes the source away."""

    def test_all_is_there(self, checked, prometheus: Prometheus) -> None:
        status, out, err = eventually(
            lambda: checked(text(), "--prometheus", prometheus.url),
            lambda status, out, _: status == 0 and "7 series, 6 there" in out and "expression" not in out,
        )
        assert (status, err) == (0, "")
        assert f"{prometheus.url}: answers\n" in out
        assert "default/video-analysis: queue video-jobs on redis, 0 to 4 replicas, shadow\n" in out
        rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  workload:")}
        assert abs(float(rows["workload:demand:rate1m"][1]) - 10) < 2
        assert rows["workload:demand:rate1m"][4] == "rule"
        assert rows["workload:service_seconds:mean5m"][1] == "0.4"
        assert rows["workload:failures:ratio_rate5m"][1] == "-"
        assert "nothing counts failed work" in out
        assert "needed and unusable: none" in out
        assert "warning: its history is less than an hour long; a forecast needs a day" in out

    def test_without_its_rules_the_expressions_are_asked(self, checked, prometheus: Prometheus) -> None:
        status, out, _ = checked(text(name="other"), "--prometheus", prometheus.url)
        assert status == 0
        row = next(line for line in out.splitlines() if "workload:demand:rate1m" in line)
        assert row.split()[4] == "expression"
        assert "warning: rules are missing or not loaded; load what `tidewise rules` prints" in out

    def test_a_queue_that_does_not_exist(self, checked, prometheus: Prometheus) -> None:
        status, out, _ = checked(text(name="other", demand="{queue: vidoe-jobs}"), "--prometheus", prometheus.url)
        assert status == 1
        assert "warning: the queue 'vidoe-jobs' is not exported; did you mean 'video-jobs'?" in out
        assert "NEEDED: missing" in out
        assert "needed and unusable: 3" in out
        assert "warning: there is no history of its demand" in out

    def test_an_expression_that_prometheus_refuses(self, checked, prometheus: Prometheus) -> None:
        status, out, err = checked(text(name="other", demand="{promql: 'rate(x)'}"), "--prometheus", prometheus.url)
        assert status == 2
        assert "workloads.0.demand.promql: Prometheus refuses it (HTTP 400, bad_data: " in err
        assert "expected type range vector" in err
        assert "needed and unusable: 2" in out

    def test_an_expression_that_gives_nothing(self, checked, prometheus: Prometheus) -> None:
        status, out, err = checked(text(name="other", demand="{promql: absent_total}"), "--prometheus", prometheus.url)
        assert (status, err) == (1, "")
        assert "NEEDED: missing" in out

    @pytest.mark.parametrize(
        ("sentence", "expr", "status", "said"),
        [
            ("by instance", "sum by (instance) (up)", 0, None),
            ("refused", "sum by (pod) (rate(up))", 2, "workloads.0.in_hand: Prometheus refuses it"),
            ("without a name", "sum(up)", 2, "workloads.0.in_hand: 1 of 1 series have neither pod nor instance; write"),
            ("nothing yet", "sum by (pod) (busy)", 0, "warning: in_hand gives nothing now, so scale-in would take any"),
        ],
    )
    def test_work_in_hand(
        self, checked, prometheus: Prometheus, sentence: str, expr: str, status: int, said: str | None
    ) -> None:
        found, out, err = checked(text() + f"    in_hand: '{expr}'\n", "--prometheus", prometheus.url)
        assert found == status, sentence
        assert (said or "warning: its history") in out + err
        assert said or ("in_hand:" not in err and "in_hand gives" not in out)

    def test_a_further_demand_is_looked_at_like_any(self, checked, prometheus: Prometheus) -> None:
        more = "    also: [{name: llm, promql: 'rate(x)'}, {name: rest, queue: video-jobs}]\n"
        status, out, err = checked(text() + more, "--prometheus", prometheus.url)
        assert status == 2
        assert "workloads.0.also.0.promql: Prometheus refuses it" in err
        assert "default/video-analysis/rest: queue video-jobs on redis, the same replicas\n" in out

    def test_an_objective_shorter_than_any_service_time_on_record(self, checked, prometheus: Prometheus) -> None:
        status, _, err = checked(text(wait=0.2), "--prometheus", prometheus.url)
        assert status == 2
        assert (
            "workloads.0.slo.wait_seconds: found 0.2; no five minutes on record served a job in less than 0.4 s on "
            "average, so no number of replicas keeps this promise: raise it"
        ) in err

    def test_the_source_is_lost(self, checked, page: Page, prometheus: Prometheus) -> None:
        page.up = False
        began = time.monotonic()
        status, out, _ = eventually(
            lambda: checked(text(), "--prometheus", prometheus.url),
            lambda status, out, _: "needed and unusable: 2" in out,
        )
        assert time.monotonic() - began < 20
        assert status == 1
        # unknown, not 0; only the age of what is lost goes on
        rows = {line.split()[0]: line.split() for line in out.splitlines() if line.startswith("  workload:")}
        assert rows["workload:demand:rate1m"][1:4] == ["-", "-", "-"]
        assert rows["workload:backlog:sum"][1:4] == ["-", "-", "-"]
        assert float(rows["workload:data_age_seconds:max"][1]) > 0
        assert "NEEDED: missing" in out
