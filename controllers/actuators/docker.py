"""Replicas of a Compose service, as containers that the Docker API creates, starts, ends and removes.

Nothing is remembered: each call goes on from the containers that are there. Creating is safe to repeat, for Docker
gives a name once and the name follows from the number. A container that has to go is marked, told to end, and removed
when it has ended, however long its last piece of work takes; the decision does not wait for that.
"""

import threading
import time
from collections.abc import Mapping
from typing import Any

import structlog

from controllers.actuators.compose_service import (
    LEAVING,
    ONE_OFF,
    PROJECT,
    SERVICE,
    Container,
    NoCopyError,
    copied,
    listed,
    name_of,
    pattern,
    planned,
    wanted,
)
from controllers.actuators.docker_daemon import Client, Daemon, NameTakenError, NotThereError
from controllers.actuators.interface import Actuator, ActuatorError, PermanentError
from controllers.config import DockerTarget
from controllers.domain import Replicas

log = structlog.get_logger()

GLANCE_SECONDS = 0.5  # so long a decision waits for containers that end at once
DEFAULT_GRACE_SECONDS = 10.0  # Docker's own
SPARE_SECONDS = 30.0  # beyond the grace period, for Docker to kill and clean up


def docker_actuator(target: DockerTarget) -> Actuator:
    """The actuator for `target.docker`."""
    service = _Service(target, Daemon(target))
    return Actuator(service.read_replicas, service.apply)


def grace_seconds(target: DockerTarget, seconds: float) -> float:
    """How long a busy container of the service gets to end. Raises ActuatorError."""
    if target.stop_seconds is not None:
        return target.stop_seconds
    daemon = Daemon(target)
    service = _Service(target, daemon)
    with daemon.client(time.monotonic() + seconds) as client:
        newest = pattern(service.containers(client))
        return DEFAULT_GRACE_SECONDS if newest is None else _stated(client, newest.id)


class _Service:
    def __init__(self, target: DockerTarget, daemon: Daemon) -> None:
        self._target = target
        self._daemon = daemon
        self._under_way: set[str] = set()  # ids whose end a thread of ours waits for
        self._lock = threading.Lock()

    def read_replicas(self, seconds: float) -> Replicas:
        with self._daemon.client(self._until(seconds)) as client:
            found = self.containers(client)
        up = wanted(found)
        leaving = [one for one in found if one.is_leaving]
        return Replicas(
            wanted=len(up),
            ready=sum(one.is_ready for one in up),
            draining=sum(one.is_up for one in leaving),
            unfinished=any(one.id not in self._ending() for one in leaving),
        )

    def apply(
        self, replicas: int, seconds: float, victims: tuple[str, ...] = (), in_hand: Mapping[str, float] | None = None
    ) -> None:
        with self._daemon.client(self._until(seconds)) as client:
            found = self.containers(client)
            plan = planned(found, replicas, victims, in_hand, self._ending())
            ends = [self._end(client, one, remove=True) for one in plan.stop]
            if plan.keep is not None:
                ends.append(self._end(client, plan.keep, remove=False))
            for one in plan.start:
                if one.is_leaving:
                    client.ask("rename", one.id, one.lasting_name)
                client.ask("start", one.id)
            if plan.create:
                self._create(client, found, plan.create)
        glance = time.monotonic() + GLANCE_SECONDS
        for thread in ends:
            thread.join(max(0.0, glance - time.monotonic()))

    def containers(self, client: Client) -> list[Container]:
        """All of the service, whatever their state. An error where there is none: nobody can tell that from a typo."""
        labels = [f"{PROJECT}={self._target.project}", f"{SERVICE}={self._target.service}", f"{ONE_OFF}=False"]
        rows = client.ask("containers", all=True, filters={"label": labels})
        if not rows:
            raise PermanentError(
                f"{self._where}: no container has these labels, not even a stopped one; create one with "
                f"`docker compose up --no-start {self._target.service}`, and check both names"
            )
        sound = client.ask("containers", filters={"label": labels, "health": ["healthy", "none"]})
        healthy = {row["Id"] for row in sound}
        return [listed(row, healthy) for row in rows]

    def _create(self, client: Client, found: list[Container], numbers: tuple[int, ...]) -> None:
        newest = pattern(found)
        assert newest is not None  # noqa: S101 - for the type checker: there is at least one
        inspected = client.ask("inspect_container", newest.id)
        image = str(inspected["Config"]["Image"])
        try:
            if client.ask("inspect_image", image)["Id"] != inspected["Image"]:
                image = str(inspected["Image"])  # the name has moved on to another one; the others run this
        except NotThereError:
            image = str(inspected["Image"])
        for done, number in enumerate(numbers):
            try:
                name = name_of(self._target.service, self._target.project, newest, number)
                body, networks = copied(inspected, name, number, image)
                self._start_new(client, name, body, networks)
            except NoCopyError as error:
                raise PermanentError(f"{self._where}: {error}") from None
            except NameTakenError:
                raise ActuatorError(
                    f"{self._where}: {name} was there already when it was to be created; does another scaler, or "
                    "somebody's `docker compose up`, work on it? The next decision starts from what is there"
                ) from None
            except ActuatorError as error:
                if not done:
                    raise
                raise type(error)(f"{error} ({done} of {len(numbers)} new ones were started before)") from None

    def _start_new(self, client: Client, name: str, body: Any, networks: Mapping[str, Any]) -> None:
        created = client.ask("create_container_from_config", body, name)["Id"]
        try:
            for network, endpoint in networks.items():
                client.connect(network, created, endpoint)
            client.ask("start", created)
        except ActuatorError as error:
            try:
                client.ask("remove_container", created, v=True, force=True)
            except ActuatorError as left:  # it is there, not started; the next attempt starts that one
                raise type(error)(f"{error}; and {name} could not be removed: {left}") from None
            raise

    def _end(self, client: Client, one: Container, *, remove: bool) -> threading.Thread:
        """Marks it, and has a thread see it to its end."""
        if not one.is_leaving:
            client.ask("rename", one.id, one.name + LEAVING)
        with self._lock:
            self._under_way.add(one.id)
        grace = self._target.stop_seconds
        thread = threading.Thread(
            target=self._see_to_its_end, args=(one, grace, remove), name=f"ends {one.name}", daemon=True
        )
        thread.start()
        return thread

    def _see_to_its_end(self, one: Container, grace_seconds: float | None, remove: bool) -> None:
        try:
            with self._daemon.client(self._until(self._target.timeout_seconds)) as client:
                if grace_seconds is None:
                    grace_seconds = _stated(client, one.id)
            with self._daemon.client(time.monotonic() + grace_seconds + SPARE_SECONDS) as client:
                client.stop(one.id, grace_seconds)
                if remove:
                    client.ask("remove_container", one.id, v=True)
                else:
                    client.ask("rename", one.id, one.lasting_name)
        except NotThereError:
            return  # somebody removed it, or Docker did (`--rm`)
        except ActuatorError as error:  # what is marked and still there is ended again with the next decision
            log.error("container_not_ended", container=one.name, error=str(error))
        finally:
            with self._lock:
                self._under_way.discard(one.id)

    def _ending(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._under_way)

    def _until(self, seconds: float) -> float:
        return time.monotonic() + min(seconds, self._target.timeout_seconds)

    @property
    def _where(self) -> str:
        return f"service {self._target.service} of project {self._target.project} at {self._target.host}"


def _stated(client: Client, container: str) -> float:
    """The container's own grace period."""
    stated = client.ask("inspect_container", container)["Config"].get("StopTimeout")
    return DEFAULT_GRACE_SECONDS if stated is None else float(stated)
