"""Redis streams, by redis-py on a real Redis."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import redis as client_library

from exporters.queue import redis_queues
from exporters.queue.redis_streams import ages, following

Watch = Callable[[Mapping[str, Any]], Any]


@pytest.mark.real
def test_what_a_group_has_not_seen_is_ready_and_what_it_has_not_acknowledged_is_active(
    redis_url: str, watched: Watch
) -> None:
    redis = client_library.Redis.from_url(redis_url)
    queue = {"name": "clicks", "stream": "s", "group": "g"}
    page = watched({"redis_streams": [{"url": redis_url, "queues": [queue]}]})
    assert page.of("clicks") == {
        "configured": 1,
        "messages ready": 0,
        "messages active": 0,
        "oldest_message_age_seconds ready": 0,
        "consumers": 0,
    }, "there is no stream yet"

    started = int(time.time() * 1000)
    for number in range(10):
        redis.xadd("s", {"n": number}, id=f"{started - 100_000 + number}-0")
    seen = page.of("clicks")
    assert (seen["messages ready"], seen["consumers"], seen["enqueued_total"]) == (10, 0, 10), "nor a group"
    redis.xgroup_create("s", "g", "0")
    for consumer, count in (("a", 3), ("b", 1)):
        redis.xreadgroup("g", consumer, {"s": ">"}, count=count)
    redis.xack("s", "g", f"{started - 100_000}-0", f"{started - 99_999}-0")
    seen = page.of("clicks")
    assert seen.pop("oldest_message_age_seconds ready") == pytest.approx(100, abs=5)
    assert seen.pop("oldest_message_age_seconds active") == pytest.approx(100, abs=5)
    assert seen == {
        "configured": 1,
        "messages ready": 6,
        "messages active": 2,
        "consumers": 2,
        "enqueued_total": 10,
        "completed_total": 2,
    }
    redis.xtrim("s", maxlen=1, approximate=False)
    assert page.of("clicks")["enqueued_total"] == 10, "a stream that is trimmed has had its entries"
    assert page.success()


@pytest.mark.real
def test_where_redis_does_not_know_the_lag_the_entries_are_counted_up_to_a_limit(
    redis_url: str, watched: Watch
) -> None:
    redis = client_library.Redis.from_url(redis_url)
    page = watched({"redis_streams": [{"url": redis_url, "queues": [{"name": "s", "group": "g"}]}]})
    ids = [redis.xadd("s", {"n": number}) for number in range(300)]
    redis.xgroup_create("s", "g", ids[0])  # a group that begins in the middle
    redis.xdel("s", ids[150])
    (group,) = redis.xinfo_groups("s")
    assert group["lag"] is None
    seen = page.of("s")
    assert seen["messages ready"] == 298
    assert "completed_total" not in seen, "how much the group has read is not known"
    for number in range(300):
        redis.xadd("s", {"n": number})
    assert "messages ready" not in page.of("s"), "too many to count: unknown, and not 0"
    redis.xtrim("s", maxlen=100, approximate=False)
    redis.xgroup_setid("s", "g", redis.xrange("s", count=1)[0][0])
    redis.xdel("s", redis.xrange("s")[50][0])
    assert page.of("s")["messages ready"] == 98
    redis.xadd("s", {"n": "x" * 20_000})
    assert "messages ready" not in page.of("s"), "too much to read only to count it"
    assert page.of("s")["messages active"] == 0


@pytest.mark.real
def test_streams_are_found_with_their_groups(redis_url: str, watched: Watch) -> None:
    redis = client_library.Redis.from_url(redis_url)
    redis.xadd("jobs:one", {"n": 1})
    redis.xadd("jobs:two", {"n": 1})
    redis.xgroup_create("jobs:two", "g", "0")
    redis.xgroup_create("jobs:two", "h", "0")
    redis.lpush("jobs:three", "x")
    redis.xadd("else", {"n": 1})
    page = watched({"redis_streams": [{"url": redis_url, "discover": "jobs:*"}]})
    assert {name for name in page.series() if name.startswith("configured")} == {
        'configured{queue="jobs:one"}',
        'configured{queue="jobs:two/g"}',
        'configured{queue="jobs:two/h"}',
    }
    assert page.of("jobs:one")["messages ready"] == 1


@pytest.mark.real
def test_a_stream_that_gets_its_group_later_is_not_there_twice(
    redis_url: str, watched: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_queues, "REST_SECONDS", 0)
    redis = client_library.Redis.from_url(redis_url)
    redis.xadd("jobs", {"n": 1})
    page = watched({"redis_streams": [{"url": redis_url, "discover": "jobs"}]})
    assert page.of("jobs")["messages ready"] == 1
    redis.xgroup_create("jobs", "g", "$")
    assert page.of("jobs/g")["messages ready"] == 0
    assert page.of("jobs") == {}, "what it holds was not put for nobody any more"
    redis.xgroup_destroy("jobs", "g")
    assert page.of("jobs/g") == {}, "a group that was taken away waits for nothing"
    assert page.of("jobs")["messages ready"] == 1


@pytest.mark.real
def test_a_key_that_is_no_stream_takes_only_its_own_queue(
    redis_url: str, watched: Watch, log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    client_library.Redis.from_url(redis_url).lpush("list", "x")
    page = watched({"redis_streams": [{"url": redis_url, "queues": [{"name": "list", "group": "g"}, {"name": "s"}]}]})
    for _ in range(2):
        assert page.of("list") == {}
        assert page.of("s")["messages ready"] == 0
    ((event, problem),) = log_events()
    assert event == "collector_incomplete"
    assert problem.startswith("queue 'list': XINFO STREAM of the key 'list' failed (WRONGTYPE")


def test_the_age_of_an_entry_is_in_its_id() -> None:
    assert ages(1_800_000_000, ready=b"1799999990000-3", active=None) == {"ready": 10, "active": 0}
    assert ages(1_800_000_000, ready=b"17-3") == {}, "an ID that the producer made up"
    assert ages(1_800_000_000, ready=b"1800000009000-0") == {"ready": 0}, "another clock"


def test_the_next_id() -> None:
    assert following(b"1799999990000-3") == "1799999990000-4"
