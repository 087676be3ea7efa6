"""Celery, by its own library and a worker of it on a real Redis."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celery
import pytest
import redis as client_library

from exporters.queue.celery import SEPARATOR, Destination, destination, queue_of, shares, workers

Watch = Callable[[Mapping[str, Any]], Any]
NOW = 1_800_000_000.0


@pytest.fixture
def app(redis_url: str) -> Iterator[celery.Celery]:
    """An application on the Redis of the run."""
    app = celery.Celery("shop", broker=redis_url, backend=None)
    app.conf.task_create_missing_queues = True
    app.conf.broker_transport_options = {"visibility_timeout": 3600}
    app.conf.worker_prefetch_multiplier = 2
    yield app
    app.close()


def send(app: celery.Celery, count: int, queue: str = "reports", **options: Any) -> None:
    for _ in range(count):
        app.send_task("shop.work", queue=queue, **options)


@pytest.mark.real
def test_what_waits_at_each_priority_and_how_long(redis_url: str, app: celery.Celery, watched: Watch) -> None:
    page = watched(
        {"celery": [{"url": redis_url, "discover": "re*", "queues": [{"name": "declared"}]}]},
    )
    send(app, 2)
    send(app, 3, priority=9)
    send(app, 1, queue="other")
    seen = page.of("reports")
    assert seen == {
        "configured": 1,
        "messages ready": 5,
        "messages active": 0,
        "messages delayed": 0,
        "consumers": 0,
    }, "Celery keeps no time of enqueueing"
    assert page.of("declared")["messages ready"] == page.of("declared")["oldest_message_age_seconds ready"] == 0
    assert page.of("other") == {}, "not what discover asks for"

    client_library.Redis.from_url(redis_url).delete("reports", "reports\x06\x169")
    send(app, 1, headers={"enqueued_at": time.time() - 100})
    send(app, 1, headers={"enqueued_at": time.time() - 200}, priority=6)
    assert page.of("reports")["oldest_message_age_seconds ready"] == pytest.approx(200, abs=5)
    assert page.success()


WORKER = """
import sys, time, celery
app = celery.Celery("shop", broker=sys.argv[1])
app.conf.worker_prefetch_multiplier = 2
app.conf.broker_connection_retry_on_startup = False
@app.task(name="shop.work", acks_late=True)
def work(seconds=0):
    time.sleep(seconds)
app.worker_main(["worker", "--pool=solo", "--concurrency=1", "--queues=reports,mails", "--loglevel=ERROR",
                 "--without-gossip", "--without-mingle", "--without-heartbeat"])
