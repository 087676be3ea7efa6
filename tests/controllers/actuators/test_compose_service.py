"""What makes a number of replicas out of the containers there are, and what a further one looks like."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as some

from controllers.actuators.compose_service import LEAVING, Container, copied, pattern, planned, wanted

STATES = ("created", "running", "restarting", "paused", "exited", "dead")


@some.composite
def services(draw: some.DrawFn) -> list[Container]:
    numbers = draw(some.lists(some.integers(1, 9), min_size=1, max_size=7, unique=True))
    return [
        Container(
            id=str(number),
            name=f"shop-worker-{number}{draw(some.sampled_from(('', LEAVING)))}",
            number=number,
            state=draw(some.sampled_from(STATES)),
            created=draw(some.integers(0, 3)),
            config=draw(some.sampled_from(("old", "new"))),
            healthy=draw(some.booleans()),
            aliases=frozenset({f"shop-worker-{number}"}),
        )
        for number in numbers
    ]


names = some.integers(1, 9).map(lambda number: f"shop-worker-{number}")


@given(
    services(),
    some.integers(0, 9),
    some.lists(names, max_size=3),
    some.dictionaries(names, some.floats(0, 9), max_size=4),
    some.frozensets(some.integers(1, 9).map(str), max_size=2),
)
def test_the_plan_comes_to_the_number_and_leaves_one_to_copy_from(
    before: list[Container], replicas: int, victims: list[str], in_hand: dict[str, float], waited_for: frozenset[str]
) -> None:
    under_way = frozenset(one.id for one in before if one.is_leaving and one.id in waited_for)
    plan = planned(before, replicas, victims, in_hand, under_way)
    ended = {one.id for one in (*plan.stop, *filter(None, [plan.keep]))}
    started = {one.id for one in plan.start}
    assert not ended & started
    assert not (ended | started) & under_way  # nobody touches what is waited for
    after = [one for one in before if one.id not in {gone.id for gone in plan.stop} | under_way]
    after = [
        replace(one, state="exited", name=one.lasting_name) if plan.keep and one.id == plan.keep.id else one
        for one in after
    ]
    after = [replace(one, state="running", name=one.lasting_name) if one.id in started else one for one in after]
    template = pattern(before)
    assert template is not None
    after += [replace(template, id=f"new{n}", name=f"w{n}", number=n, state="running") for n in plan.create]
    assert len(wanted(after)) == replicas
    assert after or under_way  # the last of all stays
    taken = [one.number for one in before] + list(plan.create)
    assert len(taken) == len(set(taken))
    # no more are told to end than the number wants
    assert len(ended - {one.id for one in before if one.is_leaving}) == max(0, len(wanted(before)) - replicas)


@given(services())
def test_the_same_number_again_finds_nothing_to_do(before: list[Container]) -> None:
    sound = [replace(one, state="running", name=one.lasting_name) for one in before]
    plan = planned(sound, len(sound))
    assert (plan.start, plan.create, plan.stop, plan.keep) == ((), (), (), None)


def test_a_copy_has_what_is_the_services_and_not_what_was_the_ones() -> None:
    inspected = {
        "Id": "abcdef0123456789" * 4,
        "Name": "/shop-worker-1",
        "Config": {
            "Hostname": "abcdef012345",
            "Image": "worker:1",
            "MacAddress": "02:42:00:00:00:01",
            "Labels": {"com.docker.compose.container-number": "1", "com.docker.compose.replace": "x", "mine": "kept"},
        },
        "HostConfig": {"NetworkMode": "front", "ContainerIDFile": "", "Memory": 64},
        "NetworkSettings": {
            "Networks": {
                "back": {"Aliases": ["abcdef012345"], "IPAddress": "10.0.0.2"},
                "front": {
                    "Aliases": ["shop-worker-1", "worker", "abcdef012345"],
                    "IPAMConfig": {"IPv4Address": "10.0.1.2"},
                    "DriverOpts": {"a": "b"},
                },
            }
        },
    }
    body, later = copied(inspected, "shop-worker-2", 2, "worker:1")
    assert body == {
        "Image": "worker:1",
        "Labels": {"com.docker.compose.container-number": "2", "mine": "kept"},
        "HostConfig": {"NetworkMode": "front", "Memory": 64},
        "NetworkingConfig": {
            "EndpointsConfig": {"front": {"DriverOpts": {"a": "b"}, "Aliases": ["shop-worker-2", "worker"]}}
        },
    }
    assert later == {"back": {}}


def test_a_container_on_the_hosts_network_has_none_of_its_own() -> None:
    inspected = {
        "Id": "a" * 64,
        "Name": "/shop-worker-1",
        "Config": {"Hostname": "the-host"},
        "HostConfig": {"NetworkMode": "host"},
        "NetworkSettings": {"Networks": {"host": {}}},
    }
    body, later = copied(inspected, "shop-worker-2", 2, "i")
    assert (body["NetworkingConfig"], later, body["Hostname"]) == ({"EndpointsConfig": {}}, {}, "the-host")
