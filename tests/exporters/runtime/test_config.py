"""The YAML reader: one bad file a mistake, with its exact sentence."""

from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field

from exporters.runtime.config import ConfigError, ListenAddress, Section, read_yaml, split_address, validate


class Part(Section):
    name: str
    size: Annotated[int, Field(ge=1)] = 1
    kind: Literal["soft", "hard"] = "soft"
    file: Path = Path("x")


class Whole(Section):
    parts: list[Part] = []
    by_name: dict[str, Part] = {}
    listen: list[ListenAddress] = []
    one: Part | None = None


def problem(tmp_path: Path, text: str | bytes) -> str:
    """The sentences that reading and validating this file gives, its folder cut off."""
    path = tmp_path / "tidewise.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(ConfigError) as refused:
        validate(Whole, read_yaml(path)["exporters"], path, prefix=("exporters",))
    return str(refused.value).replace(f"{path}: ", "")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        pytest.param(
            "a: [1\n",
            "line 2, column 1: not valid YAML (while parsing a flow sequence expected ',' or ']', "
            "but got '<stream end>'); check indentation and quotes there",
            id="YAML that breaks off",
        ),
        pytest.param(
            "exporters:\n  listen: []\n  listen: []\n",
            "line 3, column 3: the key 'listen' stands twice; remove one",
            id="a key that stands twice",
        ),
        pytest.param("", "the file is empty; docs/configuration.md shows a first one of 15 lines", id="an empty file"),
        pytest.param(
            "- a\n",
            "found a list at the top level; it must be a mapping with sections such as 'workloads:'",
            id="a list",
        ),
        pytest.param("exporter: {}\n", "exporter: unknown section; did you mean 'exporters'?", id="a misspelt section"),
        pytest.param(
            "exporters: {parts: [{nam: x, name: y}]}",
            "exporters.parts.0.nam: unknown key; did you mean 'name'?",
            id="a misspelt key in a list",
        ),
        pytest.param(
            "exporters: {by_name: {a: {name: x, kinds: soft}}}",
            "exporters.by_name.a.kinds: unknown key; did you mean 'kind'?",
            id="a misspelt key in a mapping",
        ),
        pytest.param(
            "exporters: {one: {zzz: 1, name: x}}",
            "exporters.one.zzz: unknown key; known here: file, kind, name, size",
            id="a key like no other in an optional part",
        ),
        pytest.param("exporters: {parts: [{}]}", "exporters.parts.0.name: is missing; add it", id="a missing key"),
        pytest.param(
            "exporters: {one: {name: x, size: 0}}",
            "exporters.one.size: found 0; it must be at least 1",
            id="a number out of bounds",
        ),
        pytest.param(
            "exporters: {one: {name: x, kind: medium}}",
            "exporters.one.kind: found 'medium'; it must be 'soft' or 'hard'",
            id="a word that is not offered",
        ),
        pytest.param(
            "exporters: {one: {name: x, file: 5}}",
            "exporters.one.file: found 5; it must be the name of a file or folder",
            id="a number in place of a file",
        ),
        pytest.param(
            "exporters: {one: name}",
            "exporters.one: found 'name'; it must be a mapping",
            id="text in place of a mapping",
        ),
        pytest.param(
            "exporters: {listen: [localhost]}",
            "exporters.listen.0: 'localhost' is not an address; "
            "write HOST:PORT, for example 127.0.0.1:9811 or [::1]:9811",
            id="an address without a port",
        ),
        pytest.param(
            "exporters: {parts: [{size: 0}], lissen: []}",
            "exporters.parts.0.name: is missing; add it\n"
            "exporters.parts.0.size: found 0; it must be at least 1\n"
            "exporters.lissen: unknown key; did you mean 'listen'?",
            id="three mistakes are three lines",
        ),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    assert problem(tmp_path, text) == sentence


def test_a_missing_file_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        read_yaml(tmp_path / "none.yaml")
    assert str(refused.value) == f"{tmp_path}/none.yaml: no such file; create it, or name another with --config"


def test_a_file_that_is_no_text_says_so(tmp_path: Path) -> None:
    assert problem(tmp_path, b"\xff\xfe").endswith("check its permissions and that it is UTF-8")


def test_merge_keys_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "tidewise.yaml"
    path.write_text("exporters:\n  a: &a {x: 1}\n  b: {<<: *a, y: 2}\n")
    assert read_yaml(path)["exporters"]["b"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:0", ("127.0.0.1", 0)), ("[::1]:9811", ("::1", 9811)), (":65535", ("", 65535)), ("a.b:1", ("a.b", 1))],
)
def test_an_address_is_split(text: str, parts: tuple[str, int]) -> None:
    assert split_address(text) == parts


@pytest.mark.parametrize("text", ["", "9811", "a:", "a:-1", "a:65536", "a:٣", "::1:80", "[::1:80", "::1]:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an address|needs brackets"):
        split_address(text)
