"""The load driver on a real Redis: on time, counted together with the job, honest about what it could not deliver."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from demo import settings
from demo.load import BURST_AGE_SECONDS, Driver, read_progress
from demo.settings import LoadPlan
from testbed.parts import Redis


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url, protocol=2, decode_responses=True) as connected:
        yield connected


def drive(plan: LoadPlan, folder: Path) -> None:
    Driver(plan, folder, threading.Event().wait).run()


@pytest.mark.real
def test_jobs_come_at_their_times_and_are_counted_from_where_history_ends(
    redis_url: str, client: redis.Redis, tmp_path: Path
) -> None:
    client.set(settings.ENQUEUED_KEY, 1000)
    start = time.time() + 0.1
    due = [start + 0.05 * index for index in range(20)]
    drive(LoadPlan(redis_url, due, end=start + 1.2, burst_at=None), tmp_path)
    jobs = [json.loads(text) for text in reversed(client.lrange(settings.QUEUE, 0, -1))]
    assert [job["enqueued_at"] for job in jobs] == pytest.approx(due, abs=0.25)
    assert all(job["enqueued_at"] >= at for job, at in zip(jobs, due, strict=True))
    assert len({job["id"] for job in jobs}) == 20
    assert client.get(settings.ENQUEUED_KEY) == "1020"
    progress = read_progress(tmp_path)
    assert progress is not None
    assert (progress.delivered, progress.undelivered, progress.finished) == (20, 0, True)
    assert len((tmp_path / "delivered.jsonl").read_text().splitlines()) == 20


@pytest.mark.real
def test_the_burst_is_marked_and_sized_by_the_fleet(redis_url: str, client: redis.Redis, tmp_path: Path) -> None:
    now = time.time()
    drive(LoadPlan(redis_url, [now + 0.1, now + 0.3], end=now + 0.4, burst_at=now + 0.2), tmp_path)
    jobs = [json.loads(text) for text in client.lrange(settings.QUEUE, 0, -1)]
    burst = [job for job in jobs if job.get("burst")]
    # no foreman answers here: the driver reckons with the largest fleet
    assert len(burst) == settings.MAX_WORKERS * 2 * BURST_AGE_SECONDS
    assert len(jobs) - len(burst) == 2
    progress = read_progress(tmp_path)
    assert progress is not None
    assert progress.burst_at == pytest.approx(now + 0.2, abs=0.2)


@pytest.mark.real
def test_what_falls_due_while_redis_is_away_is_counted_and_the_rest_comes_on_time(
    parts_root: Path, tmp_path: Path
) -> None:
    with Redis(tmp_path / "redis", root=parts_root) as queue:
        start = time.time() + 0.1
        plan = LoadPlan(queue.url, [start + 0.05 * index for index in range(80)], end=start + 4.0, burst_at=None)
        driver = threading.Thread(target=drive, args=(plan, tmp_path))
        driver.start()
        time.sleep(1.0)
        queue.kill()
        time.sleep(1.0)
        queue.start()
        driver.join(20.0)
        progress = read_progress(tmp_path)
        assert progress is not None
        assert progress.finished
        assert progress.delivered + progress.undelivered == progress.due == 80
        assert 10 <= progress.undelivered <= 45
        with redis.Redis.from_url(queue.url, protocol=2) as client:
            assert client.llen(settings.QUEUE) == int(client.get(settings.ENQUEUED_KEY)) > 0
