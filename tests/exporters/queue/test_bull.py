"""Bull and BullMQ, by their own libraries on a real Redis, and what they write that is easily misread."""

import base64
import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis as client_library

from exporters.queue.bull import delay_milliseconds, job_times, workers_by_queue

Watch = Callable[[Mapping[str, Any]], Any]
Start = Callable[[str, str], Any]


@pytest.mark.real
@pytest.mark.parametrize("library", ["bull", "bullmq"])
def test_each_job_is_in_one_state_and_finished_ones_tell_their_times(
    redis_url: str, watched: Watch, jobs: Start, library: str
) -> None:
    section = {library: [{"url": redis_url, "discover": "*", "queues": [{"name": "declared"}]}]}
    program = jobs(library, "emails")
    program("add", 1, {"milliseconds": 30}, {"delay": 1})  # due at once
    program("add", 3, {}, {})
    program("add", 2, {}, {"priority": 7})
    program("add", 4, {}, {"delay": 3_600_000})
    page = watched(section)

    assert page.of("declared") == {
        "configured": 1,
        "messages ready": 0,
        "messages active": 0,
        "messages delayed": 0,
        "messages failed": 0,
        "oldest_message_age_seconds ready": 0,
        "oldest_message_age_seconds active": 0,
        "consumers": 0,
        "enqueued_total": 0,
        "wait_seconds_count": 0,
        "wait_seconds_sum": 0,
        "process_seconds_count": 0,
        "process_seconds_sum": 0,
    }
    seen = page.of("emails")
    assert seen["messages ready"] == 5
    assert seen["messages delayed"] == 5
    assert 0 < seen["oldest_message_age_seconds ready"] < 10
    assert seen["enqueued_total"] == 10
    assert seen["consumers"] == 0
    assert "completed_total" not in seen, "no worker has counted anything yet"

    program("add", 1, {"fail": True}, {})
    program("add", 1, {"failAtFirst": True}, {"attempts": 2})
    program("work", 2)
    program("reach", 9)
    program("add", 2, {"hold": True}, {})
    program("add", 1, {}, {})
    seen = settled(page, "emails", "messages active", 2)
    assert seen["messages ready"] == 1
    assert seen["messages active"] == 2
    assert seen["messages delayed"] == 4
    assert seen["messages failed"] == 1
    assert seen["consumers"] == 1
    assert (seen["completed_total"], seen["failed_total"]) == (7, 1), "the library's own metrics"
    assert seen["enqueued_total"] == 15
    assert seen["wait_seconds_count"] == 7, "not of the one that was tried again: since when is not kept"
    assert seen["process_seconds_count"] == 8
    assert 0.02 < seen["process_seconds_sum"] < 5
    assert 0 < seen["oldest_message_age_seconds active"] < 10
    again = page.of("emails")
    assert again["process_seconds_count"] == 8, "a job is looked at once"

    program.end()
    fresh = watched(section)
    assert settled(fresh, "emails", "consumers", 0)["messages active"] == 2, "found again without any worker"
    assert fresh.of("emails")["wait_seconds_count"] == 0, "what was finished before the start is not counted"
    assert fresh.success()


def settled(page: Any, queue: str, name: str, value: float) -> dict[str, float]:
    """What is seen of the queue once that is so; within 5 seconds."""
    until = time.monotonic() + 5
    while (seen := page.of(queue))[name] != value and time.monotonic() < until:
        time.sleep(0.02)
    return dict(seen)


@pytest.mark.real
def test_a_parent_that_waits_for_its_children_is_delayed_and_paused_jobs_are_ready(
    redis_url: str, watched: Watch, jobs: Start
) -> None:
    program = jobs("bullmq", "flows")
    program("flow")
    program("add", 2, {}, {})
    program("pause")
    seen = watched({"bullmq": [{"url": redis_url, "queues": [{"name": "flows"}]}]}).of("flows")
    assert (seen["messages ready"], seen["messages delayed"]) == (2, 1)


@pytest.mark.real
def test_the_mark_by_which_older_versions_wake_workers_is_no_job(redis_url: str, watched: Watch) -> None:
    page = watched({"bullmq": [{"url": redis_url, "queues": [{"name": "q"}]}]})
    with client_library.Redis.from_url(redis_url) as redis:
        redis.lpush("bull:q:wait", "0:0")
        redis.zadd("bull:q:delayed", {"1": 1})
        seen = page.of("q")
        assert (seen["messages ready"], seen["oldest_message_age_seconds ready"]) == (0, 0)
        redis.lpush("bull:q:wait", "2")
        redis.hset("bull:q:2", "timestamp", int(time.time() * 1000) - 60_000)
        assert page.of("q")["messages ready"] == 1


