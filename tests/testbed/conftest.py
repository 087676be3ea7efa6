"""A fake apt-get, first on PATH, that answers as a script says and writes down what it was asked."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from testbed import apt, fetch

BOOKWORM = apt.Host("debian", "12", "bookworm")

# Every package it is asked for is the same small archive with all programs in it.
WORKS = """
case "$*" in
  *--print-uris*)
    echo "'http://mirror.invalid/debian/dists/{codename}/InRelease' mirror.invalid_InRelease 0"
    echo "'http://mirror.invalid/debian/dists/{codename}-updates/InRelease' mirror.invalid_InRelease 0"
    echo "'http://third.invalid/stuff/dists/stable/InRelease' third.invalid_InRelease 0"
    echo "'cdrom:[disc]/dists/{codename}/InRelease' cdrom_InRelease 0" ;;
  *indextargets*)
    sed -E 's/^deb \\[[^]]*\\] (\\S+) (\\S+) .*/\\2 \\1\\//' "$folder/sources.list" ;;
  *" install "*|*" download "*)
    for last; do :; done; cp "{archive}" "$folder/cache/archives/$last.deb" ;;
esac
"""


@dataclass(frozen=True)
class FakeApt:
    """What stands in for apt-get."""

    program: Path
    asked_file: Path
    archive: Path

    def works(self, codename: str = "bookworm", each_call_takes: float = 0.0) -> None:
        """From now on apt-get works, on a machine with sources of this release."""
        script = WORKS.replace("{archive}", str(self.archive)).replace("{codename}", codename)
        self.says(f"sleep {each_call_takes}\n{script}")

    def says(self, script: str) -> None:
        """From now on apt-get does this (sh); `$folder` is the folder of its configuration."""
        self.program.write_text(
            f'#!/bin/sh\nfolder=$(dirname "$2"); echo "$*" >> {self.asked_file}\ncp "$folder/sources.list" '
            f'{self.asked_file}.$(basename "$folder")\n{script}\n'
        )
        self.program.chmod(0o755)

    def asked(self) -> list[str]:
        """The arguments of each call so far."""
        return self.asked_file.read_text().splitlines() if self.asked_file.exists() else []

    def sources(self, state: str) -> str:
        """The last source list of the apt whose state is in the folder of this name."""
        return Path(f"{self.asked_file}.{state}").read_text()


@pytest.fixture
def fake_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeApt:
    """An apt-get that works, on a machine that is a Debian 12; retries wait for nothing."""
    content = tmp_path / "content"
    for program in fetch.PROGRAMS:
        (content / "usr/bin").mkdir(parents=True, exist_ok=True)
        (content / "usr/bin" / program).write_bytes(b"code " + fetch.TEMPLATE_FOLDER + b" code")
    for pattern in fetch.SERVICE_PROGRAMS:
        (content / pattern.replace("*", "1")).parent.mkdir(parents=True, exist_ok=True)
        (content / pattern.replace("*", "1")).touch()
    (content / "usr/share/keyrings").mkdir(parents=True)
    (content / "usr/share/keyrings/debian-archive-keyring.gpg").write_text("keys")
    (content / "usr/sbin").mkdir(exist_ok=True)
    (content / "usr/sbin/debootstrap").write_text('DEF_MIRROR="http://default.invalid/debian"\n')
    (content / "DEBIAN").mkdir()
    (content / "DEBIAN/control").write_text(
        "Package: everything\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@invalid>\nDescription: all\n"
    )
    archive = tmp_path / "everything.deb"
    subprocess.run(["dpkg-deb", "--build", "-z0", content, archive], check=True, capture_output=True)

    fake = FakeApt(tmp_path / "bin/apt-get", tmp_path / "asked", archive)
    fake.program.parent.mkdir()
    fake.works()
    monkeypatch.setenv("PATH", f"{fake.program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TIDEWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TIDEWISE_DEBIAN_MIRROR", raising=False)
    monkeypatch.setattr(fetch, "read_host", lambda: BOOKWORM)
    monkeypatch.setattr(fetch, "host_keyring", lambda host: Path(f"/keys/{host.id}.gpg"))
    monkeypatch.setattr(apt, "RETRY_AFTER_SECONDS", 0.0)
    return fake
