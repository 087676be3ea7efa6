"""The command line of the testbed."""

from pathlib import Path

import pytest

from testbed import fetch
from testbed.__main__ import main
from testbed.apt import Host


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, on a machine that is a Debian 12."""
    monkeypatch.setenv("TIDEWISE_CACHE", str(tmp_path))
    monkeypatch.setattr(fetch, "read_host", lambda: Host("debian", "12", "bookworm"))
    return tmp_path


def test_help_says_what_it_does_to_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    said = capsys.readouterr().out
    for word in (
        "nothing is installed",
        "fetch ",
        "services ",
        "docker ",
        "where ",
        "clean ",
        "TIDEWISE_CACHE",
        "TIDEWISE_DEBIAN_MIRROR",
    ):
        assert word in said


def test_where_and_fetch_print_the_folder_and_clean_removes_it(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["where"]) == 1
    assert "not fetched yet: run `python -m testbed fetch`" in capsys.readouterr().err

    tree = cache / fetch.tree_name(fetch.read_host())
    tree.mkdir()
    for command in ("where", "fetch"):
        assert main([command]) == 0
        assert capsys.readouterr().out == f"{tree}\n"

    assert main(["clean"]) == 0
    assert capsys.readouterr().out == f"removed 1 from {cache}\n"
    assert not tree.exists()
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == f"nothing in {cache}\n"


def test_the_services_are_another_tree_and_cleaned_too(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = cache / fetch.services_tree_name(fetch.read_host())
    tree.mkdir()
    assert main(["services"]) == 0
    assert capsys.readouterr().out == f"{tree}\n"
    assert main(["where"]) == 1  # the parts are not there
    assert main(["clean"]) == 0
    assert not tree.exists()


def test_docker_is_a_third_tree_and_cleaned_too(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree = cache / fetch.docker_tree_name(fetch.read_host())
    tree.mkdir()
    assert main(["docker"]) == 0
    assert capsys.readouterr().out == f"{tree}\n"
    assert main(["clean"]) == 0
    assert not tree.exists()


def test_ctrl_c_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(progress: object) -> Path:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "ensure", interrupted)
    assert main(["fetch"]) == 130
    assert capsys.readouterr().err == "testbed: interrupted; nothing half-made was left behind\n"


def test_an_error_is_one_sentence_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TIDEWISE_CACHE", "/tmp/my cache")
    assert main(["fetch"]) == 1
    assert capsys.readouterr().err == (
        "testbed: the cache folder '/tmp/my cache' has a blank, colon, quote or bracket in its path, "
        "which apt cannot take: set TIDEWISE_CACHE to another folder\n"
    )