@pytest.mark.real
def test_what_was_finished_is_counted_where_nothing_else_counts_it(redis_url: str, watched: Watch) -> None:
    page = watched({"bullmq": [{"url": redis_url, "queues": [{"name": "q"}], "count_finished": True}]})
    with client_library.Redis.from_url(redis_url) as redis:
        redis.zadd("bull:q:completed", {"before": 1000})
        assert page.of("q")["completed_total"] == 0
        redis.zadd("bull:q:completed", {f"job{number}": 1000 + number // 100 for number in range(500)})
        redis.zadd("bull:q:failed", {"x": 1001})
        seen = page.of("q")
        assert (seen["completed_total"], seen["failed_total"]) == (500, 1), "all of them, not only those looked at"
        redis.zadd("bull:q:completed", {"late": 1004})
        assert page.of("q")["completed_total"] == 501, "another one in the same millisecond"
        assert page.of("q")["completed_total"] == 501


@pytest.mark.real
def test_a_prefix_with_signs_of_a_pattern_finds_only_its_own_queues(redis_url: str, watched: Watch) -> None:
    with client_library.Redis.from_url(redis_url) as redis:
        for key in ("{a*}:one:meta", "{ab}:two:meta", "{a*}:three:x:meta"):
            redis.hset(key, "version", "bullmq")
    page = watched({"bullmq": [{"url": redis_url, "prefix": "{a*}", "discover": "*"}]})
    assert {name for name in page.series() if name.startswith("configured")} == {
        'configured{queue="one"}',
        'configured{queue="three:x"}',
    }


@pytest.mark.real
def test_what_the_server_does_not_tell_of_its_clients_is_no_number_of_consumers(redis_url: str, watched: Watch) -> None:
    with client_library.Redis.from_url(redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "few", "on", ">pass", "~bull:*", "+@read", "+scan")
        try:
            url = redis_url.replace("redis://", "redis://few:pass@")
            page = watched({"bull": [{"url": url, "queues": [{"name": "q"}]}]})
            assert "consumers" not in page.of("q")
            assert page.success()
        finally:
            admin.execute_command("ACL", "DELUSER", "few")


def test_workers_are_known_by_the_names_of_their_connections() -> None:
    names = {
        "bull:" + base64.b64encode(b"emails").decode(): "a worker",
        "bull:" + base64.b64encode(b"emails").decode() + ":w:mine": "a worker with a name",
        "bull:" + base64.b64encode(b"emails").decode() + ":qe": "somebody who listens for events",
        "bull:not base64": "somebody else",
        "other:" + base64.b64encode(b"emails").decode(): "another prefix",
        "": "no name",
    }
    clients = "\n".join(f"id=3 addr=127.0.0.1:1 name={name} age=1 cmd=bzpopmin" for name in names)
    assert workers_by_queue(clients.encode(), "bull") == {"emails": 2}


@pytest.mark.parametrize(
    ("values", "times"),
    [
        pytest.param((b"1000", b"{}", b"3000", b"4500", b"1", None), (1, 3, 4.5, 1), id="a finished job"),
        pytest.param((b"1000", b'{"delay":500}', None, None, None, None), (1.5, None, None, 0), id="a late one"),
        pytest.param((b"1000", b"[", None, None, None, None), (1, None, None, 0), id="options that are no JSON"),
        pytest.param((b"1000", None, b"2000", b"3000", b"2", None), (1, 2, 3, 2), id="tried again, by BullMQ"),
        pytest.param((b"1000", None, b"2000", b"3000", None, b"2"), (1, 2, 3, 2), id="tried again, by Bull"),
        pytest.param((None,) * 6, (None, None, None, 0), id="deleted meanwhile"),
        pytest.param((b"soon", b"{}", b"nan", b"inf", b"", b"x"), (None, None, None, 0), id="no numbers"),
    ],
)
def test_the_times_of_a_job(values: tuple[bytes | None, ...], times: tuple[Any, ...]) -> None:
    assert job_times(values) == times


@pytest.mark.parametrize("options", [b'{"delay":null}', b'{"delay":"1"}', b'{"delay":NaN}', b"null", b"[" * 9999])
def test_a_delay_that_is_no_number_is_none(options: bytes) -> None:
    assert delay_milliseconds(options) == 0
