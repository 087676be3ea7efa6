"""Reads the one YAML file and turns every mistake into a sentence: file, path, what was found, what to do."""

import difflib
import types
from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

M = TypeVar("M", bound=BaseModel)

# Every section of the file. A process validates the ones it needs; a misspelt section is an error for all of them.
SECTIONS = ("prometheus", "exporters", "workloads", "forecast", "scale", "budget", "recovery")


class ConfigError(Exception):
    """The configuration cannot be used. `str()` is one line a mistake, ready to be shown."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


class Section(BaseModel):
    """Base of every configuration model: unknown keys are refused, values never change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


T = TypeVar("T", bound=Hashable)


def repeated(values: Iterable[T]) -> T | None:
    """The first value that stands there for the second time; None where each stands once."""
    seen: set[T] = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)
    return None


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of HOST:PORT, brackets taken off; an empty host means every interface. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ValueError(f"'{text}' is not an address; write HOST:PORT, for example 127.0.0.1:9811 or [::1]:9811")
    if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
        raise ValueError(f"'{text}': an IPv6 address needs brackets, for example [::1]:9811")
    return host.strip("[]"), int(port)


def _listen_address(text: str) -> str:
    split_address(text)
    return text


ListenAddress = Annotated[str, AfterValidator(_listen_address)]


def _http_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        bare = not (parts.username or parts.password or parts.query or parts.fragment)
    except ValueError:
        usable, bare = False, True
    if not bare:  # it may hold a secret: it is not repeated
        raise ValueError("holds more than scheme, host, port and path; keys and passwords go into files")
    if not usable:
        raise ValueError(f"'{text[:100]}' is no address; write http://HOST:PORT or https://HOST")
    return text.rstrip("/")


HttpUrl = Annotated[str, AfterValidator(_http_url)]  # an address without a secret in it


def read_yaml(path: Path) -> dict[str, Any]:
    """The configuration's top level as a dict. Raises ConfigError also for a section that nobody knows."""
    data = parse_yaml(path, "--config", "docs/configuration.md shows a first one of 15 lines", "workloads")
    problems = [f"{path}: {key}: unknown section{nearest(str(key), SECTIONS)}" for key in data if key not in SECTIONS]
    if problems:
        raise ConfigError(problems)
    return data


def parse_yaml(path: Path, option: str, example: str, section: str) -> dict[str, Any]:
    """The top level of any YAML file as a dict. Raises ConfigError for a missing, unreadable or ill-formed file.

    For its sentences: the `option` that names the file, where an `example` is shown, and a `section` it may have.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file; create it, or name another with {option}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: cannot be read ({error}); check its permissions and that it is UTF-8"]) from None
    import yaml  # a megabyte that a process without a configuration does not carry

    from exporters.runtime.unique import DuplicateKeyError, UniqueKeyLoader

    try:
        data = yaml.load(text, Loader=UniqueKeyLoader)  # noqa: S506 - a SafeLoader that also refuses duplicate keys
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        if isinstance(error, DuplicateKeyError):
            raise ConfigError([f"{path}: {where}{error.problem}; remove one"]) from None
        # PyYAML says what it was doing and what was wrong; either half alone may be without sense.
        said = [getattr(error, part, None) for part in ("context", "problem")]
        problem = " ".join(text for text in said if text) or str(error)
        raise ConfigError([f"{path}: {where}not valid YAML ({problem}); check indentation and quotes there"]) from None
    if data is None:
        raise ConfigError([f"{path}: the file is empty; {example}"])
    if not isinstance(data, dict):
        raise ConfigError(
            [f"{path}: found {_kind(data)} at the top level; it must be a mapping with sections such as '{section}:'"]
        )
    return data


def validate(model: type[M], data: Mapping[str, Any], path: Path, prefix: tuple[str | int, ...] = ()) -> M:
    """`data` as `model`. Raises ConfigError with one line a mistake, each with its path inside the file."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigError([f"{path}: {sentence}" for sentence in sentences(error, model, prefix)]) from None


def sentences(error: ValidationError, model: type[BaseModel], prefix: tuple[str | int, ...] = ()) -> list[str]:
    """One 'path: what was found; what to do' a mistake."""
    return [_sentence(detail, model, prefix) for detail in error.errors(include_url=False)]


def _sentence(detail: ErrorDetails, model: type[BaseModel], prefix: tuple[str | int, ...]) -> str:
    where = ".".join(str(part) for part in (*prefix, *detail["loc"])) or "(top level)"
    found = detail["input"]
    match detail["type"]:
        case "extra_forbidden":
            return f"{where}: unknown key{nearest(str(detail['loc'][-1]), _known_keys(model, detail['loc'][:-1]))}"
        case "missing":
            return f"{where}: is missing; add it"
        case "value_error":
            return f"{where}: {detail['ctx']['error']}"
        case "model_type" | "dict_type":
            return f"{where}: found {_described(found)}; it must be a mapping"
        case "finite_number":
            return f"{where}: found {_shown(found)}; it must be a finite number"
        case kind if kind in _EXPECTED:
            limits = {name: f"{x:g}" if isinstance(x, float) else x for name, x in detail.get("ctx", {}).items()}
            return f"{where}: found {_described(found)}; it must be {_EXPECTED[kind].format(**limits)}"
        case _:
            message = detail["msg"][0].lower() + detail["msg"][1:]
            return f"{where}: found {_shown(found)}; {message.replace('input should', 'it must')}"


# What pydantic's kinds of mistake ask for, after "it must be".
_EXPECTED = {
    "list_type": "a list",
    "path_type": "the name of a file or folder",
    "string_type": "text (in quotes, if it looks like a number)",
    "float_type": "a number",
    "float_parsing": "a number",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
    "string_too_short": "at least {min_length} characters long",
    "string_too_long": "at most {max_length} characters long",
    "enum": "{expected}",
    "literal_error": "{expected}",
}


def nearest(word: str, known: tuple[str, ...] | list[str]) -> str:
    """The end of an error sentence: the known word that was probably meant, else all of them."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known here: {', '.join(sorted(known))}" if known else "; nothing may stand here"


def _known_keys(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys that the model at `loc` knows, following lists, dicts, unions and optional values."""
    current: list[Any] = [model]
    for part in loc:
        following: list[Any] = []
        for kind in current:
            if isinstance(part, int) or get_origin(kind) is dict:
                following += list(get_args(kind))
            elif isinstance(kind, type) and issubclass(kind, BaseModel) and part in kind.model_fields:
                following += _models_in(kind.model_fields[str(part)].annotation)
        current = [inner for kind in following for inner in _models_in(kind)]
    return [
        field.alias or key
        for kind in current
        if isinstance(kind, type) and issubclass(kind, BaseModel)
        for key, field in kind.model_fields.items()
    ]


def _models_in(annotation: Any) -> list[Any]:
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType, Annotated):
        return [inner for argument in get_args(annotation) for inner in _models_in(argument)]
    if origin is Literal or annotation is types.NoneType:
        return []
    return [annotation]


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _described(value: object) -> str:
    """The value, with its kind where that is not seen at once."""
    if value is None:
        return "nothing"
    return f"{_kind(value)} {_shown(value)}" if isinstance(value, (dict, list)) else _shown(value)


def _kind(value: object) -> str:
    return {
        dict: "a mapping",
        list: "a list",
        str: "text",
        int: "a number",
        float: "a number",
        bool: "true or false",
        type(None): "nothing",
    }.get(type(value), type(value).__name__)
