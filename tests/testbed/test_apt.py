"""What apt is told, and what its complaints mean."""

from pathlib import Path

import pytest

from testbed import apt

BOOKWORM = apt.Host("debian", "12", "bookworm")


@pytest.mark.parametrize(
    ("text", "host"),
    [
        pytest.param(
            'PRETTY_NAME="Debian"\nID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n', BOOKWORM, id="Debian 12"
        ),
        pytest.param(
            "ID=ubuntu\nVERSION_ID='24.04'\nVERSION_CODENAME=noble\n", apt.Host("ubuntu", "24.04", "noble"), id="Ubuntu"
        ),
    ],
)
def test_the_release_is_read(tmp_path: Path, text: str, host: apt.Host) -> None:
    (tmp_path / "os-release").write_text(text)
    assert apt.read_host(tmp_path / "os-release") == host


@pytest.mark.parametrize(
    ("text", "found"),
    [
        pytest.param('ID=fedora\nPRETTY_NAME="Fedora Linux 43"\n', "Fedora Linux 43", id="another distribution"),
        pytest.param("", "an unknown system", id="a system that does not say what it is"),
    ],
)
def test_other_systems_are_told_what_to_do(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "os-release").write_text(text)
    with pytest.raises(apt.FetchError) as caught:
        apt.read_host(tmp_path / "os-release")
    assert str(caught.value) == (
        f"this machine runs {found}; the real parts come as packages of Debian 12 or 13 or Ubuntu 24.04. "
        "Run it on one of these, a container of one will do"
    )


STATUS = """\
Package: base-files
Essential: yes
Status: install ok installed
Pre-Depends: awk
Depends: libc6 (>= 2.3.4), libcrypt1:any
Description: the least
 Package: not-a-field

Package: mawk
Status: install ok installed
Provides: awk
Depends: libc6

Package: libc6
Status: install ok installed
Provides: libc6-abi (= 1)

Package: libcrypt1
Status: install ok installed

Package: tzdata
Priority: required
Status: install ok installed
Depends: debconf (>= 0.5) | debconf-2.0

Package: debconf
Status: install ok installed

Package: redis-server
Status: install ok installed
Depends: libssl3

Package: libssl3
Status: install ok installed

Package: was-here
Essential: yes
Status: deinstall ok config-files
"""


def test_of_what_is_installed_apt_sees_only_what_every_machine_has() -> None:
    kept = apt.essential_status(STATUS)
    names = [line.removeprefix("Package: ") for line in kept.splitlines() if line.startswith("Package: ")]
    assert names == ["base-files", "debconf", "libc6", "libcrypt1", "mawk", "tzdata"]
    assert STATUS.split("\n\n")[0] in kept  # stanzas go through unchanged
    assert apt.essential_status(kept) == kept


def test_the_machines_state_hooks_and_preferences_are_left_out(tmp_path: Path) -> None:
    apt.PrivateApt(tmp_path / "own")
    told = (tmp_path / "own/apt.conf").read_text()
    for name in ("Dir::State", "Dir::State::status", "Dir::Cache", "Dir::Etc::sourcelist"):
        assert f'{name} "{tmp_path}/own/' in told
    for name in ("APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success", "DPkg::Post-Invoke"):
        assert f"#clear {name};\n" in told


NO_NETWORK = (
    "the package mirror cannot be reached; see that this machine has a network and that `apt-get update` works on it "
    "(a proxy belongs into /etc/apt), then run it again"
)
COMPLAINTS = [
    pytest.param(
        "Err:1 http://m/debian bookworm InRelease\n  Temporary failure resolving 'm'\nW: Failed to fetch http://m",
        NO_NETWORK,
        id="no network",
    ),
    pytest.param(
        "W: GPG error: http://m bookworm InRelease: The following signatures couldn't be verified: NO_PUBKEY 0E98404D\n"
        "E: The repository 'http://m bookworm InRelease' is not signed.",
        "the mirror's signature was not accepted; bring the package debian-archive-keyring (on Ubuntu ubuntu-keyring) "
        "up to date, or choose another mirror",
        id="key missing",
    ),
    pytest.param(
        "W: Failed to fetch http://m\nE: Write error - write (28: No space left on device)",
        "the disk is full; free 700 MB, or set TIDEWISE_CACHE to a folder with room",
        id="disk full",
    ),
    pytest.param(
        "E: The repository 'http://m bookworm Release' does not have a Release file.",
        "the mirror does not carry it; choose another mirror (of Debian: TIDEWISE_DEBIAN_MIRROR)",
        id="not a mirror of this release",
    ),
    pytest.param("E: Something new", "exit status 100, see below", id="anything else is quoted"),
]


