"""Builds the programs of a Kubernetes control plane from the modules that go.mod and go.sum pin, once, into the cache.

Downloads and compiled packages go into a folder of their own beside the result and are removed when it is complete; a
build that was interrupted goes on from them. Where GOCACHE or GOMODCACHE are set, those are used and kept.
"""

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from testbed.fetch import cache_folder, make_cache

MODULE = Path(__file__).parent
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok", "helm")
EXPECTED = "about 8 minutes on two cores"
ROOM_BYTES = 6_500_000_000  # downloads, compiled packages and programs before the first two are removed
SAY_EVERY_SECONDS = 30.0

# Unoptimised and without debugging tables: the tests wait for disks and timers, not for these programs, and an
# optimised build takes 40 % more processor time.
FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-N -l -dwarf=false")
SETTINGS = {"CGO_ENABLED": "0", "GOGC": "400", "GOTOOLCHAIN": "local", "GOWORK": "off"}


class BuildError(RuntimeError):
    """The programs cannot be built. The message says why and what to do."""


class NoGoError(BuildError):
    """There is no Go here that could build them."""


@dataclass(frozen=True)
class Go:
    """The Go that would build: its program and its version ("1.26.8")."""

    program: str
    version: str


def ensure(progress: Callable[[str], None] = print) -> Path:
    """The folder of the programs; built first when the cache has none. BuildError says what to do.

    progress: is told in short lines what happens; not called when the programs are there already.
    """
    go = read_go()
    cache = cache_folder()
    tree = cache / tree_name(go)
    if tree.is_dir():
        return tree
    make_cache(cache)
    with _locked(cache, progress):
        if not tree.is_dir():  # else another program has built it while this one waited
            build(go, tree, progress)
    return tree


def find() -> Path | None:
    """The folder of the programs when the cache has it, else None. Without a Go, those that any Go has built."""
    try:
        tree = cache_folder() / tree_name(read_go())
    except NoGoError:
        return max(cache_folder().glob(f"kube-{_recipe()}-go*"), key=lambda path: path.stat().st_mtime, default=None)
    return tree if tree.is_dir() else None


def absence() -> str | None:
    """Why there is no control plane to test with, in one sentence; None when there is one."""
    if is_skipped():
        return "Kubernetes: SKIP_KUBE is set"
    if shutil.which("openssl") is None:
        return "Kubernetes: no openssl on PATH, which makes the control plane's certificates; install openssl"
    if find() is not None:
        return None
    try:
        read_go()
    except NoGoError as error:
        return f"Kubernetes: {error}"
    return f"Kubernetes: not built yet; `python -m testbed.kube build` builds it once ({EXPECTED})"


def is_skipped() -> bool:
    """Whether the user wants no Kubernetes."""
    return os.environ.get("SKIP_KUBE", "") not in ("", "0")


def clean() -> int:
    """Remove everything built and downloaded; returns how many folders that were."""
    cache = cache_folder()
    if not cache.is_dir():
        return 0
    with _locked(cache, print):
        trees = [path for path in cache.glob("kube-*") if path.is_dir()]
        for tree in trees:
            shutil.rmtree(tree)
    return len(trees)


