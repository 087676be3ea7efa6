"""The containers of one Compose service as values: which are wanted, which go first, and what a further one looks like.

Everything is found by Compose's labels. A container that was told to end is marked in its name, the only thing of a
container that can be changed while it runs: so that also a scaler that was started since knows which are on their way
out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]

PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
NUMBER = "com.docker.compose.container-number"
ONE_OFF = "com.docker.compose.oneoff"
CONFIG_HASH = "com.docker.compose.config-hash"
REPLACES = "com.docker.compose.replace"

LEAVING = ".leaving"  # at the end of the name
_UP = ("running", "restarting", "paused")
_CAN_START = ("created", "exited")


class NoCopyError(Exception):
    """A further container of this service cannot be; the sentence says why and what to do."""


@dataclass(frozen=True, slots=True)
class Container:
    """As the daemon lists it. `aliases`: what work in hand may call it. `created`: Unix seconds."""

    id: str
    name: str
    number: int
    state: str
    created: int
    config: str  # hash of the service's settings that it was made from
    healthy: bool = True  # or without a check
    aliases: frozenset[str] = frozenset()

    @property
    def is_leaving(self) -> bool:
        return self.name.endswith(LEAVING)

    @property
    def is_up(self) -> bool:
        return self.state in _UP

    @property
    def is_ready(self) -> bool:
        return self.state == "running" and self.healthy

    @property
    def lasting_name(self) -> str:
        return self.name.removesuffix(LEAVING)


@dataclass(frozen=True, slots=True)
class Plan:
    """What makes a number of replicas out of what there is; empty where nothing has to be done.

    `stop` ends and removes, `keep` ends and keeps: the last of a service stays, stopped, for others to be copied from.
    `create`: numbers of new ones.
    """

    start: tuple[Container, ...] = ()
    create: tuple[int, ...] = ()
    stop: tuple[Container, ...] = ()
    keep: Container | None = None


def listed(row: Json, healthy: Iterable[str]) -> Container:
    """One row of the daemon's list. `healthy`: ids of those that are, or have no check."""
    labels: Mapping[str, str] = row.get("Labels") or {}
    name = min((name.lstrip("/") for name in row.get("Names") or [""]), key=len)
    networks = ((row.get("NetworkSettings") or {}).get("Networks") or {}).values()
    addresses = {str(one.get("IPAddress") or "") for one in networks} - {""}
    number = labels.get(NUMBER, "")
    return Container(
        id=str(row["Id"]),
        name=name,
        number=int(number) if number.isdigit() else 0,
        state=str(row.get("State", "")),
        created=int(row.get("Created") or 0),
        config=labels.get(CONFIG_HASH, ""),
        healthy=row["Id"] in set(healthy),
        aliases=frozenset({name, name.removesuffix(LEAVING), str(row["Id"]), str(row["Id"])[:12], *addresses}),
    )


def wanted(containers: Sequence[Container]) -> tuple[Container, ...]:
    """Those that were told to run."""
    return tuple(one for one in containers if one.is_up and not one.is_leaving)


def pattern(containers: Sequence[Container]) -> Container | None:
    """The one that further ones are copied from: the newest, which has the service's latest settings."""
    return max(containers, key=lambda one: (one.created, one.number), default=None)


def planned(
    containers: Sequence[Container],
    replicas: int,
    victims: Sequence[str] = (),
    in_hand: Mapping[str, float] | None = None,
    under_way: frozenset[str] = frozenset(),
) -> Plan:
    """What to do. `under_way`: ids of those whose end this process waits for already."""
    up = wanted(containers)
    left_over = [one for one in containers if one.is_leaving and one.id not in under_way]
    more = replicas - len(up)
    newest = pattern(containers)
    if more >= 0:
        fit = [
            one
            for one in containers
            if one.state in _CAN_START and newest and one.config == newest.config and one.id not in under_way
        ]
        start = tuple(sorted(fit, key=lambda one: (one.is_leaving, one.number))[:more])
        begun = {one.id for one in start}
        taken = {one.number for one in containers}
        free = (number for number in range(1, len(taken) + more + 1) if number not in taken)
        create = tuple(next(free) for _ in range(more - len(start)))
        stop = tuple(one for one in left_over if one.id not in begun)
    else:
        start, create = (), ()
        stop = (*_first_to_go(up, -more, victims, in_hand or {}), *left_over)
    going = {one.id for one in stop} | under_way
    if create or start or any(one.id not in going for one in containers):
        return Plan(start, create, stop)
    keep = min(stop, key=lambda one: (one is not newest, one.number), default=None)
    return Plan(start, create, tuple(one for one in stop if one is not keep), keep)


def _first_to_go(
    up: Sequence[Container], count: int, victims: Sequence[str], in_hand: Mapping[str, float]
) -> tuple[Container, ...]:
    """Victims, then what does not work, then the idlest (what says nothing last), then the newest number."""
    hands = {_host(name): work for name, work in in_hand.items()}

    def order(one: Container) -> tuple[bool, bool, float, int]:
        work = min((hands[alias] for alias in one.aliases if alias in hands), default=float("inf"))
        return not one.aliases.intersection(victims), one.is_ready, work if hands else 0.0, -one.number

    return tuple(sorted(up, key=order)[:count])


def _host(instance: str) -> str:
    """Without the port that Prometheus adds."""
    host, colon, port = instance.rpartition(":")
    return host.strip("[]") if colon and port.isdigit() else instance


def name_of(service: str, project: str, newest: Container, number: int) -> str:
    """As Compose names its containers, its first version too. Raises NoCopyError for a name of the service's own."""
    for separator in ("-", "_"):
        if newest.lasting_name == separator.join((project, service, str(newest.number))):
            return separator.join((project, service, str(number)))
    raise NoCopyError(
        f"its container is called {newest.lasting_name}, a name of its own (container_name), of which there "
        "can be one; take that out of the Compose file"
    )


def copied(inspected: Json, name: str, number: int, image: str) -> tuple[Json, dict[str, Json]]:
    """The body that creates a further container like `inspected`, and the networks to connect it to afterwards.

    What belongs to the one instance is left out: its host name, addresses, aliases of its own. A daemon before API
    1.44 takes one network when a container is created, so the others come later.
    """
    config, host = dict(inspected["Config"]), dict(inspected["HostConfig"])
    short, old_name = inspected["Id"][:12], str(inspected["Name"]).lstrip("/").removesuffix(LEAVING)
    config["Image"] = image
    config["Labels"] = {key: text for key, text in (config.get("Labels") or {}).items() if key != REPLACES} | {
        NUMBER: str(number)
    }
    if config.get("Hostname") == short:
        del config["Hostname"]
    config.pop("MacAddress", None)
    host.pop("ContainerIDFile", None)
    mode = str(host.get("NetworkMode") or "default")
    networks = {
        network: _endpoint(settings, short, old_name, name)
        for network, settings in ((inspected.get("NetworkSettings") or {}).get("Networks") or {}).items()
    }
    if mode in ("host", "none") or mode.startswith("container:"):
        networks = {}
    first = mode if mode in networks else next(iter(networks), None)
    at_once = {first: networks.pop(first)} if first is not None else {}
    return {**config, "HostConfig": host, "NetworkingConfig": {"EndpointsConfig": at_once}}, networks


def _endpoint(settings: Json, short: str, old_name: str, name: str) -> Json:
    aliases = [name if alias == old_name else alias for alias in settings.get("Aliases") or [] if alias != short]
    kept = {key: settings[key] for key in ("Links", "DriverOpts") if settings.get(key)}
    return {**kept, **({"Aliases": aliases} if aliases else {})}
