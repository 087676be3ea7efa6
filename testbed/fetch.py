"""Fetches the real parts into a cache folder outside the tree, once, and unpacks them there; nothing is installed.

Redis comes from the machine's own distribution. Prometheus, promtool, Alertmanager and amtool come from one Debian
release on every machine, so that demo, tests and benchmarks meet the same versions everywhere. The servers that only
tests and benchmarks of the exporters need (PostgreSQL, RabbitMQ and others) are a second tree, fetched when asked for.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from testbed.apt import FetchError as FetchError
from testbed.apt import Host, PrivateApt, essential_status, read_host, unpack

HOST_PACKAGES = ("redis-server",)
DEBIAN_SUITE = "trixie"
# Exactly these: the programs need nothing but the C library, the rest is what Prometheus's classic pages load.
DEBIAN_PACKAGES = (
    "prometheus",
    "promtool",
    "prometheus-alertmanager",
    "fonts-glyphicons-halflings",
    "libjs-bootstrap4",
    "libjs-d3",
    "libjs-eonasdan-bootstrap-datetimepicker",
    "libjs-jquery",
    "libjs-jquery-hotkeys",
    "libjs-moment",
    "libjs-moment-timezone",
    "libjs-mustache",
    "libjs-popper.js",
    "libjs-rickshaw",
)
PROGRAMS = ("redis-server", "prometheus", "promtool", "prometheus-alertmanager", "amtool")
# The second tree, all of the machine's own distribution.
SERVICE_PACKAGES = (
    "postgresql",
    "rabbitmq-server",
    "haproxy",
    "nginx",
    "prometheus-node-exporter",
    "prometheus-redis-exporter",
    "prometheus-postgres-exporter",
)
# Needed by what is above only for what nobody does here: compile queries, translate, manage clusters and services.
SERVICES_GO_WITHOUT = re.compile(
    "libllvm|libz3|locales|libc-l10n|perl|libperl|libjson-perl|python3|libpython3|rpcsvc|cron|procps|logrotate|socat|"
    "iproute2|libbpf|libelf|postgresql-common|postgresql-client-common|erlang-snmp|openssl|ssl-cert|ucf|daemon|adduser"
)
SERVICE_PROGRAMS = (
    "usr/lib/postgresql/*/bin/postgres",
    "usr/lib/postgresql/*/bin/psql",
    "usr/lib/rabbitmq/lib/*/plugins",
    "usr/lib/erlang/erts-*/bin/erlexec",
    "usr/sbin/haproxy",
    "usr/sbin/nginx",
    "usr/bin/prometheus-node-exporter",
    "usr/bin/prometheus-redis-exporter",
    "usr/bin/prometheus-postgres-exporter",
)
# The third tree: a Docker daemon of one's own, and the program that its containers run.
DOCKER_PACKAGES = ("docker.io", "busybox-static")
DOCKER_GOES_WITHOUT = re.compile(
    "iptables|libip4tc|libip6tc|libnetfilter|libnfnetlink|libnftnl|libxtables|netbase|tini"
)
DOCKER_PROGRAMS = ("usr/sbin/dockerd", "usr/bin/containerd", "usr/*bin/runc", "*bin/busybox")
RECIPE = 1  # one more whenever what is done to the packages changes, so that caches are made anew
ROOM_BYTES = 700_000_000  # lists, archives and the unpacked tree at their largest

# Debian's Alertmanager opens its built-in template by this absolute path and stops without it.
TEMPLATE_FOLDER = b"/usr/share/prometheus/alertmanager"


def ensure(progress: Callable[[str], None] = print) -> Path:
    """The root of the unpacked tree; fetched first when the cache has none. FetchError says what to do.

    progress: is told in short lines what happens; not called when the tree is there already.
    """
    host = read_host()
    return _ensure(cache_folder() / tree_name(host), lambda tree: fetch(host, tree, progress), progress)


def ensure_services(progress: Callable[[str], None] = print) -> Path:
    """The root of the second tree, as `ensure()` is of the first: the servers that exporters are tested on."""
    host = read_host()
    tree = services_folder() / services_tree_name(host)
    return _ensure(tree, lambda tree: fetch_services(host, tree, progress), progress)


def ensure_docker(progress: Callable[[str], None] = print) -> Path:
    """The root of the third tree, as `ensure()` is of the first: a Docker daemon (`testbed.docker` starts it)."""
    host = read_host()
    tree = cache_folder() / docker_tree_name(host)
    return _ensure(tree, lambda tree: fetch_docker(host, tree, progress), progress)


def _ensure(tree: Path, make: Callable[[Path], None], progress: Callable[[str], None]) -> Path:
    if tree.is_dir():
        return tree
    make_cache(tree.parent)
    with locked(tree.parent, progress):
        if not tree.is_dir():  # else another program has fetched it while this one waited
            make(tree)
    return tree


def find() -> Path | None:
    """The root of the unpacked tree when the cache has it, else None."""
    tree = cache_folder() / tree_name(read_host())
    return tree if tree.is_dir() else None


def find_services() -> Path | None:
    """The root of the second tree when the cache has it, else None."""
    tree = services_folder() / services_tree_name(read_host())
    return tree if tree.is_dir() else None


def clean() -> int:
    """Remove everything fetched, for every release; returns how many trees that were."""
    removed = 0
    for cache in {cache_folder(), services_folder()}:
        if cache.is_dir():
            with locked(cache, print):
                trees = [
                    tree for kind in ("parts", "services", "docker", "building") for tree in cache.glob(f"{kind}-*")
                ]
                for tree in trees:
                    shutil.rmtree(tree)
                removed += len(trees)
    return removed


def environment(root: Path) -> dict[str, str]:
    """The environment in which the tree's programs find their libraries."""
    folders = [str(folder) for top in ("usr/lib", "lib") for folder in sorted((root / top).glob("*-linux-*"))]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(folders)}