def read_go() -> Go:
    """The Go on PATH. NoGoError when there is none or it is older than go.mod wants."""
    wanted = _found(r"^go (\S+)$")
    program = shutil.which("go")
    if program is None:
        raise NoGoError(
            f"no Go on PATH; install Go {wanted} or newer from https://go.dev/dl to build the control plane"
        )
    said = subprocess.run(
        [program, "env", "GOVERSION"], cwd="/", env={**os.environ, **SETTINGS}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    found = said.stdout.strip().removeprefix("go")
    if _numbers(found) < _numbers(wanted):
        raise NoGoError(
            f"Go {wanted} or newer is needed to build the control plane; {program} is {found or 'of unknown version'}. "
            "Install a newer one from https://go.dev/dl and put it first on PATH"
        )
    return Go(program, found)


def tree_name(go: Go) -> str:
    """The programs' folder: other modules, flags, machine or Go is another folder."""
    return f"kube-{_recipe()}-go{go.version}"


def build(go: Go, tree: Path, progress: Callable[[str], None]) -> None:
    """Download, compile, and rename: `tree` is complete or not there."""
    started = time.monotonic()
    free = shutil.disk_usage(tree.parent).free
    if free < ROOM_BYTES:
        raise BuildError(
            f"{tree.parent} has {free / 1e9:.1f} GB free, {ROOM_BYTES / 1e9:.0f} GB are needed while building: "
            "free some, or set TIDEWISE_CACHE to a folder with room"
        )
    progress(f"testbed: building Kubernetes {_version()} into {tree.parent}; {EXPECTED}, only this once")
    for left_behind in tree.parent.glob("kube-building-*"):  # of a program that was killed: we hold the lock
        shutil.rmtree(left_behind)
    scratch = tree.parent / "kube-scratch"
    environment = _environment(scratch)

    progress("testbed: 1/2 downloading the modules (200 MB)")
    packages = _go(go, ["list", "-deps", "tool"], environment, lambda line: None).splitlines()

    progress(f"testbed: 2/2 compiling {len(packages)} packages, at low priority")
    compiled, said_at = 0, time.monotonic()

    def count(line: str) -> None:
        nonlocal compiled, said_at
        compiled += 1
        if time.monotonic() - said_at > SAY_EVERY_SECONDS:
            said_at = time.monotonic()
            minutes = (said_at - started) / 60
            progress(f"testbed: 2/2 compiled {compiled} of at most {len(packages)} packages after {minutes:.1f} min")

    with tempfile.TemporaryDirectory(dir=tree.parent, prefix="kube-building-") as name:
        building = Path(name) / "bin"
        building.mkdir()
        _go(go, ["build", "-v", f"-o={building}/", *FLAGS, f"-ldflags={_link_flags()}", "tool"], environment, count)
        (building / "server").rename(building / "etcd")  # etcd's main package is called server
        missing = [program for program in PROGRAMS if not (building / program).is_file()]
        if missing:
            raise BuildError(f"the build made no {', '.join(missing)}: the tool lines of {MODULE}/go.mod need a look")
        building.rename(tree)
    shutil.rmtree(scratch, ignore_errors=True)
    progress(f"testbed: control plane ready after {(time.monotonic() - started) / 60:.1f} min")


def _environment(scratch: Path) -> dict[str, str]:
    """Go's environment: its caches and temporary files in `scratch`, unless the user has caches set."""
    environment = {**os.environ, **SETTINGS, "GOFLAGS": "-mod=readonly", "GOTMPDIR": str(scratch / "tmp")}
    (scratch / "tmp").mkdir(parents=True, exist_ok=True)
    environment.setdefault("GOCACHE", str(scratch / "build"))
    if "GOMODCACHE" not in environment:
        # Go write-protects its downloads, and they are to be removed.
        environment |= {"GOMODCACHE": str(scratch / "mod"), "GOFLAGS": "-mod=readonly -modcacherw"}
    return environment


def _go(go: Go, arguments: list[str], environment: dict[str, str], heard: Callable[[str], None]) -> str:
    """Run Go at low priority; returns its output. `heard` is called for each line of its remarks while it runs."""
    command = ["nice", "-n", "19", go.program, *arguments]
    said: list[str] = []
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(
            command, cwd=MODULE, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):  # fmt: skip
        for line in process.stderr or ():
            said.append(line.rstrip())
            heard(said[-1])
        status = process.wait()
        output.seek(0)
        text = output.read()
    if status != 0:
        raise _explained(arguments[0], status, [line for line in said if re.search(r"[ :]", line)])
    return text


# What Go says and what it means. The first that is found counts.
_CAUSES = {
    "no space left on device": "the disk is full; free some, or set TIDEWISE_CACHE to a folder with room",
    "signal: killed": "the system ended the compiler, most likely for want of memory; 4 GB are needed free",
    "dial tcp|i/o timeout|no such host|connection re(fused|set)|proxyconnect|Bad Gateway|TLS handshake": "the module "
    "proxy cannot be reached; see that this machine has a network, or set GOPROXY to a proxy of yours, then run it "
    "again: it goes on where it stopped",
    "checksum mismatch|SECURITY ERROR": "a module is not the one that go.sum pins; use another GOPROXY",
}


def _explained(what: str, status: int, said: list[str]) -> BuildError:
    text = "\n".join(said)
    causes = [cause for pattern, cause in _CAUSES.items() if re.search(pattern, text)]
    last = "\n".join(f"    {line}" for line in said[-6:])
    return BuildError(f"go {what}: {causes[0] if causes else f'exit status {status}, see below'}\n{last}".rstrip())


def _version() -> str:
    return _found(r"^\s*k8s\.io/kubernetes (v[\d.]+)")


def _link_flags() -> str:
    """The version is stamped in: a control plane that does not know its own refuses to start."""
    major, minor, _ = _version().removeprefix("v").split(".")
    stamps = {"gitVersion": _version(), "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    return " ".join(["-s -w", *(f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items())])


def _recipe() -> str:
    digest = hashlib.sha256(repr((FLAGS, SETTINGS, _link_flags(), PROGRAMS)).encode())
    for name in ("go.mod", "go.sum"):
        digest.update((MODULE / name).read_bytes())
    return f"{_version()}-{platform.machine()}-{digest.hexdigest()[:12]}"


def _found(pattern: str) -> str:
    """The one thing in go.mod that this pattern finds."""
    match = re.search(pattern, (MODULE / "go.mod").read_text(), re.MULTILINE)
    if match is None:
        raise BuildError(f"{MODULE}/go.mod has nothing like {pattern}")
    return match.group(1)


def _numbers(version: str) -> tuple[int, ...]:
    """1.26.8 as (1, 26, 8), and 1.27rc1 as (1, 27)."""
    return tuple(int(number) for number in re.findall(r"(?:^|\.)(\d+)", version))


@contextlib.contextmanager
def _locked(cache: Path, progress: Callable[[str], None]) -> Iterator[None]:
    """Hold the build's lock (not that of `testbed.fetch`, which would wait for minutes); it ends with its program."""
    with (cache / "kube-lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("testbed: another program is building the control plane; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
