"""What all queue systems on Redis share: readings side by side, a connection in bad hours, and finding queues."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis as client_library
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters import labels
from exporters.queue import bull, celery, redis_queues, rq
from exporters.queue.redis import age_seconds
from exporters.redis_server import Command, Reading, failure, together
from testbed.parts import Redis, free_port

Watch = Callable[[Mapping[str, Any]], Any]
Log = Callable[[], list[tuple[str, str]]]


def test_readings_share_their_steps_and_each_fails_alone() -> None:
    asked: list[list[str]] = []

    def ask(commands: Sequence[Command]) -> list[Any]:
        asked.append([str(command.words[1]) for command in commands])
        return [ValueError("no such") if command.words[1] == "bad" else command.words[1] for command in commands]

    def reading(*steps: Sequence[str], may_fail: bool = False) -> Reading[list[Any]]:
        got = []
        for step in steps:
            got += yield [Command("GET", key, may_fail=may_fail) for key in step]
        if got == ["raise"]:
            raise ValueError("it holds something else")
        return got

    learned, problems = together(
        ask,
        {
            "long": reading(["a", "b"], ["c"]),
            "none": reading(),
            "short": reading(["d"]),
            "fails": reading(["bad", "e"], ["f"]),
            "may fail": reading(["bad"], may_fail=True),
            "raises": reading(["raise"]),
        },
    )
    assert asked == [["a", "b", "d", "bad", "e", "bad", "raise"], ["c"]]
    assert {name: learned[name] for name in ("long", "none", "short")} == {
        "long": ["a", "b", "c"],
        "none": [],
        "short": ["d"],
    }
    assert isinstance(learned["may fail"][0], ValueError)
    assert problems == {
        "fails": "GET of the key 'bad' failed (no such); check what it holds",
        "raises": "it holds something else",
    }


def test_a_key_on_another_node_of_a_cluster_says_where() -> None:
    moved = client_library.exceptions.MovedError("15495 10.0.0.7:6379")
    assert failure(Command("LLEN", "jobs"), moved) == (
        "the key 'jobs' is on another node of the Cluster (15495 10.0.0.7:6379); name that server for this queue"
    )


def test_a_command_is_written_by_the_length_of_its_bytes() -> None:
    assert Command("LINDEX", "ü\r\n", -1).packed == b"*3\r\n$6\r\nLINDEX\r\n$4\r\n\xc3\xbc\r\n\r\n$2\r\n-1\r\n"
    assert Command("LLEN", b"\xff").packed == b"*2\r\n$4\r\nLLEN\r\n$1\r\n\xff\r\n"


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
FIELDS = st.sampled_from(["headers", "eta", "enqueued_at", "delay", "timestamp"])
JSON = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner, max_size=3), max_leaves=6
)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_whatever_programs_write_is_read_or_is_unknown(data: bytes) -> None:
    now = 1_800_000_000.0
    age = age_seconds(data, "enqueued_at", now)
    assert age is None or age >= 0
    bull.job_times([data] * 6)
    assert abs(bull.delay_milliseconds(data)) < 1e15
    bull.workers_by_queue(b"name=bull:" + data, "bull")
    rq.job_times([data] * 3)
    celery.destination(data)
    celery.head_time(data, "enqueued_at")
    celery.workers(data, "0")


# From here on against a real Redis.


@pytest.mark.real
def test_queues_are_found_remembered_and_capped(redis_url: str, watched: Watch) -> None:
    redis = client_library.Redis.from_url(redis_url)
    for name in (b"jobs:a", b"jobs:\xff", b'jobs:"\n', b"jobs:" + b"x" * 10_000, b"else"):
        redis.lpush(name, "x")
    redis.set("jobs:text", "no list")
    page = watched({"redis": [{"url": redis_url, "discover": "jobs:*", "most": 4, "queues": [{"name": "mine"}]}]})

    def configured() -> set[str]:
        return {
            sample.labels["queue"]
            for family in page.registry.collect()
            for sample in family.samples
            if sample.name == "queue_configured"
        }

    assert configured() == {"mine", "jobs:a", "jobs:\\xff", 'jobs:"\n', "jobs:" + "x" * 194 + "…"}
    redis.flushall()
    redis.lpush("jobs:late", "x")
    assert len(configured()) == 5, "an empty list has no key, and is there all the same"
    assert page.of("jobs:a")["messages ready"] == 0
    assert page.success()


@pytest.mark.real
def test_programs_that_share_a_server_and_a_name_are_told_apart(redis_url: str, watched: Watch) -> None:
    redis = client_library.Redis.from_url(redis_url)
    for prefix, count in (("rq", 1), ("shop", 3)):
        redis.sadd(f"{prefix}:queues", f"{prefix}:queue:default")
        redis.lpush(f"{prefix}:queue:default", *range(count))
    shop = {"url": redis_url, "prefix": "shop", "label_prefix": "shop/", "queues": [{"name": "mail"}]}
    page = watched({"rq": [{"url": redis_url, "discover": "*"}, {**shop, "discover": "default"}]})
    assert page.of("default")["messages ready"] == 1
    assert page.of("shop/default")["messages ready"] == 3
    assert page.of("shop/mail")["messages ready"] == 0
    redis.hset("shop:mail:meta", "version", "bullmq")
    worker = client_library.Redis.from_url(redis_url, client_name="shop:bWFpbA==")
    worker.ping()
    page = watched({"bullmq": [{**shop, "discover": "*"}]})
    assert page.of("shop/mail")["consumers"] == 1, "what the server shares knows queues by their own names"


@pytest.mark.real
def test_beyond_the_limit_queues_are_not_shown_but_counted(redis_url: str, watched: Watch) -> None:
    redis = client_library.Redis.from_url(redis_url)
    for number in range(20):
        redis.lpush(f"jobs:{number}", "x")
    page = watched({"redis": [{"url": redis_url, "discover": "jobs:*", "most": 5}]})
    assert len([name for name in page.series() if name.startswith("configured")]) == 5
    address = redis_url.removeprefix("redis://")
    refused = {tuple(sample.labels.values()): sample.value for sample in labels.refused().samples}
    assert refused[(f"queue.redis.{address}", "queue")] == 15


@pytest.mark.real
def test_a_large_server_is_looked_through_bit_by_bit(
    redis_url: str, watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queues, "SCAN_SECONDS", 0)
    monkeypatch.setattr(redis_queues, "SCAN_COUNT", 100)
    redis = client_library.Redis.from_url(redis_url)
    redis.mset({f"other:{number}": "x" for number in range(1000)})
    for number in range(50):
        redis.lpush(f"jobs:{number}", "x")
    page = watched({"redis": [{"url": redis_url, "discover": "jobs:*"}]})
    counts = [len([name for name in page.series() if name.startswith("configured")]) for _ in range(20)]
    assert counts[0] < 50, "the first scrape has seen a part"
    assert counts[-1] == 50
    assert counts == sorted(counts)


@pytest.mark.real
def test_who_may_not_look_for_queues_still_sees_those_that_are_named(
    redis_url: str, watched: Watch, log_events: Log
) -> None:
    admin = client_library.Redis.from_url(redis_url)
    admin.execute_command("ACL", "SETUSER", "few", "on", ">pass", "~*", "+llen", "+lindex")
    try:
        url = redis_url.replace("redis://", "redis://few:pass@")
        page = watched({"redis": [{"url": url, "discover": "*", "queues": [{"name": "mine"}]}]})
        for _ in range(2):
            assert page.of("mine")["messages ready"] == 0
        ((event, problem),) = log_events()
        assert event == "collector_incomplete"
        assert problem.startswith("queues could not be looked for (")
    finally:
        admin.execute_command("ACL", "DELUSER", "few")


@pytest.mark.real
def test_a_wrong_password_is_told_once_and_never_shown(redis_url: str, watched: Watch, log_events: Log) -> None:
    admin = client_library.Redis.from_url(redis_url)
    admin.execute_command("ACL", "SETUSER", "few", "on", ">pass", "~*", "+@all")
    try:
        url = redis_url.replace("redis://", "redis://few:geheim@")
        page = watched({"bullmq": [{"url": url, "queues": [{"name": "q"}]}], "rq": [{"url": url, "discover": "*"}]})
        for _ in range(3):
            assert page.series() == {}
        assert [event for event, _ in log_events()] == ["collector_failed"] * 2
        assert all("invalid username-password pair" in problem for _, problem in log_events())
        assert "geheim" not in str(log_events())
    finally:
        admin.execute_command("ACL", "DELUSER", "few")


class TlsRedis(Redis):
    """A Redis that has a second port for TLS, with the certificate in its folder."""

    tls_port: int

    def argv(self) -> list[str]:
        certificate = ["--tls-cert-file", str(self.folder / "cert.pem"), "--tls-key-file", str(self.folder / "key.pem")]
        return [*super().argv(), "--tls-port", str(self.tls_port), "--tls-auth-clients", "no", *certificate]


@pytest.fixture
def tls_redis(parts_root: Path, tmp_path: Path) -> Iterator[TlsRedis]:
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    options = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem"), "-subj", "/CN=127.0.0.1"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1",
         "-addext", "subjectAltName=IP:127.0.0.1", *options],
        check=True, capture_output=True,
    )  # fmt: skip
    server = TlsRedis(tmp_path, root=parts_root)
    server.tls_port = free_port()
    with server:
        yield server


@pytest.mark.real
def test_tls_is_for_those_who_know_the_authority(
    tls_redis: TlsRedis, watched: Watch, log_events: Log, tmp_path: Path
) -> None:
    url = f"rediss://127.0.0.1:{tls_redis.tls_port}/0"
    known = watched({"celery": [{"url": url, "ca_file": str(tmp_path / "cert.pem"), "queues": [{"name": "q"}]}]})
    assert known.of("q")["messages ready"] == 0
    assert known.success()
    unknown = watched({"celery": [{"url": url, "queues": [{"name": "q"}]}]})
    assert unknown.series() == {}
    plain = watched({"celery": [{"url": url.replace("rediss", "redis"), "queues": [{"name": "q"}]}]})
    assert plain.series() == {}
    assert [event for event, _ in log_events()] == ["collector_failed"] * 2
    assert "certificate verify failed" in log_events()[0][1]


ROOT = Path(__file__).resolve().parents[3]


def documented_rights() -> dict[str, list[str]]:
    """By system, as docs/exporters/queue.md has them."""
    rows = [
        line.split("|", 2) for line in (ROOT / "docs/exporters/queue.md").read_text().splitlines() if "| `+" in line
    ]
    return {
        system: row[2].strip(" |`").replace("\\", "").split()
        for row in rows
        for system in row[1].replace("`", "").replace(",", "").split()
    }


@pytest.mark.real
@pytest.mark.parametrize("system", ["redis", "redis_streams", "bull", "bullmq", "celery", "rq"])
def test_a_user_needs_only_the_documented_commands(redis_url: str, watched: Watch, system: str) -> None:
    admin = client_library.Redis.from_url(redis_url)
    pipeline = admin.pipeline()
    pipeline.lpush("jobs", "{}")
    pipeline.xadd("stream", {"n": 1})
    pipeline.xgroup_create("stream", "g", "0")
    for prefix, state, queue in (("bull:q:", "wait", "bull:q:{}"), ("rq:", "queue:q", "rq:{}:q")):
        pipeline.lpush(prefix + state, "1")
        pipeline.zadd(queue.format("completed" if prefix == "bull:q:" else "finished"), {"2": 1000})
    pipeline.hset("bull:q:meta" if system == "bullmq" else "bull:q:1", "timestamp", "1000")
    pipeline.set("bull:q:id", "2")
    pipeline.sadd("rq:queues", "rq:queue:q")
    pipeline.sadd("rq:workers:q", "rq:worker:1")
    pipeline.sadd("_kombu.binding.q", "q\x06\x16\x06\x16q")
    pipeline.lpush("q", "{}")
    pipeline.execute()
    scan = ["+scan"] if system != "rq" else []
    rights = documented_rights()[system]
    admin.execute_command("ACL", "SETUSER", "few", "reset", "on", ">pass", "~*", *rights, *scan)
    try:
        url = redis_url.replace("redis://", "redis://few:pass@")
        named = {"name": "named", "group": "g"} if system == "redis_streams" else {"name": "named"}
        page = watched({system: [{"url": url, "discover": "*", "queues": [named]}]})
        for _ in range(2):
            assert page.success()
            admin.zadd("bull:q:completed", {"3": 2000})
            admin.zadd("rq:finished:q", {"3": 2000})
        names = {name for name in page.series() if name.startswith("configured")}
        assert 'configured{queue="named"}' in names
        assert len(names) > 1, "and one was found"
        assert "consumers" in page.of("named") or system in ("redis", "redis_streams")
    finally:
        admin.execute_command("ACL", "DELUSER", "few")
