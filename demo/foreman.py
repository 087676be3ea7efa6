"""The foreman of the demo's fleet: keeps as many worker processes alive as it was last told.

A worker that dies unasked is replaced, start-up time included, and its unfinished job goes back to the head of the
queue without counting as a new arrival. Scale-in ends starting workers first (the youngest first), then lets the
youngest ready ones finish their job. Every change is a line of `fleet.jsonl`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import redis

from demo import settings
from demo.fleet import socket_path
from demo.worker import put_back

TICK_SECONDS = 0.25
DRAIN_SECONDS = 15.0  # a stopping worker that needs longer is killed; a job takes half a second
RESPAWN_SECONDS = 1.0  # between two starts in one place, so that a worker that cannot start does not spin


class Stage(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True)
class Place:
    """One place of the fleet that a worker process fills."""

    process: asyncio.subprocess.Process
    stage: Stage
    since: float


class Foreman:
    """The fleet: `wanted` is changed by requests, `tick` brings the processes there."""

    def __init__(self, folder: Path, redis_url: str, start_up_seconds: float) -> None:
        self.folder = folder
        self.redis_url = redis_url
        self.start_up_seconds = start_up_seconds
        self.wanted = 0
        self.places: dict[int, Place] = {}
        self.unclean: set[int] = set()  # slots whose list may still hold a dead worker's job
        self.closed_until: dict[int, float] = {}
        self.client = redis.Redis.from_url(
            redis_url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None, protocol=2
        )
        self._minders: set[asyncio.Task[None]] = set()

    def state(self) -> dict[str, int]:
        stages = [place.stage for place in self.places.values()]
        return {
            "replicas": self.wanted,
            "ready": stages.count(Stage.READY),
            "starting": stages.count(Stage.STARTING),
            "draining": stages.count(Stage.DRAINING),
        }

    def note(self, event: str, slot: int | None = None) -> None:
        """One line of the fleet's timeline."""
        line = {"at": round(time.time(), 3), "event": event, "slot": slot, **self.state()}
        with (self.folder / "fleet.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps(line) + "\n")

    def want(self, replicas: int) -> None:
        if replicas != self.wanted:
            self.wanted = replicas
            self.note("wanted")

    async def tick(self) -> None:
        """Put back what dead workers left, then start or drain as many as it takes."""
        for slot in sorted(self.unclean):
            self._put_back(slot)
        staying = {slot: place for slot, place in self.places.items() if place.stage is not Stage.DRAINING}
        missing = self.wanted - len(staying)
        if missing > 0:
            now = time.monotonic()
            free = [
                slot
                for slot in range(1, settings.MAX_WORKERS + 1)
                if slot not in self.places and slot not in self.unclean and self.closed_until.get(slot, 0.0) <= now
            ]
            for slot in free[:missing]:
                await self.start(slot, self.start_up_seconds)
        for slot in leaving(staying, -missing):
            self._drain(slot)

    async def start(self, slot: int, start_up_seconds: float) -> None:
        arguments = ["--redis", self.redis_url, "--slot", str(slot), "--start-up", f"{start_up_seconds:g}"]
        with (self.folder / "workers.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "demo.worker", *arguments, "--foreman", str(os.getpid()),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        self.places[slot] = Place(process, Stage.STARTING, time.monotonic())
        self.closed_until[slot] = time.monotonic() + RESPAWN_SECONDS
        self.note("start", slot)
        minder = asyncio.create_task(self._mind(slot, self.places[slot]))
        self._minders.add(minder)
        minder.add_done_callback(self._minders.discard)

    async def _mind(self, slot: int, place: Place) -> None:
        """Hear the worker say `ready`, and see it end."""
        stdout = place.process.stdout
        said = await stdout.readline() if stdout is not None else b""
        if said.strip() == b"ready" and place.stage is Stage.STARTING:
            place.stage, place.since = Stage.READY, time.monotonic()
            self.note("ready", slot)
        code = await place.process.wait()
        del self.places[slot]
        if code != 0 or place.stage is not Stage.DRAINING:
            self.unclean.add(slot)
            print(f"fleet: worker {slot} ended unasked (status {code}); it will be replaced", flush=True)
            self.note("died", slot)
        else:
            self.note("drained", slot)

    def _drain(self, slot: int) -> None:
        place = self.places[slot]
        place.stage, place.since = Stage.DRAINING, time.monotonic()
        place.process.terminate()
        self.note("drain", slot)
        asyncio.get_running_loop().call_later(DRAIN_SECONDS, _kill, place.process)

    def _put_back(self, slot: int) -> None:
        """The dead worker's job goes to the end that is taken from next; the counter of arrivals stays as it is."""
        try:
            for _ in range(put_back(self.client, slot)):
                self.note("put back", slot)
        except redis.RedisError:
            return  # Redis is away: again at the next tick
        self.unclean.discard(slot)

    async def close(self) -> None:
        """Let every worker finish its job and wait for the last one."""
        for slot in list(self.places):
            if self.places[slot].stage is not Stage.DRAINING:
                self._drain(slot)
        if self._minders:
            await asyncio.wait(self._minders, timeout=DRAIN_SECONDS + 1.0)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            reply = self._reply(await asyncio.wait_for(reader.readline(), 2.0))
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    def _reply(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            match request:
                case {"do": "get"}:
                    return dict(self.state())
                case {"do": "set", "replicas": int(number)} if 0 <= number <= settings.MAX_WORKERS:
                    self.want(number)
                    return dict(self.state())
        except ValueError:
            request = line.decode(errors="replace")
        return {"error": f"fleet: found {request!r}; ask to get, or to set 0 to {settings.MAX_WORKERS} replicas"}


def leaving(staying: dict[int, Place], number: int) -> list[int]:
    """Which slots go when `number` (0 or less: none) are too many: starting ones first, of either kind the youngest."""
    order = sorted(staying, key=lambda slot: (staying[slot].stage is not Stage.STARTING, -staying[slot].since))
    return order[: max(0, number)]


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _serve(foreman: Foreman, workers: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    foreman.want(workers)
    for slot in range(1, workers + 1):
        await foreman.start(slot, 0.0)  # the fleet that was there before the demo: long past its start-up
    descriptor = os.open(foreman.folder, os.O_RDONLY | os.O_DIRECTORY)
    path = socket_path(descriptor)
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    server = await asyncio.start_unix_server(foreman.answer, path)
    try:
        while not stop.is_set():
            await foreman.tick()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_SECONDS)
    finally:
        server.close()
        await foreman.close()
        os.unlink(path)
        os.close(descriptor)


def serve(argv: list[str]) -> int:
    """The daemon behind `python -m demo.fleet serve`."""
    parser = argparse.ArgumentParser(prog="python -m demo.fleet serve", description="Keeps the demo's workers alive.")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where its socket and timeline are")
    parser.add_argument("--redis", required=True, metavar="URL", help="the queue's Redis")
    parser.add_argument("--start-up", type=float, default=60.0, metavar="SECONDS", help="a new worker's start-up time")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="workers that are there from the start")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.workers <= settings.MAX_WORKERS:
        parser.error(f"--workers: found {arguments.workers}; give 0 to {settings.MAX_WORKERS}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    asyncio.run(_serve(Foreman(arguments.folder, arguments.redis, arguments.start_up), arguments.workers))
    return 0
