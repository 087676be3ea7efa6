"""Plain Redis lists: the configuration, ages, and the page of a real server in good and bad hours."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import redis as client_library
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from exporters.collector import CollectFunction, Collectors
from exporters.config import exporters_model
from exporters.queue import collectors
from exporters.queue.redis import age_seconds
from exporters.runtime.config import ConfigError, validate
from testbed.parts import Redis, free_port

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("job", "age"),
    [
        pytest.param('{"enqueued_at": 1799999990}', 10, id="Unix seconds"),
        pytest.param('{"enqueued_at": 1799999990.5}', 9.5, id="Unix seconds with a fraction"),
        pytest.param('{"enqueued_at": 1799999990500}', 9.5, id="Unix milliseconds"),
        pytest.param('{"enqueued_at": "2027-01-15T07:59:50Z"}', 10, id="ISO 8601 in UTC"),
        pytest.param('{"enqueued_at": "2027-01-15T16:59:50+09:00"}', 10, id="ISO 8601 with a zone"),
        pytest.param('{"enqueued_at": "2027-01-15 07:59:50"}', 10, id="ISO 8601 without a zone is UTC"),
        pytest.param('{"enqueued_at": 1800000030}', 0, id="a producer's clock is a little ahead"),
        pytest.param('{"enqueued_at": 1800000061}', None, id="a time in the future is no enqueueing time"),
        pytest.param('{"enqueued_at": 1799999990000000000}', None, id="nanoseconds are not guessed"),
        pytest.param('{"enqueued_at": 0}', None, id="zero is no time"),
        pytest.param('{"enqueued_at": -5}', None, id="nor is a negative number"),
        pytest.param('{"enqueued_at": true}', None, id="nor is true"),
        pytest.param('{"enqueued_at": NaN}', None, id="nor is NaN"),
        pytest.param('{"enqueued_at": null}', None, id="nor is nothing"),
        pytest.param('{"enqueued_at": "yesterday"}', None, id="nor is a word"),
        pytest.param('{"enqueued_at": "0001-01-01T00:00:00+14:00"}', None, id="nor is the year 1"),
        pytest.param('{"enqueued_at": -1' + "0" * 400 + "}", None, id="nor is a number of 400 digits"),
        pytest.param('{"enqueued_at": [1799999990]}', None, id="nor is a list"),
        pytest.param('{"at": 1799999990}', None, id="no such field"),
        pytest.param("[1799999990]", None, id="JSON, but no object"),
        pytest.param("job-17", None, id="no JSON"),
        pytest.param("", None, id="an empty job"),
        pytest.param(b"\xff\xfe\x00", None, id="bytes that are no text"),
        pytest.param("[" * 100_000, None, id="JSON too deep to read"),
    ],
)
def test_age(job: str | bytes, age: float | None) -> None:
    data = job.encode() if isinstance(job, str) else job
    assert age_seconds(data, "enqueued_at", NOW) == (None if age is None else pytest.approx(age))


def configured(section: Mapping[str, Any]) -> Mapping[str, CollectFunction]:
    """The collect functions for an `exporters.queue` section."""
    exporters: Any = validate(exporters_model(["queue"]), {"queue": section}, Path("t.yaml"), prefix=("exporters",))
    return collectors(exporters.queue)


@pytest.mark.parametrize(
    ("section", "sentence"),
    [
        pytest.param(
            {"reddis": []}, "queue.reddis: unknown key; did you mean 'redis'?", id="a system that does not exist"
        ),
        pytest.param(
            {"redis": [{"url": "redis://h"}]},
            "queue.redis.0: found no queue; name at least one in queues, or let discover find them: '*'",
            id="a server and no queue",
        ),
        pytest.param(
            {"redis": [{"url": "redis://h", "queues": [{"name": "a", "counter": {}}]}]},
            "queue.redis.0.queues.0.counter: unknown key; did you mean 'counters'?",
            id="a misspelt key",
        ),
        pytest.param(
            {"redis": [{"url": "http://u:secret@h", "queues": [{"name": "a"}]}]},
            "queue.redis.0.url: not a Redis address; "
            "write redis://HOST:PORT/DB, rediss:// for TLS, or unix:///path.sock",
            id="an address of something else, whose password is not repeated",
        ),
        pytest.param(
            {"redis": [{"url": "redis://h:port", "queues": [{"name": "a"}]}]},
            "queue.redis.0.url: not a Redis address; "
            "write redis://HOST:PORT/DB, rediss:// for TLS, or unix:///path.sock",
            id="a port in words",
        ),
        pytest.param(
            {"redis": [{"url": "redis://:x@h", "password_file": "/p", "queues": [{"name": "a"}]}]},
            "queue.redis.0: found a password in url and password_file; keep the file",
            id="two passwords",
        ),
        pytest.param(
            {"redis": [{"url": "redis://h", "queues": [{"name": "a", "counters": {"process_seconds": "s"}}]}]},
            "queue.redis.0.queues.0.counters: process_seconds is a sum over completed jobs; "
            "name the key that counts them: completed",
            id="a sum without a count",
        ),
        pytest.param(
            {"redis": [{"url": f"redis://{host}", "queues": [{"name": "a"}]} for host in ("h", "i")]},
            "queue.redis: the queue 'a' stands twice (0.queues.0, 1.queues.0); rename one, "
            "or give its server a label_prefix",
            id="one name for two queues",
        ),
        pytest.param(
            {"rq": [{"url": f"redis://{host}", "discover": "*"} for host in ("h", "i")]},
            "queue.rq: several servers, of which one finds its queues by discover: both may have a queue of the same "
            "name; give each server a label_prefix of its own",
            id="two servers that may both have a queue called default",
        ),
        pytest.param(
            {"redis": [{"url": "redis://h", "queues": [{"name": name}]} for name in ("a", "b")]},
            "queue.redis: the server h:6379/0 stands twice; write its queues in one place",
            id="a server twice",
        ),
        pytest.param(
            {"redis": [{"url": "redis://h", "queues": [{"name": "a", "head": "top"}]}]},
            "queue.redis.0.queues.0.head: found 'top'; it must be 'left' or 'right'",
            id="an end that a list has not",
        ),
    ],
)
def test_a_mistake_in_the_configuration_is_a_sentence(section: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        configured(section)
    assert str(refused.value) == f"t.yaml: exporters.{sentence}"


# From here on against a real Redis.

FULL = {
    "name": "video",
    "ready": "video:ready",
    "active": ["video:active:1", "video:active:2"],
    "delayed": "video:delayed",
    "failed": "video:failed",
    "counters": {
        "enqueued": "video:n:in",
        "completed": "video:n:done",
        "failed": "video:n:failed",
        "process_seconds": "video:seconds",
    },
}


class Queues:
    """A Redis, and the page that the exporter makes of some of its queues."""

    def __init__(self, url: str, *queues: Mapping[str, Any], **options: Any) -> None:
        self.redis = client_library.Redis.from_url(url, decode_responses=True)
        self.collectors = Collectors(configured({"redis": [{"url": url, "queues": queues, **options}]}))
        self.registry = CollectorRegistry()
        self.registry.register(self.collectors)

    def series(self) -> dict[str, float]:
        """{series as on the page: value}, `queue_` ones only."""
        lines = generate_latest(self.registry).decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if line.startswith("queue_"))
        return {name: float(value) for name, _, value in pairs}

    def success(self) -> float:
        (value,) = (
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "tidewise_exporter_collector_success"
        )
        return value


def job(age: float, **more: Any) -> str:
    return json.dumps({"id": 1, "enqueued_at": time.time() - age, **more})


@pytest.mark.real
def test_the_page_of_a_busy_queue_and_of_one_that_does_not_exist(
    redis_url: str, page: Callable[[Mapping[str, CollectFunction]], str]
) -> None:
    with client_library.Redis.from_url(redis_url) as redis:
        redis.lpush("video:ready", json.dumps({"enqueued_at": "2000-01-01"}), b"\xff")  # the last is served last
        redis.lpush("video:active:1", "a", "b")
        redis.lpush("video:active:2", "c")
        redis.zadd("video:delayed", {"d": 1, "e": 2, "f": 3, "g": 4})
        redis.zadd("video:failed", {"h": 1, "i": 2, "j": 3, "k": 4, "l": 5})
        redis.incrby("video:n:in", 1000)
        redis.incrby("video:n:done", 900)
        redis.incrbyfloat("video:seconds", 4321.5)
    section = {"redis": [{"url": redis_url, "queues": [FULL, {"name": 'no "such" queue'}]}]}
    text = page(configured(section))
    age = 'queue_oldest_message_age_seconds{queue="video",state="ready",system="redis"} '
    measured = next(float(line.removeprefix(age)) for line in text.splitlines() if line.startswith(age))
    assert measured == pytest.approx(time.time() - 946_684_800, abs=5)  # 2000-01-01
    text = "\n".join(age + "AGE" if line.startswith(age) else line for line in text.splitlines()) + "\n"
    assert text == (Path(__file__).parent / "redis.txt").read_text()


@pytest.mark.real
def test_openmetrics_of_it_parses(redis_url: str) -> None:
    families = {
        family.name: family
        for family in parse_openmetrics(generate_openmetrics(Queues(redis_url, FULL).registry).decode())
    }
    assert {"queue_messages", "queue_enqueued", "queue_process_seconds"} <= set(families)
    assert families["queue_process_seconds"].type == "histogram"


@pytest.mark.real
@pytest.mark.parametrize(
    ("head", "age"),
    [
        pytest.param("right", 100, id="LPUSH and BRPOP: the right end is served next"),
        pytest.param("left", 5, id="RPUSH and BLPOP: the left end is served next"),
    ],
)
def test_the_age_is_that_of_the_job_served_next(redis_url: str, head: str, age: float) -> None:
    queues = Queues(redis_url, {"name": "a", "head": head, "enqueued_at": "at"})
    for seconds in (100, 50, 5):
        queues.redis.lpush("a", json.dumps({"at": time.time() - seconds}))
    measured = queues.series()['queue_oldest_message_age_seconds{queue="a",state="ready",system="redis"}']
    assert measured == pytest.approx(age, abs=2)


@pytest.mark.real
def test_a_job_without_a_time_has_no_age_and_an_empty_queue_has_age_zero(redis_url: str) -> None:
    queues = Queues(redis_url, {"name": "a"})
    age = 'queue_oldest_message_age_seconds{queue="a",state="ready",system="redis"}'
    assert queues.series()[age] == 0
    queues.redis.lpush("a", "job-17")
    series = queues.series()
    assert age not in series
    assert series['queue_messages{queue="a",state="ready",system="redis"}'] == 1
    assert queues.success() == 1


@pytest.mark.real
def test_failed_jobs_in_a_list_or_in_a_sorted_set_and_in_each_after_the_other(redis_url: str) -> None:
    queues = Queues(redis_url, {"name": "a", "failed": "dead"})
    failed = 'queue_messages{queue="a",state="failed",system="redis"}'
    assert queues.series()[failed] == 0
    queues.redis.lpush("dead", "x", "y")
    assert queues.series()[failed] == 2
    queues.redis.delete("dead")
    queues.redis.zadd("dead", {"x": 1, "y": 2, "z": 3})
    assert queues.series()[failed] == 3
    before = errors(queues.redis)
    assert queues.series()[failed] == 3
    assert errors(queues.redis) == before, "once the kind is known, no command fails any more"
    queues.redis.delete("dead")
    assert queues.series()[failed] == 0
    queues.redis.lpush("dead", "x")
    assert queues.series()[failed] == 1


def errors(redis: "client_library.Redis") -> Any:
    return redis.info("stats")["total_error_replies"]


@pytest.mark.real
@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        pytest.param(
            lambda redis: redis.set("bad:ready", "text"),
            "queue 'bad': LLEN of the key 'bad:ready' failed "
            "(WRONGTYPE Operation against a key holding the wrong kind of value); check what it holds",
            id="the list is no list",
        ),
        pytest.param(
            lambda redis: redis.lpush("bad:delayed", "x"),
            "queue 'bad': ZCARD of the key 'bad:delayed' failed "
            "(WRONGTYPE Operation against a key holding the wrong kind of value); check what it holds",
            id="the sorted set is a list",
        ),
        pytest.param(
            lambda redis: redis.set("bad:failed", "x"),
            "queue 'bad': LLEN of the key 'bad:failed' failed "
            "(WRONGTYPE Operation against a key holding the wrong kind of value); check what it holds",
            id="the failed jobs are neither list nor sorted set",
        ),
        pytest.param(
            lambda redis: redis.set("bad:in", "many"),
            "queue 'bad': the counter 'bad:in' holds no number; check what writes it",
            id="the counter is no number",
        ),
    ],
)
def test_a_key_of_the_wrong_kind_takes_only_its_own_queue(
    redis_url: str,
    log_events: Callable[[], list[tuple[str, str]]],
    spoil: Callable[["client_library.Redis"], object],
    sentence: str,
) -> None:
    bad = {
        "name": "bad",
        "ready": "bad:ready",
        "delayed": "bad:delayed",
        "failed": "bad:failed",
        "counters": {"enqueued": "bad:in"},
    }
    queues = Queues(redis_url, bad, {"name": "good"})
    queues.redis.lpush("good", "x")
    spoil(queues.redis)
    for _ in range(3):
        series = queues.series()
        assert series['queue_messages{queue="good",state="ready",system="redis"}'] == 1
        assert not [name for name in series if 'queue="bad"' in name]
    assert queues.success() == 0
    assert log_events() == [("collector_incomplete", sentence)]
    queues.redis.flushall()
    assert queues.series()['queue_messages{queue="bad",state="ready",system="redis"}'] == 0
    assert queues.success() == 1


@pytest.mark.real
def test_odd_names_come_through(redis_url: str) -> None:
    odd = 'a"b\\c\nd{}=,:ü 작업'
    queues = Queues(redis_url, {"name": odd})
    queues.redis.lpush(odd, "x")
    messages = [
        sample for family in queues.registry.collect() for sample in family.samples if sample.name == "queue_messages"
    ]
    assert [(sample.labels["queue"], sample.value) for sample in messages] == [(odd, 1)]


@pytest.fixture
def own_redis(parts_root: Path, tmp_path: Path) -> Iterator[Redis]:
    """A Redis that a test may stop."""
    with Redis(tmp_path / "own", root=parts_root) as server:
        yield server


@pytest.mark.real
def test_a_redis_that_goes_and_comes_back(
    own_redis: Redis, redis_url: str, log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    section = {
        "redis": [
            {"url": own_redis.url, "queues": [{"name": "here"}]},
            {"url": redis_url, "queues": [{"name": "elsewhere"}]},
        ]
    }
    queues = Queues(own_redis.url, {"name": "unused"})
    queues.collectors = Collectors(configured(section))
    queues.registry = CollectorRegistry()
    queues.registry.register(queues.collectors)
    here, elsewhere = (
        f'queue_messages{{queue="{name}",state="ready",system="redis"}}' for name in ("here", "elsewhere")
    )

    assert {here, elsewhere} <= set(queues.series())
    own_redis.stop()
    for _ in range(2):
        series = queues.series()
        assert elsewhere in series
        assert not [name for name in series if 'queue="here"' in name], "down is not empty"
    own_redis.start()
    assert {here, elsewhere} <= set(queues.series()), "the next scrape connects anew"
    own_redis.kill()
    own_redis.start()
    assert {here, elsewhere} <= set(queues.series()), "a restart between two scrapes is not even noticed"
    assert [event for event, _ in log_events()] == ["collector_failed", "collector_recovered"]


@pytest.mark.real
def test_a_redis_that_does_not_answer_costs_less_than_the_scrape(own_redis: Redis) -> None:
    queues = Queues(own_redis.url, {"name": "a"})
    assert queues.success() == 1
    queues.redis.execute_command("CLIENT", "PAUSE", "6000", "ALL")
    started = time.monotonic()
    assert queues.success() == 0
    assert time.monotonic() - started < 4


@pytest.mark.real
def test_a_password_from_a_file_that_is_changed(own_redis: Redis, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    admin = client_library.Redis.from_url(own_redis.url)
    admin.config_set("requirepass", "first")
    queues = Queues(own_redis.url, {"name": "a"}, password_file=str(secret))
    assert queues.success() == 1
    admin.config_set("requirepass", "second")
    admin.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert queues.success() == 0
    secret.write_text("second\n")
    assert queues.success() == 1


@pytest.mark.real
def test_a_user_needs_only_the_documented_commands(own_redis: Redis, tmp_path: Path) -> None:
    admin = client_library.Redis.from_url(own_redis.url)
    documented = ("+llen", "+lindex", "+zcard", "+type", "+get")  # in docs/exporters/queue.md
    admin.execute_command("ACL", "SETUSER", "watcher", "on", ">pass", "~video:*", *documented)
    secret = tmp_path / "password"
    secret.write_text("pass")
    url = own_redis.url.replace("redis://", "redis://watcher@")
    queues = Queues(url, FULL, password_file=str(secret))
    assert len(queues.series()) == 12
    assert queues.success() == 1
    denied = Queues(url, FULL, {"name": "other"}, password_file=str(secret))
    assert len(denied.series()) == 12, "a key the user may not read takes only its own queue"
    assert denied.success() == 0


def test_without_a_redis_the_first_scrape_fails_and_says_why(log_events: Callable[[], list[tuple[str, str]]]) -> None:
    port = free_port()
    queues = Queues(f"redis://127.0.0.1:{port}", {"name": "a"})
    assert queues.series() == {}
    ((event, problem),) = log_events()
    assert event == "collector_failed"
    assert f"connecting to 127.0.0.1:{port}" in problem
