"""The cache of real parts: fetched once, complete or absent, by one program at a time."""

import fcntl
import os
import shutil
import subprocess
import threading
from pathlib import Path

import pytest

from testbed import fetch
from testbed.apt import FetchError, Host


@pytest.fixture
def cache(tmp_path: Path, fake_apt) -> Path:
    """The cache folder, not made yet."""
    return tmp_path / "cache"


def test_a_first_use_fetches_says_so_and_leaves_only_the_tree(cache: Path, fake_apt) -> None:
    said: list[str] = []
    root = fetch.ensure(said.append)

    assert root == cache / fetch.tree_name(fetch.read_host())
    assert all((root / "usr/bin" / program).is_file() for program in fetch.PROGRAMS)
    assert sorted(path.name for path in cache.iterdir()) == ["lock", root.name]
    assert said[0] == (
        f"testbed: fetching Redis, Prometheus and Alertmanager into {cache}; about half a minute, only this once"
    )
    assert [line.split()[1] for line in said[1:-1]] == ["1/4", "2/4", "3/4", "4/4"]
    assert said[-1].startswith("testbed: parts ready after ")


def test_a_second_use_asks_apt_nothing(cache: Path, fake_apt) -> None:
    first = fetch.ensure(print)
    calls = fake_apt.asked()
    assert fetch.ensure(pytest.fail) == first
    assert fake_apt.asked() == calls
    assert fetch.find() == first


def test_the_cache_can_be_entered_by_every_user(cache: Path) -> None:
    before = os.umask(0o077)
    try:
        root = fetch.ensure(print)
    finally:
        os.umask(before)
    assert [oct(path.stat().st_mode & 0o777) for path in (cache, root)] == ["0o755", "0o755"]


def test_the_machines_release_and_debians_are_checked_with_their_own_keys(cache: Path, fake_apt) -> None:
    fetch.ensure(print)
    assert fake_apt.sources("own").splitlines() == [
        "deb [signed-by=/keys/debian.gpg target=Packages] http://mirror.invalid/debian bookworm main",
        "deb [signed-by=/keys/debian.gpg target=Packages] http://mirror.invalid/debian bookworm-updates main",
    ]
    assert "/keys/usr/share/keyrings/debian-archive-keyring.gpg target=Packages]" in fake_apt.sources("debian")
    assert fake_apt.sources("debian").endswith("http://mirror.invalid/debian trixie main\n")


def test_on_ubuntu_debian_comes_from_the_mirror_that_debootstrap_takes(
    cache: Path, fake_apt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "read_host", lambda: Host("ubuntu", "24.04", "noble"))
    fake_apt.works("noble")
    fetch.ensure(print)
    assert fake_apt.sources("own").splitlines()[0].endswith("http://mirror.invalid/debian noble main universe")
    assert fake_apt.sources("debian").endswith("http://default.invalid/debian trixie main\n")


def test_a_mirror_of_debian_can_be_chosen(cache: Path, fake_apt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEWISE_DEBIAN_MIRROR", "http://near.invalid/debian")
    fetch.ensure(print)
    assert fake_apt.sources("debian").endswith("http://near.invalid/debian trixie main\n")


def test_after_a_failure_nothing_is_left_and_the_next_try_succeeds(cache: Path, fake_apt) -> None:
    fake_apt.says('echo "E: Unable to locate package prometheus" >&2; exit 100')
    with pytest.raises(FetchError):
        fetch.ensure(print)
    assert [path.name for path in cache.iterdir()] == ["lock"]
    assert fetch.find() is None

    fake_apt.works()
    assert fetch.ensure(print).is_dir()


def test_packages_without_a_program_are_refused(cache: Path, fake_apt, tmp_path: Path) -> None:
    (tmp_path / "content/usr/bin/amtool").unlink()
    subprocess.run(["dpkg-deb", "--build", "-z0", tmp_path / "content", fake_apt.archive], check=True)
    with pytest.raises(FetchError, match="the packages hold no amtool"):
        fetch.ensure(print)
    assert fetch.find() is None


def test_the_services_are_a_tree_of_their_own_that_the_parts_do_not_bring(cache: Path, fake_apt) -> None:
    fetch.ensure(print)
    assert fetch.find_services() is None
    said: list[str] = []
    root = fetch.ensure_services(said.append)
    assert root == fetch.find_services() == cache / fetch.services_tree_name(fetch.read_host())
    assert fake_apt.asked()[-1].endswith(f"--download-only --yes install {' '.join(fetch.SERVICE_PACKAGES)}")
    assert said[-1].startswith("testbed: services ready after ")
    fetch.ensure_services(pytest.fail)
    assert fetch.clean() == 2


def test_packages_that_nobody_needs_here_are_not_unpacked(cache: Path, fake_apt, tmp_path: Path) -> None:
    fake_apt.works()
    script = fake_apt.program.read_text().replace(
        "for last; do :; done;", "for last in perl-base libllvm14; do :; done;"
    )
    fake_apt.program.write_text(script)
    with pytest.raises(FetchError, match=r"the packages hold no usr/lib/postgresql/\*/bin/postgres, "):
        fetch.ensure_services(print)
    assert fetch.find_services() is None


@pytest.mark.parametrize(
    ("user", "mode", "chosen", "folder"),
    [
        pytest.param(1000, 0o700, None, "cache", id="an ordinary user's are in his cache"),
        pytest.param(0, 0o700, None, "/var/cache/tidewise", id="root's are where PostgreSQL's user can go"),
        pytest.param(0, 0o700, "chosen", "chosen", id="unless somebody chose"),
    ],
)
def test_where_the_services_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, mode: int, chosen: str | None, folder: str
) -> None:
    (tmp_path / "cache/tidewise").mkdir(parents=True)
    (tmp_path / "cache").chmod(mode)
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if chosen:
        monkeypatch.setenv("TIDEWISE_CACHE", str(tmp_path / chosen))
    else:
        monkeypatch.delenv("TIDEWISE_CACHE", raising=False)
    expected = {"cache": tmp_path / "cache/tidewise", "chosen": tmp_path / "chosen"}
    assert fetch.services_folder() == expected.get(folder, Path(folder))