"""


@pytest.mark.real
def test_what_a_worker_has_taken_belongs_to_its_queue(
    redis_url: str, app: celery.Celery, watched: Watch, tmp_path: Path
) -> None:
    page = watched({"celery": [{"url": redis_url, "queues": [{"name": "reports"}]}]})
    both = watched({"celery": [{"url": redis_url, "discover": "*"}]})
    later = datetime.now(UTC) + timedelta(hours=1)
    send(app, 1, eta=later)
    send(app, 1, queue="mails", eta=later)
    (tmp_path / "worker.py").write_text(WORKER)
    worker = subprocess.Popen([sys.executable, str(tmp_path / "worker.py"), redis_url], cwd=tmp_path)
    try:
        until = time.monotonic() + 20
        while not (page.of("reports")["messages delayed"] and page.of("reports")["consumers"]):
            assert time.monotonic() < until, "the worker has not come up"
            time.sleep(0.05)
        send(app, 5, kwargs={"seconds": 60})
        while page.of("reports")["messages active"] < 1 and time.monotonic() < until:
            time.sleep(0.05)
        seen = page.of("reports")
        assert seen["messages delayed"] == 1
        assert seen["messages active"] >= 1
        assert seen["messages ready"] + seen["messages active"] == 5
        assert seen["consumers"] == 1
        assert both.of("mails")["messages delayed"] == 1
        assert "consumers" not in both.of("mails"), "nobody says which queues the worker serves"
    finally:
        worker.kill()
        worker.wait()
    seen = page.of("reports")
    assert seen["messages ready"] + seen["messages active"] == 5, "what a dead worker had is not lost"
    until = time.monotonic() + 5
    while page.of("reports")["consumers"] and time.monotonic() < until:
        time.sleep(0.02)
    assert both.of("mails")["consumers"] == 0, "no worker at all serves each queue"


def message(queue: str, exchange: str | None = "", **headers: Any) -> bytes:
    return json.dumps([{"body": "", "headers": headers}, exchange, queue]).encode()


def test_of_more_messages_than_are_looked_into_the_sample_tells_the_shares() -> None:
    late = [Destination("", "b", NOW + 3600)] * 50
    sample = [Destination("", "a", None)] * 200 + [Destination("", "b", NOW)] * 50 + late
    assert shares(sample, {}, 3000, NOW) == ({"a": 2000, "b": 500}, {"b": 500})
    assert shares(sample[:10], {}, 12, NOW) == ({"a": 10}, {}), "two came meanwhile: what was looked into counts"


@pytest.mark.parametrize(
    ("routing_key", "queue"),
    [
        pytest.param("feed.import.rss", "feed", id="many words"),
        pytest.param("feed", "feed", id="the pattern's own word alone is no match, but a name"),
        pytest.param("web.high", "web", id="one word"),
        pytest.param("web.high.x", "web.high.x", id="two words for one"),
        pytest.param("w.k", "direct", id="the key itself"),
        pytest.param("both.x", "first", id="two queues: the first"),
        pytest.param("both.y", "second", id="the exact one before a pattern"),
        pytest.param("a(b", "a(b", id="no pattern at all"),
    ],
)
def test_the_bindings_of_an_exchange_tell_the_queue(routing_key: str, queue: str) -> None:
    bindings = [("feed.#", "feed"), ("web.*", "web"), ("w.k", "direct"), ("both.*", "first"), ("both.y", "second")]
    members = [SEPARATOR.join((key, "^pattern$", name)).encode() for key, name in bindings]
    assert queue_of(routing_key, [*members, b"\xff"]) == queue


@pytest.mark.real
def test_what_was_sent_by_an_exchange_is_active_in_its_queue(redis_url: str, watched: Watch) -> None:
    with client_library.Redis.from_url(redis_url) as redis:
        redis.hset("unacked", "1", message("feed.import", exchange="media"))
        redis.hset("unacked", "2", message("feed.import", exchange="gone", eta="2100-01-01T00:00:00"))
        redis.sadd("_kombu.binding.media", SEPARATOR.join(("feed.#", "^feed\\.*?$", "feeds")))
        redis.lpush("_kombu.binding.odd", "no set")
        redis.hset("unacked", "3", message("x", exchange="odd"))
    page = watched({"celery": [{"url": redis_url, "queues": [{"name": "feeds"}, {"name": "x"}]}]})
    assert (page.of("feeds")["messages active"], page.of("feeds")["messages delayed"]) == (1, 0)
    assert page.of("x")["messages active"] == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(message("a"), ("", "a", None), id="a message"),
        pytest.param(message("a", exchange=None), ("", "a", None), id="no exchange"),
        pytest.param(message("a", exchange="e"), ("e", "a", None), id="an exchange"),
        pytest.param(message("a", eta="2027-01-15T08:00:00+00:00"), ("", "a", NOW), id="with an ETA"),
        pytest.param(message("a", eta=None), ("", "a", None), id="with none"),
        pytest.param(b"{}", ("", "", None), id="another shape"),
        pytest.param(b"[1, 2, 3]", ("", "", None), id="no message in it"),
        pytest.param(b"\xff", ("", "", None), id="no text"),
        pytest.param(b"[" * 100_000, ("", "", None), id="JSON too deep to read"),
    ],
)
def test_where_a_taken_message_was_sent(text: bytes, expected: tuple[str, str, float | None]) -> None:
    assert destination(text) == Destination(*expected)


def test_a_worker_is_who_takes_and_listens() -> None:
    clients = b"""\
id=1 db=0 psub=0 cmd=brpop
id=2 db=0 psub=1 cmd=psubscribe
id=3 db=0 psub=0 cmd=brpop user=a plain worker
id=4 db=1 psub=1 cmd=psubscribe
id=5 db=0 psub=0 cmd=client|list
"""
    assert workers(clients, "0") == 1
    assert workers(clients, "1") == 0, "a monitor of events"
