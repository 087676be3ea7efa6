"""The foreman of the demo's fleet: keeps as many worker processes as it was last told, and does not heal.

A worker that dies unasked leaves its place empty until someone asks for its restart (`tidewise recovery` does), which
takes a quarter of a start-up; its unfinished job goes back to the head of the queue at once, without counting as a new
arrival. Scale-in takes the workers that were named first, then empty places, starting workers, and the youngest ready
ones, which finish their job. Every change is a line of `fleet.jsonl`; `/metrics` tells of each worker.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import redis

from demo import settings
from demo.fleet import socket_path
from demo.gauges import Gauge, endpoint
from demo.settings import worker_name
from demo.worker import put_back

TICK_SECONDS = 0.25
DRAIN_SECONDS = 15.0  # a stopping worker that needs longer is killed; a job takes half a second
KILL_SECONDS = 2.0  # until a killed worker is gone


class Stage(StrEnum):
    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"


@dataclass(slots=True)
class Place:
    """One place of the fleet that a worker process fills. progress: when it last said that it takes turns."""

    process: asyncio.subprocess.Process
    stage: Stage
    since: float
    progress: float | None = None
    minder: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True)
class Equipment:
    """What every worker is started with. budget: the ledger's address and its token's file; None: no paid calls."""

    redis_url: str
    start_up_seconds: float
    budget: tuple[str, Path] | None = None

    def arguments(self, slot: int, start_up_seconds: float) -> list[str]:
        given = ["--redis", self.redis_url, "--slot", str(slot), "--start-up", f"{start_up_seconds:g}"]
        if self.budget is not None:
            given += ["--budget", self.budget[0], "--token-file", str(self.budget[1])]
        return [*given, "--foreman", str(os.getpid())]


class RefusedError(Exception):
    """A request that cannot be carried out. `str()` says why."""


class Foreman:
    """The fleet: `wanted` is changed by requests, `tick` brings the processes there."""

    def __init__(self, folder: Path, equipment: Equipment) -> None:
        self.folder = folder
        self.equipment = equipment
        self.wanted = 0
        self.places: dict[int, Place] = {}
        self.down: dict[int, float] = {}  # slots whose worker ended unasked: since when (monotonic)
        self.unclean: set[int] = set()  # slots whose list may still hold a dead worker's job
        self.victims: frozenset[str] = frozenset()  # who goes first, by name
        self.client = redis.Redis.from_url(
            equipment.redis_url, socket_timeout=0.5, socket_connect_timeout=0.5, retry=None, protocol=2
        )

    def state(self) -> dict[str, int]:
        stages = [place.stage for place in self.places.values()]
        return {
            "replicas": self.wanted,
            "ready": stages.count(Stage.READY),
            "starting": stages.count(Stage.STARTING),
            "draining": stages.count(Stage.DRAINING),
        }

    def gauges(self) -> Iterable[Gauge]:
        """What /metrics tells of each worker that should be there; called from another thread."""
        for slot in sorted(self.down.copy()):
            yield Gauge("fleet_worker_up", worker_name(slot), 0.0)
        for slot, place in sorted(self.places.copy().items()):
            if place.stage is not Stage.DRAINING and slot not in self.down:
                yield Gauge("fleet_worker_up", worker_name(slot), 1.0)
                if place.stage is Stage.READY and place.progress is not None:
                    yield Gauge("fleet_worker_last_progress_timestamp_seconds", worker_name(slot), place.progress)

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
        missing = self.wanted - len(staying) - len(self.down)
        if missing > 0:
            taken = {*self.places, *self.unclean, *self.down}
            free = [slot for slot in range(1, settings.MAX_WORKERS + 1) if slot not in taken]
            for slot in free[:missing]:
                await self.start(slot, self.equipment.start_up_seconds)
        for slot in leaving(staying, self.down, self.victims, -missing):
            if slot in self.down:
                del self.down[slot]
                self.note("given up", slot)
            else:
                self._drain(slot)

    async def start(self, slot: int, start_up_seconds: float) -> None:
        with (self.folder / "workers.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "demo.worker", *self.equipment.arguments(slot, start_up_seconds),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
            )  # fmt: skip
        place = self.places[slot] = Place(process, Stage.STARTING, time.monotonic())
        self.down.pop(slot, None)
        self.note("start", slot)
        place.minder = asyncio.create_task(self._mind(slot, place))

    async def restart(self, name: str) -> None:
        """End the worker of this name, however it is, and start it anew. Raises RefusedError."""
        slot = next((slot for slot in {*self.places, *self.down} if worker_name(slot) == name), None)
        place = self.places.get(slot) if slot is not None else None
        if slot is None or (place is not None and place.stage is Stage.DRAINING):
            raise RefusedError(f"{name}: no such worker, or it is on its way out")
        if place is not None:
            _kill(place.process)
            if place.minder is not None:
                await asyncio.wait([place.minder], timeout=KILL_SECONDS)
            if slot in self.places:
                raise RefusedError(f"{name}: did not end although it was killed")
        self._put_back(slot)
        if slot in self.unclean:
            raise RefusedError(f"{name}: Redis is away, so its job cannot be put back yet")
        self.note("restart", slot)
        await self.start(slot, settings.RESTART_SHARE * self.equipment.start_up_seconds)

    async def _mind(self, slot: int, place: Place) -> None:
        """Hear the worker say `ready` and that it takes turns, and see it end."""
        while place.process.stdout is not None and (said := await place.process.stdout.readline()):
            place.progress = time.time()
            if said.strip() == b"ready" and place.stage is Stage.STARTING:
                place.stage, place.since = Stage.READY, time.monotonic()
                self.note("ready", slot)
        code = await place.process.wait()
        del self.places[slot]
        if place.stage is not Stage.DRAINING:
            self.down[slot] = time.monotonic()
            self.unclean.add(slot)
            print(f"fleet: {worker_name(slot)} ended unasked (status {code}); its place stays empty", flush=True)
            self.note("died", slot)
        else:
            if code != 0:
                self.unclean.add(slot)
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
        """Let every worker finish its job and wait for the last one; one that is stopped goes on for that."""
        for slot, place in list(self.places.items()):
            if place.stage is not Stage.DRAINING:
                self._drain(slot)
            with contextlib.suppress(ProcessLookupError):
                place.process.send_signal(signal.SIGCONT)
        minders = [place.minder for place in self.places.values() if place.minder is not None]
        if minders:
            await asyncio.wait(minders, timeout=DRAIN_SECONDS + 1.0)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.TimeoutError):
            line = await asyncio.wait_for(reader.readline(), 2.0)
            try:
                reply = await self._reply(line)
            except RefusedError as error:
                reply = {"error": f"fleet: {error}"}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()

    async def _reply(self, line: bytes) -> dict[str, object]:
        try:
            request = json.loads(line)
            match request:
                case {"do": "get"}:
                    return dict(self.state())
                case {"do": "set", "replicas": int(number)} if 0 <= number <= settings.MAX_WORKERS:
                    self.victims = frozenset(str(name) for name in request.get("first", []))
                    self.want(number)
                    return dict(self.state())
                case {"do": "restart", "worker": str(name)}:
                    await self.restart(name)
                    return {"restarted": name}
                case {"do": "workers"}:
                    return {"workers": [self._worker(slot) for slot in sorted({*self.places, *self.down})]}
        except ValueError:
            request = line.decode(errors="replace")
        return {"error": f"fleet: found {request!r}; ask to get, or to set 0 to {settings.MAX_WORKERS} replicas"}

    def _worker(self, slot: int) -> dict[str, object]:
        place = self.places.get(slot)
        return {
            "worker": worker_name(slot),
            "stage": place.stage if place is not None else "down",
            "pid": place.process.pid if place is not None else None,
            "since": round(place.since if place is not None else self.down[slot], 3),
        }


def leaving(staying: dict[int, Place], down: dict[int, float], victims: frozenset[str], number: int) -> list[int]:
    """Which slots go when `number` (0 or less: none) are too many.

    Those named first, then the empty ones, then starting workers, of any kind the youngest.
    """

    def order(slot: int) -> tuple[bool, bool, bool, float]:
        place = staying.get(slot)
        since = down[slot] if place is None else place.since
        return (
            worker_name(slot) not in victims,
            place is not None,
            place is None or place.stage is not Stage.STARTING,
            -since,
        )

    return sorted({*staying, *down}, key=order)[: max(0, number)]


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()


async def _serve(foreman: Foreman, workers: int, port: int | None) -> None:
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
    metrics = endpoint(foreman.gauges, port) if port is not None else None
    try:
        while not stop.is_set():
            await foreman.tick()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_SECONDS)
    finally:
        server.close()
        await foreman.close()
        if metrics is not None:
            metrics.stop()
        os.unlink(path)
        os.close(descriptor)


def serve(argv: list[str]) -> int:
    """The daemon behind `python -m demo.fleet serve`."""
    parser = argparse.ArgumentParser(prog="python -m demo.fleet serve", description="Keeps the demo's workers.")
    parser.add_argument("--folder", type=Path, default=Path(".demo"), help="where its socket and timeline are")
    parser.add_argument("--redis", required=True, metavar="URL", help="the queue's Redis")
    parser.add_argument("--start-up", type=float, default=60.0, metavar="SECONDS", help="a new worker's start-up time")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="workers that are there from the start")
    parser.add_argument("--metrics-port", type=int, default=None, metavar="PORT", help="where /metrics is served")
    parser.add_argument("--budget", default=None, metavar="URL", help="the ledger, for paid calls")
    parser.add_argument("--token-file", type=Path, default=None, metavar="FILE", help="the ledger's bearer token")
    arguments = parser.parse_args(argv)
    if not 0 <= arguments.workers <= settings.MAX_WORKERS:
        parser.error(f"--workers: found {arguments.workers}; give 0 to {settings.MAX_WORKERS}")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    paid = arguments.budget is not None and arguments.token_file is not None
    equipment = Equipment(
        arguments.redis, arguments.start_up, (arguments.budget, arguments.token_file) if paid else None
    )
    asyncio.run(_serve(Foreman(arguments.folder, equipment), arguments.workers, arguments.metrics_port))
    return 0
