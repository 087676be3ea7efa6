"""What every test may ask for: real servers, shared where they can be, and at the end what was skipped."""

import os
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import redis
import structlog

from testbed import fetch
from testbed.kube.fixtures import kube_cluster as kube_cluster
from testbed.kube.fixtures import kube_namespace as kube_namespace
from testbed.parts import Prometheus, Redis
from testbed.rabbitmq import RabbitMQ
from testbed.services import Moto, PostgreSQL
from tests.live_demo import Background, LiveDemo

# numpy, which nothing above imports, reads these once; on small matrices its threads cost twice the time they save
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

LIVE = pytest.StashKey[Background]()


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """A command under test sets up how logs are written; the next test begins without that."""
    yield
    if structlog.is_configured():
        structlog.reset_defaults()


@pytest.fixture(scope="session")
def parts_root() -> Path:
    """The tree of real parts; the first run on a machine fetches it. Skips the test where it cannot be had."""
    try:
        return fetch.ensure()
    except fetch.FetchError as error:
        pytest.skip(f"no real parts (Redis, Prometheus, Alertmanager): {error}")


@pytest.fixture(scope="session")
def redis_server(parts_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    """One Redis for the whole run. A test that stops or kills its Redis starts one of its own."""
    with Redis(tmp_path_factory.mktemp("redis"), root=parts_root) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The address of an empty Redis."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture(scope="session")
def services_root() -> Path:
    """The tree of the servers that exporters are tested on. Skips the test where it cannot be had."""
    try:
        return fetch.ensure_services()
    except fetch.FetchError as error:
        pytest.skip(f"no real services (PostgreSQL, RabbitMQ and others): {error}")


@pytest.fixture(scope="session")
def postgresql(services_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQL]:
    """One PostgreSQL for the whole run, with `pg_stat_statements` loaded."""
    with PostgreSQL(tmp_path_factory.mktemp("postgresql"), root=services_root) as server:
        yield server


@pytest.fixture
def postgresql_dsn(postgresql: PostgreSQL) -> Iterator[str]:
    """The address of a fresh database, as the superuser; it is dropped after the test."""
    name = postgresql.make_database()
    yield postgresql.dsn(name)
    postgresql.drop_database(name)


@pytest.fixture(scope="session")
def rabbitmq(services_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One RabbitMQ for the whole run, with its management and Prometheus plugins."""
    with RabbitMQ(tmp_path_factory.mktemp("rabbitmq"), root=services_root) as server:
        yield server


@pytest.fixture
def rabbitmq_vhost(rabbitmq: RabbitMQ) -> Iterator[str]:
    """A fresh virtual host; it is dropped after the test."""
    name = rabbitmq.make_vhost()
    yield name
    rabbitmq.drop_vhost(name)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """One fake AWS for the whole run."""
    pytest.importorskip("moto", reason="needs moto[server]")
    with Moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def moto_url(moto: Moto, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of a fake AWS that has nothing in it; credentials for it are in the environment."""
    moto.reset()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return moto.url


@pytest.fixture
def prometheus_factory(parts_root: Path, tmp_path: Path) -> Iterator[Callable[..., Prometheus]]:
    """Starts a Prometheus: `prometheus_factory(config_file, retention="10d", …)`; all are stopped after the test."""
    with ExitStack() as running:

        def start(config_file: Path, **options: object) -> Prometheus:
            folder = tmp_path / f"prometheus-{len(list(tmp_path.glob('prometheus-*')))}"
            return running.enter_context(Prometheus(folder, config_file, root=parts_root, **options))

        yield start


@pytest.fixture(scope="session")
def live_demo(parts_root: Path, pytestconfig: pytest.Config) -> LiveDemo:
    """One whole run of the shortened demo, for all tests that look at one. It began with the first test of the run."""
    return pytestconfig.stash[LIVE].result()


def _looks_at_the_demo(item: pytest.Item) -> bool:
    return "live_demo" in getattr(item, "fixturenames", ())


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that look at the live demo come last: it goes on beside the others. The first of them waits for its end."""
    for item in filter(_looks_at_the_demo, items):
        for mark in (pytest.mark.real, pytest.mark.demo, pytest.mark.timeout(500)):
            item.add_marker(mark)
    items.sort(key=_looks_at_the_demo)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin the demo, where a test that was selected looks at it; the others make way for it, for it measures."""
    if any(map(_looks_at_the_demo, session.items)) and not session.config.option.collectonly:
        session.config.stash[LIVE] = Background()
        os.nice(10)
        with suppress(OSError):  # where the kernel shares time between groups of processes first
            Path("/proc/self/autogroup").write_text("10")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """End it, whatever ended the run."""
    background = session.config.stash.get(LIVE, None)
    if background is not None:
        background.end(keep=session.testsfailed > 0)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # the outermost, so that this is the last section
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Generator[None]:
    """End the run with what was skipped and why."""
    yield
    tests_by_reason: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        tests_by_reason.setdefault(reason.removeprefix("Skipped: "), []).append(report.nodeid)
    not_selected = len(terminalreporter.stats.get("deselected", []))

    terminalreporter.write_sep("=", "skipped")
    count = sum(map(len, tests_by_reason.values()))
    terminalreporter.write_line(
        f"skipped: {count or 'none'}" + (f" ({not_selected} not selected)" if not_selected else "")
    )
    for reason, tests in tests_by_reason.items():
        terminalreporter.write_line(f"{reason}:")
        for test in tests:
            terminalreporter.write_line(f"  {test}")