def cache_folder() -> Path:
    """$TIDEWISE_CACHE, else $XDG_CACHE_HOME/tidewise, else ~/.cache/tidewise."""
    if chosen := os.environ.get("TIDEWISE_CACHE"):
        return Path(chosen).absolute()
    if caches := os.environ.get("XDG_CACHE_HOME"):
        return Path(caches).absolute() / "tidewise"
    return Path.home() / ".cache" / "tidewise"


def services_folder() -> Path:
    """Where the second tree is: the cache folder, for root one that every user can enter.

    PostgreSQL refuses root and runs as another user, who cannot get through root's home.
    """
    cache = cache_folder()
    if os.environ.get("TIDEWISE_CACHE") or os.geteuid() != 0:
        return cache
    entered = (folder.stat().st_mode & 0o001 for folder in (cache, *cache.parents) if folder.is_dir())
    return cache if all(entered) else Path("/var/cache/tidewise")


def tree_name(host: Host) -> str:
    """The tree's folder: another release, machine or list of packages is another tree."""
    lists = repr((host, platform.machine(), HOST_PACKAGES, DEBIAN_SUITE, DEBIAN_PACKAGES, RECIPE))
    return f"parts-{host.codename}-{hashlib.sha256(lists.encode()).hexdigest()[:12]}"


def services_tree_name(host: Host) -> str:
    """The second tree's folder."""
    lists = repr((host, platform.machine(), SERVICE_PACKAGES, SERVICES_GO_WITHOUT.pattern, RECIPE))
    return f"services-{host.codename}-{hashlib.sha256(lists.encode()).hexdigest()[:12]}"


def docker_tree_name(host: Host) -> str:
    """The third tree's folder."""
    lists = repr((host, platform.machine(), DOCKER_PACKAGES, DOCKER_GOES_WITHOUT.pattern, RECIPE))
    return f"docker-{host.codename}-{hashlib.sha256(lists.encode()).hexdigest()[:12]}"