@pytest.mark.parametrize(("complaint", "meaning"), COMPLAINTS)
def test_lists_that_cannot_be_had_are_explained(tmp_path: Path, fake_apt, complaint: str, meaning: str) -> None:
    fake_apt.says(f'case "$*" in *update*) cat >&2 <<"END"\n{complaint}\nEND\nexit 100;; esac')
    own = apt.PrivateApt(tmp_path / "own")
    with pytest.raises(apt.FetchError) as caught:
        own.update([("http://m/debian", "bookworm")], "main", Path("/keys/debian.gpg"), "bookworm")
    first, *quoted = str(caught.value).splitlines()
    assert first == f"could not fetch the package lists of bookworm: {meaning}"
    assert quoted[-1].strip() == complaint.splitlines()[-1]
    assert [call.split()[-1] for call in fake_apt.asked() if call.endswith("update")] == ["update"] * 2  # one retry


def test_a_package_that_is_not_there_is_explained_by_the_lists_that_failed(tmp_path: Path, fake_apt) -> None:
    fake_apt.says(
        'case "$*" in *update*) echo "W: Failed to fetch http://m/debian-updates" >&2;;'
        ' *indextargets*) echo "bookworm http://m/debian/";;'
        ' *) echo "E: Unable to locate package redis-server" >&2; exit 100;; esac'
    )
    own = apt.PrivateApt(tmp_path / "own")
    assert own.update([("http://m/debian", "bookworm")], "main", Path("/k"), "bookworm") == "http://m/debian"
    with pytest.raises(apt.FetchError) as caught:
        own.download("redis-server")
    assert str(caught.value).splitlines() == [
        f"could not fetch the package redis-server: {NO_NETWORK}",
        "    W: Failed to fetch http://m/debian-updates",
        "    E: Unable to locate package redis-server",
    ]


def test_a_mirror_that_recovers_is_not_complained_about(tmp_path: Path, fake_apt) -> None:
    again = tmp_path / "again"
    fake_apt.says(
        f'case "$*" in *indextargets*) test -e {again} && echo "bookworm http://m/debian"; touch {again};; esac'
    )
    own = apt.PrivateApt(tmp_path / "own")
    assert own.update([("http://m/debian", "bookworm")], "main", Path("/k"), "bookworm") == "http://m/debian"


def test_a_mirror_that_never_answers_is_given_up(tmp_path: Path, fake_apt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt, "DEADLINE_SECONDS", 0.3)
    fake_apt.says("exec sleep 20")
    with pytest.raises(
        apt.FetchError, match=r"apt-get update did not end within 0\.3 s: the package mirror is too slow"
    ):
        apt.PrivateApt(tmp_path / "own").update([("http://m", "bookworm")], "main", Path("/k"), "bookworm")


def test_a_machine_without_apt_is_told_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = apt.PrivateApt(tmp_path / "own")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        apt.FetchError, match=r"apt-get is not on this machine.*Run it on Debian 12 or 13 or Ubuntu 24\.04"
    ):
        own.sources_of_host(BOOKWORM)


def test_only_sources_of_the_machines_own_release_are_taken(tmp_path: Path, fake_apt) -> None:
    own = apt.PrivateApt(tmp_path / "own")
    assert own.sources_of_host(BOOKWORM) == [
        ("http://mirror.invalid/debian", "bookworm"),
        ("http://mirror.invalid/debian", "bookworm-updates"),
    ]
    with pytest.raises(apt.FetchError, match=r"none of this machine's apt sources .* is for noble, its own release"):
        own.sources_of_host(apt.Host("ubuntu", "24.04", "noble"))


def test_a_broken_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "half.deb").write_text("half")
    with pytest.raises(apt.FetchError, match=r"could not fetch half\.deb: dpkg-deb cannot unpack it: exit status 2"):
        apt.unpack([tmp_path / "half.deb"], tmp_path / "into")
