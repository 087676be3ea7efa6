"""Redis as a database, on real servers."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as client_library
from hypothesis import given, settings
from hypothesis import strategies as st

from exporters.database.redis import info_fields, reason, redis_facts
from exporters.database.state import LAG
from exporters.labels import Cap
from testbed.parts import Redis, free_port


@pytest.fixture(scope="module")
def own(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """A Redis that these tests may set and stop."""
    with Redis(tmp_path_factory.mktemp("own"), root=parts_root) as server:
        yield server


@pytest.mark.real
def test_the_page_of_a_redis(redis_url: str, watched: Callable[..., Any]) -> None:
    with client_library.Redis.from_url(redis_url) as client:
        client.config_resetstat()
        client.config_set("maxmemory", 500_000_000)
        look = watched("redis", url=redis_url)
        assert look.series()["keys db0"] == 0
        client.set("a", 1)
        client.get("a")
        client.get("b")
        series = look.series()
        client.config_set("maxmemory", 0)
        assert "memory_max_bytes" not in look.series(), "no limit is no number"
    version = next(name for name in series if name.startswith("info "))
    moving = ("ping_seconds", "memory_used_bytes", "commands_total", "last_save_timestamp_seconds", "unsaved_changes")
    assert all(series.pop(name) > 0 for name in (*moving, version))
    assert series.pop("connections unblocked") >= 2
    assert series == {
        "up": 1, "connections blocked": 0, "connections_max": 10_000, "memory_max_bytes": 500_000_000, "replica": 0,
        "replicas": 0, "keys db0": 1, "evicted_keys_total": 0, "expired_keys_total": 0, "lookups_total hit": 1,
        "lookups_total miss": 1, "rejected_connections_total": 0, "persistence_ok rdb": 1,
    }  # fmt: skip


@pytest.mark.real
def test_a_replica_and_its_master(own: Redis, redis_url: str, watched: Callable[..., Any]) -> None:
    with client_library.Redis.from_url(own.url) as replica, client_library.Redis.from_url(redis_url) as master:
        master.config_set("repl-diskless-sync-delay", 0)
        replica.replicaof("127.0.0.1", redis_url.rsplit(":", 1)[1].split("/")[0])
        try:
            for _ in range(200):
                if (
                    master.info("replication").get("slave0", {}).get("state") == "online"
                    and replica.info("replication")["master_link_status"] == "up"
                ):
                    break
                master.blpop(["nothing-there"], timeout=0.05)
            seen = watched("redis", url=redis_url).series()
            name = f"127.0.0.1:{own.port}"
            assert (seen["replica"], seen["replicas"]) == (0, 1)
            assert seen[f"replication_lag_seconds {name}"] <= 2
            assert seen[f"replication_lag_bytes {name}"] >= 0
            itself = watched("redis", url=own.url).series()
            assert (itself["replica"], itself["replication_link_up"]) == (1, 1)
            assert itself["replication_lag_bytes self"] >= 0
        finally:
            replica.replicaof("NO", "ONE")


@pytest.mark.real
def test_a_redis_that_is_full_guarded_away_and_back(
    own: Redis, tmp_path: Path, watched: Callable[..., Any], log_events: Callable[[], list[tuple[str, str]]]
) -> None:
    secret = tmp_path / "password"
    secret.write_text("first\n")
    look = watched("redis", url=own.url, password_file=str(secret))
    with client_library.Redis.from_url(own.url) as admin:
        admin.config_set("requirepass", "first")
        assert look.series()["up"] == 1
        own.stop()
        assert look.series() == {"up": 0, "unreachable refused": 1}
        own.start()
        admin.config_set("requirepass", "second")
        assert look.series() == {"up": 0, "unreachable credentials": 1}
        secret.write_text("second")
        assert look.series()["up"] == 1
        admin.execute_command("AUTH", "second")
        admin.config_set("requirepass", "")
        admin.config_set("maxclients", 1)
        assert watched("redis", url=own.url).series() == {"up": 0, "unreachable connections_exhausted": 1}
        admin.config_set("maxclients", 100)
        admin.acl_setuser("watcher", enabled=True, nopass=True, commands=["+ping", "+info"])  # as docs say
        own_user = own.url.replace("redis://", "redis://watcher:x@")
        assert watched("redis", url=own_user).series()["up"] == 1
        admin.acl_setuser("watcher", enabled=True, nopass=True, commands=["-info"])
        with pytest.raises(PermissionError, match="the user needs the commands PING and INFO"):
            watched("redis", url=own_user).series()
    events = [event for event, _ in log_events()]
    assert events == ["database_down", "database_down", "database_up", "database_down"]
    assert not [text for _, text in log_events() if "second" in text]


def test_without_a_redis_it_is_down(watched: Callable[..., Any]) -> None:
    look = watched("redis", url=f"redis://127.0.0.1:{free_port()}")
    assert look.series() == {"up": 0, "unreachable refused": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Error 111 connecting to h:6379. Connection refused.", "refused"),
        ("Error -2 connecting to h:6379. Name or service not known.", "refused"),
        ("Timeout connecting to server", "timeout"),
        ("Timeout reading from h:6379", "timeout"),
        ("Redis is loading the dataset in memory", "starting"),
        ("invalid username-password pair or user is disabled.", "credentials"),
        ("Authentication required.", "credentials"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", "tls"),
        ("max number of clients reached", "connections_exhausted"),
        ("something new", "other"),
    ],
)
def test_reasons(text: str, expected: str) -> None:
    assert reason(text) == expected


def facts(text: str) -> dict[str, float]:
    cap = Cap("test", "replica", 1)
    found = {}
    for family, labels, value in redis_facts(info_fields(text.encode()), cap):
        found[" ".join([family.name.removeprefix("database_"), *labels])] = float(value)
    return found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", {"keys db0": 0}, id="nothing"),
        pytest.param("# Server\r\nredis_version:2.8\r\nnonsense\r\n", {"info 2.8": 1, "keys db0": 0}, id="an old one"),
        pytest.param(
            "rdb_last_bgsave_status:err\naof_enabled:1\naof_last_write_status:ok\naof_last_bgrewrite_status:err",
            {"persistence_ok rdb": 0, "persistence_ok aof": 0, "keys db0": 0},
            id="it cannot write to disk",
        ),
        pytest.param("aof_enabled:0\naof_last_write_status:err", {"keys db0": 0}, id="the AOF is off"),
        pytest.param("db3:keys=4,expires=1,avg_ttl=0\ndb0:keys=1", {"keys db3": 4, "keys db0": 1}, id="two databases"),
        pytest.param(
            "role:slave\nmaster_link_status:down\nslave_read_repl_offset:9\nslave_repl_offset:9\nconnected_slaves:0",
            {"replica": 1, "replication_link_up": 0, "replicas": 0, "keys db0": 0},
            id="a replica that lost its master does not know how far it is behind",
        ),
        pytest.param(
            "role:master\nmaster_repl_offset:100\nslave0:ip=a,port=1,state=online,offset=90,lag=1\n"
            "slave1:ip=b,port=1,state=online,offset=70,lag=0\nslave2:ip=c,port=1,state=wait_bgsave,offset=0,lag=9",
            {
                "replica": 0,
                "keys db0": 0,
                "replication_lag_seconds a:1": 1,
                "replication_lag_bytes a:1": 10,
                "replication_lag_seconds other": 0,
                "replication_lag_bytes other": 30,
            },
            id="replicas beyond the cap, and one that is not ready",
        ),
    ],
)
def test_what_info_tells(text: str, expected: dict[str, float]) -> None:
    assert facts(text) == expected
    assert LAG.labels[-1] == "replica"


WORDS = ["maxmemory", "connected_clients", "db0", "slave0", "role", "master_repl_offset", "aof_enabled", ":", "=", ","]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.one_of(st.sampled_from([*WORDS, "\r\n", "keys=", "lag=", "state=online", "slave", "1e999"]), st.text()))
)
def test_whatever_info_is_it_is_read(words: list[str]) -> None:
    text = "".join(words).encode("utf-8", "surrogatepass")
    for _, labels, value in redis_facts(info_fields(text), Cap("test", "replica", 3)):
        assert math.isfinite(value)
        assert all(label.encode() is not None for label in labels)