def make_cache(cache: Path) -> None:
    """Make the cache folder, where it can be written, named and has room."""
    if re.search(r"[\s:\"'\[\]]", str(cache)):
        raise FetchError(
            f"the cache folder {str(cache)!r} has a blank, colon, quote or bracket in its path, which apt cannot take: "
            "set TIDEWISE_CACHE to another folder"
        )
    try:
        cache.mkdir(parents=True, exist_ok=True)
        # Every user who can come here can use what is in it.
        cache.chmod(0o755)
    except OSError as error:
        raise FetchError(
            f"cannot make the cache folder {cache} ({error.strerror}): set TIDEWISE_CACHE to a folder of yours"
        ) from error
    free = shutil.disk_usage(cache).free
    if free < ROOM_BYTES:
        raise FetchError(
            f"{cache} has {free / 1e6:.0f} MB free, {ROOM_BYTES / 1e6:.0f} MB are needed: "
            "free some, or set TIDEWISE_CACHE to a folder with room"
        )


@contextlib.contextmanager
def locked(cache: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the cache's lock; wait, and say so, while another program has it. It ends with the program that holds it."""
    with (cache / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("testbed: another program is fetching the parts; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fetch(host: Host, tree: Path, progress: Callable[[str], None]) -> None:
    """Fetch and unpack into a fresh folder beside `tree`, then rename: `tree` is complete or not there."""
    started = time.monotonic()
    progress(
        f"testbed: fetching Redis, Prometheus and Alertmanager into {tree.parent}; about half a minute, only this once"
    )
    with _building(tree) as root:
        building = root.parent
        progress(f"testbed: 1/4 package lists of {host.codename}")
        own, own_address = _apt_of_host(host, building / "own")
        progress("testbed: 2/4 Redis")
        unpack(own.download_with_dependencies(*HOST_PACKAGES), root)
        keys = building / "keys"
        unpack(own.download("debian-archive-keyring"), keys)
        mirror = os.environ.get("TIDEWISE_DEBIAN_MIRROR") or debian_mirror(host, own, own_address, building / "mirror")

        progress(f"testbed: 3/4 package lists of Debian {DEBIAN_SUITE}")
        debian = PrivateApt(building / "debian")
        keyring = keys / "usr/share/keyrings/debian-archive-keyring.gpg"
        debian.update([(mirror, DEBIAN_SUITE)], "main", keyring, DEBIAN_SUITE)
        progress("testbed: 4/4 Prometheus and Alertmanager (50 MB)")
        unpack(debian.download(*DEBIAN_PACKAGES), root)

        relocate_template(root / "usr/bin/prometheus-alertmanager")
        missing = [program for program in PROGRAMS if not (root / "usr/bin" / program).is_file()]
        if missing:
            raise FetchError(f"the packages hold no {', '.join(missing)}: their lists in {__file__} need a look")
    progress(f"testbed: parts ready after {time.monotonic() - started:.0f} s")


def fetch_services(host: Host, tree: Path, progress: Callable[[str], None]) -> None:
    """Fetch and unpack the second tree, in the same way."""
    started = time.monotonic()
    progress(f"testbed: fetching PostgreSQL, RabbitMQ and others into {tree.parent} (140 MB), only this once")
    with _building(tree) as root:
        progress(f"testbed: 1/2 package lists of {host.codename}")
        own, _ = _apt_of_host(host, root.parent / "own")
        progress("testbed: 2/2 PostgreSQL, RabbitMQ, HAProxy, nginx and three exporters of Prometheus")
        archives = own.download_with_dependencies(*SERVICE_PACKAGES)
        unpack([archive for archive in archives if not SERVICES_GO_WITHOUT.match(archive.name)], root)
        for folder in ("doc", "man", "locale", "lintian"):
            shutil.rmtree(root / "usr/share" / folder, ignore_errors=True)
        missing = [pattern for pattern in SERVICE_PROGRAMS if not any(root.glob(pattern))]
        if missing:
            raise FetchError(f"the packages hold no {', '.join(missing)}: their lists in {__file__} need a look")
    progress(f"testbed: services ready after {time.monotonic() - started:.0f} s")


def fetch_docker(host: Host, tree: Path, progress: Callable[[str], None]) -> None:
    """Fetch and unpack the third tree, in the same way."""
    started = time.monotonic()
    progress(f"testbed: fetching a Docker daemon into {tree.parent} (60 MB), only this once")
    with _building(tree) as root:
        own, _ = _apt_of_host(host, root.parent / "own")
        archives = own.download_with_dependencies(*DOCKER_PACKAGES)
        unpack([archive for archive in archives if not DOCKER_GOES_WITHOUT.match(archive.name)], root)
        for folder in ("doc", "man", "locale", "lintian"):
            shutil.rmtree(root / "usr/share" / folder, ignore_errors=True)
        missing = [pattern for pattern in DOCKER_PROGRAMS if not any(root.glob(pattern))]
        if missing:
            raise FetchError(f"the packages hold no {', '.join(missing)}: their lists in {__file__} need a look")
    progress(f"testbed: Docker ready after {time.monotonic() - started:.0f} s")


@contextlib.contextmanager
def _building(tree: Path) -> Iterator[Path]:
    """A fresh folder, which becomes `tree` at the end unless something went wrong; scratch goes beside it."""
    for left_behind in tree.parent.glob("building-*"):  # of a program that was killed: we hold the lock
        shutil.rmtree(left_behind)
    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="building-") as name:
        root = Path(name) / "root"
        root.mkdir()
        root.chmod(0o755)
        yield root
        root.rename(tree)


def _apt_of_host(host: Host, folder: Path) -> tuple[PrivateApt, str]:
    """An apt that has the machine's own package lists, and the address they came from."""
    own = PrivateApt(folder, essential_status(Path("/var/lib/dpkg/status").read_text()))
    return own, own.update(own.sources_of_host(host), host.components, host_keyring(host), host.codename)


def host_keyring(host: Host) -> Path:
    """The keys that sign the machine's own distribution."""
    folder = Path("/usr/share/keyrings")
    for keyring in (folder / f"{host.id}-archive-keyring.{ending}" for ending in ("gpg", "pgp")):
        if keyring.exists():
            return keyring
    package = "debian-archive-keyring" if host.id == "debian" else "ubuntu-keyring"
    raise FetchError(f"{folder} has no {host.id}-archive-keyring.gpg: install the package {package}")


def debian_mirror(host: Host, own: PrivateApt, own_address: str, scratch: Path) -> str:
    """Where to fetch Debian from: on Debian the machine's own mirror, else the one debootstrap takes by default."""
    if host.id == "debian":
        return own_address
    unpack(own.download("debootstrap"), scratch)
    program = scratch / "usr/sbin/debootstrap"
    found = re.search(r'^DEF_MIRROR="(\S+)"', program.read_text() if program.exists() else "", re.MULTILINE)
    if found is None:
        raise FetchError(
            "no Debian mirror is known: set TIDEWISE_DEBIAN_MIRROR to the address of one (https://…/debian)"
        )
    return found.group(1)


def relocate_template(alertmanager: Path) -> None:
    """Let Debian's Alertmanager look for its template relative to the folder it is started in, the tree's root.

    The path in the program is replaced by one of the same length without the leading slash.
    """
    program = alertmanager.read_bytes()
    if TEMPLATE_FOLDER not in program:
        raise FetchError(f"{alertmanager} has no {TEMPLATE_FOLDER.decode()} in it: relocate_template needs a look")
    alertmanager.write_bytes(program.replace(TEMPLATE_FOLDER, TEMPLATE_FOLDER.replace(b"/usr/", b"usr//", 1)))
