"""apt with a state of its own: reads signed package lists and downloads packages, and touches nothing of the machine.

apt's configuration (proxies, certificates) is the machine's; its lists, its cache, its idea of what is installed and
its hooks are not. So it needs no root, takes no lock of the system's apt, and starts no program after a download.
"""

import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEADLINE_SECONDS = 300  # for one apt-get command; on a slow line the longest takes about a minute
RETRY_AFTER_SECONDS = 3.0


class FetchError(RuntimeError):
    """The parts cannot be had. The message says why and what to do."""


@dataclass(frozen=True)
class Host:
    """The distribution this machine runs: ("debian", "12", "bookworm"), ("ubuntu", "24.04", "noble")."""

    id: str
    version: str
    codename: str

    @property
    def components(self) -> str:
        """The parts of the archive to look in."""
        return "main universe" if self.id == "ubuntu" else "main"


def read_host(os_release: Path = Path("/etc/os-release")) -> Host:
    """The distribution, from `os-release`. FetchError when it is neither Debian nor Ubuntu."""
    text = os_release.read_text() if os_release.exists() else ""
    found = {key: value.strip("\"'") for key, _, value in (line.partition("=") for line in text.splitlines())}
    host = Host(found.get("ID", ""), found.get("VERSION_ID", ""), found.get("VERSION_CODENAME", ""))
    if host.id not in ("debian", "ubuntu") or not host.codename:
        raise FetchError(
            f"this machine runs {found.get('PRETTY_NAME', 'an unknown system')}; the real parts come as packages of "
            "Debian 12 or 13 or Ubuntu 24.04. Run it on one of these, a container of one will do"
        )
    return host