def test_what_a_killed_fetch_left_is_removed(cache: Path) -> None:
    left = cache / "building-x1/root"
    left.mkdir(parents=True)
    fetch.ensure(print)
    assert not left.parent.exists()


def test_another_list_of_packages_or_release_is_another_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    bookworm = Host("debian", "12", "bookworm")
    names = {fetch.tree_name(bookworm), fetch.tree_name(Host("debian", "13", "trixie"))}
    monkeypatch.setattr(fetch, "RECIPE", fetch.RECIPE + 1)
    names.add(fetch.tree_name(bookworm))
    assert len(names) == 3


def test_of_two_at_once_one_fetches_and_the_other_waits_for_it(cache: Path, fake_apt) -> None:
    fake_apt.works(each_call_takes=0.1)
    said: dict[str, list[str]] = {"a": [], "b": []}
    trees: list[Path] = []
    users = [
        threading.Thread(target=lambda lines=lines: trees.append(fetch.ensure(lines.append))) for lines in said.values()
    ]
    for user in users:
        user.start()
    for user in users:
        user.join()

    assert len(set(trees)) == 1
    assert sum(call.endswith("download debian-archive-keyring") for call in fake_apt.asked()) == 1
    waited = [lines for lines in said.values() if len(lines) == 1]
    assert waited == [["testbed: another program is fetching the parts; waiting for it"]]


def test_a_lock_ends_with_the_program_that_held_it(cache: Path) -> None:
    cache.mkdir()
    with (cache / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    assert fetch.ensure(print).is_dir()


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        pytest.param({"TIDEWISE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}, "/a", id="the variable of our own comes first"),
        pytest.param({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/tidewise", id="then the desktop's"),
        pytest.param({"HOME": "/c"}, "/c/.cache/tidewise", id="then the home folder"),
    ],
)
def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], folder: str) -> None:
    for name in ("TIDEWISE_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert fetch.cache_folder() == Path(folder)


def test_a_cache_folder_that_cannot_be_made_is_told(tmp_path: Path, fake_apt, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIDEWISE_CACHE", str(tmp_path / "file/cache"))
    with pytest.raises(
        FetchError, match=r"cannot make the cache folder .*/file/cache \(Not a directory\): set TIDEWISE_"
    ):
        fetch.ensure(print)


def test_a_disk_without_room_is_told_before_anything_is_fetched(
    cache: Path, fake_apt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(FetchError, match=r"cache has 100 MB free, 700 MB are needed: free some, or set TIDEWISE_CACHE"):
        fetch.ensure(print)
    assert fake_apt.asked() == []


def test_alertmanagers_template_is_found_in_the_tree_and_the_program_keeps_its_size(tmp_path: Path) -> None:
    program = tmp_path / "alertmanager"
    program.write_bytes(b"\x7fELF" + fetch.TEMPLATE_FOLDER + b"\x00next " + fetch.TEMPLATE_FOLDER + b"/ui")
    size = program.stat().st_size
    fetch.relocate_template(program)
    assert program.read_bytes().count(b"usr//share/prometheus/alertmanager") == 2
    assert fetch.TEMPLATE_FOLDER not in program.read_bytes()
    assert program.stat().st_size == size
    with pytest.raises(FetchError, match="relocate_template needs a look"):
        fetch.relocate_template(program)


def test_a_machine_without_its_distributions_keys_is_told_which_package_brings_them() -> None:
    with pytest.raises(FetchError, match=r"no nowhere-archive-keyring\.gpg: install the package ubuntu-keyring"):
        fetch.host_keyring(Host("nowhere", "1", "x"))


def test_programs_find_the_libraries_of_their_tree(tmp_path: Path) -> None:
    (tmp_path / "usr/lib/x86_64-linux-gnu").mkdir(parents=True)
    (tmp_path / "usr/lib/systemd").mkdir()
    assert fetch.environment(tmp_path)["LD_LIBRARY_PATH"] == f"{tmp_path}/usr/lib/x86_64-linux-gnu"
