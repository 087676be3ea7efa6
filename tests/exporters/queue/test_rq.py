"""RQ, by its own library on a real Redis."""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
import redis as client_library
from rq import Queue, SimpleWorker
from rq.registry import ScheduledJobRegistry, StartedJobRegistry

from exporters.queue.rq import job_times

Watch = Callable[[Mapping[str, Any]], Any]


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def fail() -> None:
    raise RuntimeError("as told")


@pytest.mark.real
def test_each_job_is_in_one_state_and_finished_ones_tell_their_times(redis_url: str, watched: Watch) -> None:
    redis = client_library.Redis.from_url(redis_url)
    thumbnails, other = Queue("thumbnails", connection=redis), Queue("other", connection=redis)
    section = {"rq": [{"url": redis_url, "discover": "thumb*", "queues": [{"name": "declared"}]}]}
    page = watched(section)
    first = thumbnails.enqueue(sleep, 0.02)
    thumbnails.enqueue(fail)
    thumbnails.enqueue(sleep, 0, depends_on=thumbnails.enqueue(sleep, 0))
    thumbnails.enqueue_in(timedelta(hours=1), sleep, 0)
    other.enqueue(sleep, 0)
    waits = {
        "configured": 1,
        "messages ready": 3,
        "messages active": 0,
        "messages delayed": 2,
        "messages failed": 0,
        "consumers": 0,
        "wait_seconds_count": 0,
        "process_seconds_count": 0,
    }
    seen = page.of("thumbnails")
    assert {name: seen[name] for name in waits} == waits
    assert 0 <= seen["oldest_message_age_seconds ready"] < 10
    assert "completed_total" not in seen, "nobody counts"
    assert page.of("declared")["messages ready"] == page.of("declared")["oldest_message_age_seconds ready"] == 0
    assert page.of("other") == {}, "not what discover asks for"

    worker = SimpleWorker([thumbnails], connection=redis)
    worker.register_birth()
    assert page.of("thumbnails")["consumers"] == 1
    worker.register_death()
    worker.work(burst=True)
    StartedJobRegistry(queue=thumbnails).connection.zadd("rq:wip:thumbnails", {"a:b": time.time() + 60})
    seen = page.of("thumbnails")
    assert seen["messages ready"] == 0
    assert seen["messages active"] == 1
    assert seen["messages delayed"] == ScheduledJobRegistry(queue=thumbnails).count == 1
    assert seen["messages failed"] == 1
    assert seen["oldest_message_age_seconds ready"] == 0
    assert seen["wait_seconds_count"] == seen["process_seconds_count"] == 4
    assert 0.02 < seen["process_seconds_sum"] < 5
    assert page.of("thumbnails")["process_seconds_count"] == 4, "a job is looked at once"
    assert page.success()

    redis.sadd("rq:workers:thumbnails", "rq:worker:died")
    first.delete()
    seen = watched(section).of("thumbnails")
    assert seen["consumers"] == 0, "a worker that died is not one"
    assert seen["configured"] == 1, "the exporter started anew with no worker and an empty queue"


@pytest.mark.real
def test_what_was_finished_is_counted_where_that_is_wanted(redis_url: str, watched: Watch) -> None:
    redis = client_library.Redis.from_url(redis_url)
    page = watched({"rq": [{"url": redis_url, "queues": [{"name": "q"}], "count_finished": True}]})
    assert page.of("q")["completed_total"] == 0
    queue = Queue("q", connection=redis)
    for function in (sleep, sleep, fail):
        queue.enqueue(function, *([0] if function is sleep else []))
    SimpleWorker([queue], connection=redis).work(burst=True)
    seen = page.of("q")
    assert (seen["completed_total"], seen["failed_total"]) == (2, 1)
    queue.enqueue(sleep, 0, result_ttl=-1)  # is kept for ever, so its place in the registry tells no time
    SimpleWorker([queue], connection=redis).work(burst=True)
    seen = page.of("q")
    assert "completed_total" not in seen, "2 would be wrong"
    assert seen["failed_total"] == 1


@pytest.mark.parametrize(
    ("values", "times"),
    [
        pytest.param(
            (b"2027-01-15T08:00:00.5Z", b"2027-01-15T08:00:01.000000Z", b""),
            (1800000000.5, 1800000001, None),
            id="RQ 3",
        ),
        pytest.param((b"2027-01-15T08:00:00Z", None, None), (1800000000, None, None), id="without a fraction"),
        pytest.param((b"yesterday", b"\xff", None), (None, None, None), id="no times"),
    ],
)
def test_the_times_of_a_job(values: tuple[bytes | None, ...], times: tuple[float | None, ...]) -> None:
    assert job_times(values) == times