class PrivateApt:
    """One apt with its state in `folder`.

    installed: the dpkg status apt is to believe in, see `essential_status`; empty means nothing is installed.
    """

    def __init__(self, folder: Path, installed: str = "") -> None:
        self.folder = folder
        for name in ("state/lists/partial", "cache/archives/partial"):
            (folder / name).mkdir(parents=True)
        (folder / "status").write_text(installed)
        (folder / "sources.list").write_text("")
        self._update_said = ""
        (folder / "apt.conf").write_text(
            f'Dir::State "{folder}/state/";\n'
            f'Dir::State::status "{folder}/status";\n'
            f'Dir::Cache "{folder}/cache/";\n'
            f'Dir::Etc::sourcelist "{folder}/sources.list";\n'
            # A file, not a folder: nothing is read from it.
            'Dir::Etc::sourceparts "/dev/null";\n'
            'Dir::Etc::preferences "/dev/null";\n'
            'Dir::Etc::preferencesparts "/dev/null";\n'
            'Debug::NoLocking "true";\n'
            'APT::Sandbox::User "root";\n'
            'APT::Install-Recommends "false";\n'
            'Acquire::Languages "none";\n'
            'Acquire::http::Timeout "20";\n'
            'Acquire::https::Timeout "20";\n'
            "#clear APT::Default-Release;\n"
            # What the machine runs after its own downloads (package kits, image slimming) is none of ours.
            "#clear APT::Update::Pre-Invoke;\n"
            "#clear APT::Update::Post-Invoke;\n"
            "#clear APT::Update::Post-Invoke-Success;\n"
            "#clear DPkg::Pre-Invoke;\n"
            "#clear DPkg::Post-Invoke;\n"
            "#clear DPkg::Pre-Install-Pkgs;\n"
        )

    def sources_of_host(self, host: Host) -> list[tuple[str, str]]:
        """(address, suite) of the machine's own apt sources that are of its release, in the machine's order."""
        # apt's own reading of its source files, whatever their format: the address of each source's signed index.
        said = self._run("-o", "Dir::Etc::sourcelist=/etc/apt/sources.list",
                         "-o", "Dir::Etc::sourceparts=/etc/apt/sources.list.d", "--print-uris", "update")  # fmt: skip
        found = re.findall(r"^'(\S+?)/?/dists/(\S+)/InRelease'", said.stdout, re.MULTILINE)
        sources = [
            (address, suite)
            for address, suite in dict.fromkeys(found)
            if suite.split("-")[0] == host.codename and not address.startswith("cdrom:")
        ]
        if not sources:
            raise FetchError(
                f"none of this machine's apt sources (/etc/apt/sources.list, /etc/apt/sources.list.d) is for "
                f"{host.codename}, its own release: add one, as its installation had\n{_last_lines(said)}".rstrip()
            )
        return sources

    def update(self, sources: Sequence[tuple[str, str]], components: str, keyring: Path, suite: str) -> str:
        """Fetch the package lists of `sources`, signed by a key of `keyring`; returns the address that served `suite`.

        A source that `keyring` has not signed (a third party's) is left out, as long as `suite` itself comes.
        """
        self.folder.joinpath("sources.list").write_text(
            "".join(
                f"deb [signed-by={keyring} target=Packages] {address} {name} {components}\n"
                for address, name in sources
            )
        )
        for attempt in (1, 2):
            said = self._run("update")
            served = self._run("indextargets", "--format", "$(RELEASE) $(REPO_URI)").stdout
            for line in served.splitlines():
                release, _, address = line.partition(" ")
                if release == suite:
                    self._update_said = _last_lines(said)
                    return address.rstrip("/")
            if attempt == 1:
                time.sleep(RETRY_AFTER_SECONDS)
        raise _explained(f"the package lists of {suite}", said)

    def download(self, *packages: str) -> list[Path]:
        """Download exactly these packages; returns the archives."""
        return self._download("download", packages)

    def download_with_dependencies(self, *packages: str) -> list[Path]:
        """Download these packages and those they need that are not in `installed`; returns the archives."""
        return self._download("install", packages)

    def _download(self, verb: str, packages: Sequence[str]) -> list[Path]:
        archives = self.folder / "cache/archives"
        before = set(archives.glob("*.deb"))
        arguments = ["--download-only", "--yes", verb, *packages]
        for attempt in (1, 2):
            said = self._run(*arguments, cwd=archives)
            if said.returncode == 0:
                return sorted(set(archives.glob("*.deb")) - before)
            if attempt == 1:
                time.sleep(RETRY_AFTER_SECONDS)
        more = f" and {len(packages) - 1} more" if len(packages) > 1 else ""
        raise _explained(f"the package {packages[0]}{more}", said, self._update_said)

    def _run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = ["apt-get", "-c", str(self.folder / "apt.conf"), "--quiet", *arguments]
        environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        try:
            return subprocess.run(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=DEADLINE_SECONDS, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise FetchError(
                "apt-get is not on this machine: the real parts come as packages of Debian or Ubuntu. "
                "Run it on Debian 12 or 13 or Ubuntu 24.04, a container of one will do"
            ) from None
        except subprocess.TimeoutExpired:
            raise FetchError(
                f"apt-get {arguments[0]} did not end within {DEADLINE_SECONDS} s: the package mirror is too slow. "
                "Try again later, or choose another mirror in /etc/apt"
            ) from None


def unpack(archives: Sequence[Path], into: Path) -> None:
    """Unpack package archives; nothing of them is run."""
    for archive in archives:
        done = subprocess.run(["dpkg-deb", "-x", archive, into], capture_output=True, text=True, check=False)  # noqa: S607
        if done.returncode != 0:
            raise _explained(f"{archive.name}: dpkg-deb cannot unpack it", done)


def essential_status(status: str) -> str:
    """Of a dpkg status, the packages every installation has: the essential and required ones and all that they need.

    Given the full status, apt leaves out whatever happens to be installed here, and what is unpacked would depend on
    the machine it was made on. Given an empty one, it brings a second C library.
    """
    packages: dict[str, list[dict[str, str]]] = {}
    providers: dict[str, list[str]] = {}
    for stanza in re.split(r"\n\n+", status.strip()):
        fields = dict(re.findall(r"^([\w-]+): *(.*)$", stanza, re.MULTILINE))
        if not fields.get("Status", "").endswith(" installed"):
            continue
        packages.setdefault(fields["Package"], []).append({**fields, "": stanza})
        for provided in _names(fields.get("Provides", "")):
            providers.setdefault(provided, []).append(fields["Package"])

    wanted = [
        name
        for name, versions in packages.items()
        if any(fields.get("Essential") == "yes" or fields.get("Priority") == "required" for fields in versions)
    ]
    kept: dict[str, None] = {}
    while wanted:
        name = wanted.pop()
        if name in kept or name not in packages:
            continue
        kept[name] = None
        for fields in packages[name]:
            for needed in _names(f"{fields.get('Depends', '')},{fields.get('Pre-Depends', '')}"):
                wanted += [needed, *providers.get(needed, [])]
    return "".join(f"{fields['']}\n\n" for name in sorted(kept) for fields in packages[name])


def _names(relations: str) -> list[str]:
    """The package names in a list of relations such as `libc6 (>= 2.34), mawk | awk, perl:any`."""
    parts = (re.match(r"[\w.+-]+", part.strip()) for part in re.split(r"[,|]", relations))
    return [match.group() for match in parts if match]


_ON_DISK_FULL = "No space left on device"
_ON_KEY_MISSING = "NO_PUBKEY|not signed|couldn't be verified|signatures were invalid|Missing key"
_ON_NO_RELEASE = "does not have a Release file"
_ON_NO_NETWORK = (
    "ould not resolve|failure resolving|Could not connect|Unable to connect|[Cc]onnection (failed|refused|timed out)|"
    "Network is unreachable|Could not handshake|Certificate verification failed|Failed to fetch"
)
# What apt says and what it means. The first that is found counts.
_CAUSES = {
    _ON_DISK_FULL: "the disk is full; free 700 MB, or set TIDEWISE_CACHE to a folder with room",
    _ON_KEY_MISSING: "the mirror's signature was not accepted; bring the package debian-archive-keyring "
    "(on Ubuntu ubuntu-keyring) up to date, or choose another mirror",
    _ON_NO_RELEASE: "the mirror does not carry it; choose another mirror (of Debian: TIDEWISE_DEBIAN_MIRROR)",
    _ON_NO_NETWORK: "the package mirror cannot be reached; see that this machine has a network and that "
    "`apt-get update` works on it (a proxy belongs into /etc/apt), then run it again",
}


def _explained(what: str, said: subprocess.CompletedProcess[str], said_before: str = "") -> FetchError:
    """What could not be had and why, quoting apt; said_before: complaints of an earlier step that may be the cause."""
    causes = [
        cause
        for text in (said.stdout + said.stderr, said_before)
        for pattern, cause in _CAUSES.items()
        if re.search(pattern, text)
    ]
    first = f"could not fetch {what}: {causes[0] if causes else f'exit status {said.returncode}, see below'}"
    return FetchError("\n".join(filter(None, (first, said_before, _last_lines(said)))))


def _last_lines(said: subprocess.CompletedProcess[str], count: int = 4) -> str:
    """The last complaints of apt, indented; empty when it made none."""
    lines = [line for line in (said.stdout + said.stderr).splitlines() if re.match(r"(E|W|Err|dpkg-deb)\b", line)]
    return "\n".join(f"    {line}" for line in lines[-count:])
