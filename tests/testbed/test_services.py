"""The servers that exporters are tested on start, answer, and leave nothing behind."""

import os
import urllib.request
from pathlib import Path

import pytest

from testbed.parts import PartError, free_port, http_status, port_in_use
from testbed.rabbitmq import RabbitMQ
from testbed.services import (
    HAProxy,
    Moto,
    Nginx,
    NodeExporter,
    PostgresExporter,
    PostgreSQL,
    RedisExporter,
    Service,
)

pytestmark = pytest.mark.real

NGINX = """
log_format times '$request $status $request_time';
access_log access.log times;
server { listen 127.0.0.1:%d; location / { return 200 "here\\n"; } }
"""
HAPROXY = """
defaults
  mode http
  timeout client 5s
  timeout server 5s
  timeout connect 5s
frontend all
  bind 127.0.0.1:%d
  http-request return status 200
"""


def test_postgresql_stops_and_starts_again_on_its_data(tmp_path: Path, services_root: Path) -> None:
    with PostgreSQL(tmp_path, root=services_root, settings={"max_connections": "7"}) as server:
        name = server.make_database()
        server.execute("CREATE TABLE jobs AS SELECT current_setting('max_connections') AS kept", name)
        server.stop()
        assert not port_in_use(server.port)
        server.start()
        server.execute("INSERT INTO jobs SELECT kept FROM jobs WHERE kept = '7'", name)
        server.kill()
        server.start()
        server.drop_database(name)


def test_rabbitmq_answers_and_ends_with_all_it_started(rabbitmq: RabbitMQ, rabbitmq_vhost: str) -> None:
    assert {vhost["name"] for vhost in rabbitmq.api("GET", "/vhosts")} >= {"/", rabbitmq_vhost}
    assert http_status(rabbitmq.metrics_port, "/metrics") == 200
    with pytest.raises(PartError, match=r"GET /vhosts/nowhere was answered with 404"):
        rabbitmq.api("GET", "/vhosts/nowhere")


@pytest.mark.parametrize("kind", ["nginx", "haproxy"])
def test_a_web_server_serves_what_it_was_told(kind: str, tmp_path: Path, services_root: Path) -> None:
    port = free_port()
    make = {"nginx": (Nginx, NGINX), "haproxy": (HAProxy, HAPROXY)}
    server_class, config = make[kind]
    with server_class(tmp_path, config % port, port=port, root=services_root):
        assert http_status(port, "/") == 200
    assert not port_in_use(port)


def test_nginx_opens_its_log_anew(tmp_path: Path, services_root: Path) -> None:
    port = free_port()
    with Nginx(tmp_path, NGINX % port, port=port, root=services_root) as server:
        http_status(port, "/")
        os.rename(tmp_path / "access.log", tmp_path / "access.log.1")
        server.reopen()
        while not (tmp_path / "access.log").exists():
            http_status(port, "/")


def test_exporters_of_others_show_their_server(
    tmp_path: Path, services_root: Path, postgresql: PostgreSQL, redis_url: str
) -> None:
    exporters: list[tuple[Service, str]] = [
        (NodeExporter(tmp_path, flags=["--collector.disable-defaults", "--collector.loadavg"], root=services_root),
         "node_load1 "),
        (RedisExporter(tmp_path, flags=[f"--redis.addr={redis_url}"], root=services_root), "redis_up 1\n"),
        (PostgresExporter(tmp_path, postgresql.dsn(), root=services_root), "pg_up 1\n"),
    ]  # fmt: skip
    for exporter, line in exporters:
        with exporter, urllib.request.urlopen(f"{exporter.url}/metrics") as answer:
            assert f"\n{line}" in answer.read().decode()


def test_the_fake_aws_is_empty_for_each_test(moto: Moto, moto_url: str) -> None:
    assert moto_url == moto.url
    assert moto.answers()
