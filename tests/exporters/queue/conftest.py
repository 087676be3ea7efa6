"""What the tests of the queue exporter share: a page read as numbers, and Node.js programs that put and work jobs."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from exporters.collector import Collectors
from exporters.config import exporters_model
from exporters.queue import collectors
from exporters.runtime.config import validate
from testbed import fetch
from testbed.parts import Redis

NODE = Path(__file__).parent / "node"


class Watched:
    """The page of an `exporters.queue` section, scraped again at each question."""

    def __init__(self, section: Mapping[str, Any]) -> None:
        exporters: Any = validate(exporters_model(["queue"]), {"queue": section}, Path("t.yaml"), prefix=("exporters",))
        self.registry = CollectorRegistry()
        self.registry.register(Collectors(collectors(exporters.queue)))

    def series(self) -> dict[str, float]:
        """{series as on the page: value}, without the prefix `queue_`, the label `system` and buckets."""
        found: dict[str, float] = {}
        for line in generate_latest(self.registry).decode().splitlines():
            name, _, value = line.rpartition(" ")
            if name.startswith("queue_") and "_bucket{" not in name:
                labels = name.partition("{")[2].removesuffix("}").split(",")
                kept = ",".join(label for label in labels if not label.startswith("system="))
                found[f"{name.partition('{')[0].removeprefix('queue_')}{{{kept}}}"] = float(value)
        return found

    def of(self, queue: str) -> dict[str, float]:
        """{family, or family and state: value} of one queue: {"configured": 1, "messages ready": 3, …}."""
        label = f'queue="{queue}"'
        return {
            (name.partition("{")[0] + name.partition("}")[0].rpartition("{")[2].replace(label, "").replace("=", " "))
            .replace(",state ", " ")
            .replace('"', ""): value
            for name, value in self.series().items()
            if label in name
        }

    def success(self) -> bool:
        """Whether every collector read everything."""
        return all(
            sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "tidewise_exporter_collector_success"
        )


@pytest.fixture
def watched() -> Callable[[Mapping[str, Any]], Watched]:
    """Watch the queues of an `exporters.queue` section."""
    return Watched


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """Bull and BullMQ, installed once into the cache, as the lock says. Skips where there is no Node.js."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no Node.js with npm: Bull and BullMQ are not tried")
    lock = (NODE / "package-lock.json").read_bytes()
    cache = fetch.cache_folder()
    folder = cache / f"node-{hashlib.sha256(lock).hexdigest()[:12]}"
    if not folder.is_dir():
        fetch.make_cache(cache)
        with fetch.locked(cache, print):
            building = cache / f"building-{folder.name}"
            shutil.copytree(NODE, building, dirs_exist_ok=True)
            command = ["npm", "ci", "--omit=optional", "--ignore-scripts"]
            done = subprocess.run(command, cwd=building, capture_output=True, text=True, timeout=120)
            if done.returncode:
                shutil.rmtree(building)
                pytest.skip(f"npm cannot install Bull and BullMQ: {done.stderr.strip().splitlines()[-1:]}")
            building.rename(folder)
    return folder / "node_modules"


class Jobs:
    """A program that puts and works jobs of one queue: each step is done when the call returns."""

    def __init__(self, modules: Path, library: str, server: Redis, queue: str) -> None:
        self._process = subprocess.Popen(
            ["node", str(NODE / "jobs.js"), library, str(server.port), queue],
            env={**os.environ, "NODE_PATH": str(modules)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def __call__(self, step: str, *given: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps([step, *given]) + "\n")
        self._process.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout
        assert self._process.stdout.readline() == "ok\n", "the program has ended; its errors are above"

    def end(self) -> None:
        """End the program, as a crash would."""
        self._process.kill()
        self._process.wait()


@pytest.fixture
def jobs(node_modules: Path, redis_server: Redis) -> Iterator[Callable[[str, str], Jobs]]:
    """Start a program on the Redis of the run: jobs("bullmq", "emails")."""
    with ExitStack() as running:

        def start(library: str, queue: str) -> Jobs:
            program = Jobs(node_modules, library, redis_server, queue)
            running.callback(program.end)
            return program

        yield start
