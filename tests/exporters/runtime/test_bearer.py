"""Who may command a process: 200, 401 or 503, whatever is in the file and in the header."""

import json
import os
from pathlib import Path

import pytest

from exporters.runtime.bearer import TokenError, read_token, refused
from exporters.runtime.endpoint import Request, Response

TOKEN = "a-token-of-the-tests-0123456789"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(TOKEN + "\n")
    return path


def asked(header: str | None, file: Path | None) -> Response | None:
    headers = {} if header is None else {"authorization": header}
    return refused(Request("POST", "/permit", {}, headers, b""), file, "budget.token_file")


@pytest.mark.parametrize("header", [f"Bearer {TOKEN}", f"bearer  {TOKEN} "])
def test_the_right_token_passes(file: Path, header: str) -> None:
    assert asked(header, file) is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        TOKEN,
        f"Basic {TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        "Bearer \udcff",
    ],
)
def test_anything_else_is_401_and_says_how_to_ask(file: Path, header: str | None) -> None:
    answer = asked(header, file)
    assert answer is not None
    assert (answer.status, answer.headers) == (401, {"WWW-Authenticate": "Bearer"})
    assert json.loads(answer.body) == {"error": "send the token of budget.token_file as 'Authorization: Bearer TOKEN'"}


@pytest.mark.parametrize(
    ("sentence", "content", "said"),
    [
        ("not configured", None, "budget.token_file is not configured, so nobody can prove who they are"),
        ("not there", b"", "the token cannot be read (No such file or directory); check budget.token_file"),
        ("empty", b"\n", "a token is one line of 16 to 4096 characters without spaces"),
        ("short enough to be guessed", b"secret\n", "a token is one line"),
        ("two lines", f"{TOKEN}\n{TOKEN}\n".encode(), "a token is one line"),
        ("endless", b"x" * 5000, "a token is one line"),
        ("no text", b"\xff" * 40, "it is not plain text"),
    ],
)
def test_without_a_token_to_compare_with_nobody_is_served_not_even_with_it(
    file: Path, sentence: str, content: bytes | None, said: str
) -> None:
    file.write_bytes(content or b"")
    if content == b"":
        file.unlink()
    given = (content or b"").decode("latin-1").strip()
    answer = asked(f"Bearer {given}", None if content is None else file)
    assert answer is not None
    assert answer.status == 503, sentence
    assert said in json.loads(answer.body)["error"]


def test_a_changed_token_counts_at_the_next_request(file: Path) -> None:
    file.write_text("another-token-0123456789")
    assert asked(f"Bearer {TOKEN}", file) is not None
    assert asked("Bearer another-token-0123456789", file) is None


def test_a_folder_in_place_of_the_file_is_said(file: Path) -> None:
    file.unlink()
    os.mkdir(file)
    with pytest.raises(TokenError, match="Is a directory"):
        read_token(file, "scale.token_file")
