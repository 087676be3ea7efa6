"""What Tidewise calls: asks the foreman how many workers there are, tells it how many there shall be, restarts one.

`python -m demo.fleet get|set N|restart WORKER|serve --folder DIR`. All but `serve` talk to the foreman over a Unix
socket and import next to nothing, so that a call takes some hundredths of a second. `set` is absolute: told twice, it
changes nothing.
"""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any, NamedTuple

USAGE = """usage: python -m demo.fleet get --folder DIR              prints {"replicas": …, "ready": …, "draining": …}
       python -m demo.fleet set N [--first A,B] …         how many workers there shall be, and who goes first
       python -m demo.fleet restart worker-03 …           ends this one, however it is, and starts it anew
       python -m demo.fleet workers …                     each worker, with its process id
       python -m demo.fleet serve --folder DIR --redis URL [--start-up S] [--workers N]"""
SOCKET = "fleet.sock"
TIMEOUT_SECONDS = 3.0


class FleetError(Exception):
    """The foreman does not answer or refuses. `str()` says what to do."""


class State(NamedTuple):
    """wanted: what the fleet was last told; ready: workers past their start-up; starting, draining: on their way."""

    wanted: int
    ready: int
    starting: int
    draining: int


def socket_path(descriptor: int) -> str:
    """The socket's path by way of the opened folder: a Unix socket's path may only be some hundred characters long."""
    return f"/proc/self/fd/{descriptor}/{SOCKET}"


def ask(folder: Path, request: dict[str, object]) -> dict[str, object]:
    """One request, one answer. Raises FleetError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise FleetError(f"{folder}: {error.strerror}; give the demo's folder with --folder") from None
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(TIMEOUT_SECONDS)
            connection.connect(socket_path(descriptor))
            connection.sendall(json.dumps(request).encode() + b"\n")
            answer = connection.makefile("rb").readline()
    except OSError as error:
        raise FleetError(
            f"{folder / SOCKET}: the fleet's foreman does not answer ({error}); is the demo running?"
        ) from None
    finally:
        os.close(descriptor)
    try:
        data = json.loads(answer)
    except ValueError:
        raise FleetError(f"{folder / SOCKET}: found the answer {answer!r}; the foreman died while answering") from None
    if "error" in data:
        raise FleetError(str(data["error"]))
    return dict(data)


def read_state(folder: Path) -> State | None:
    """The fleet now, None when the foreman does not answer."""
    try:
        answer = ask(folder, {"do": "get"})
    except FleetError:
        return None
    return State(*(int(str(answer[key])) for key in ("replicas", "ready", "starting", "draining")))


def read_workers(folder: Path) -> list[dict[str, Any]]:
    """Each worker: its name, stage, process id and since when (monotonic). Empty when the foreman does not answer."""
    try:
        answer = ask(folder, {"do": "workers"})["workers"]
    except FleetError:
        return []
    return list(answer) if isinstance(answer, list) else []


def _option(argv: list[str], name: str, default: str) -> tuple[list[str], str]:
    """What is left of the arguments without this option, and its value."""
    if name not in argv[:-1]:
        return argv, default
    at = argv.index(name)
    return argv[:at] + argv[at + 2 :], argv[at + 1]


def _print_replicas(answer: dict[str, object]) -> None:
    print(json.dumps({key: answer[key] for key in ("replicas", "ready", "draining")}))


def main(argv: list[str]) -> int:
    if argv[:1] == ["serve"]:
        from demo.foreman import serve  # only the daemon pays for what it imports

        return serve(argv[1:])
    argv, folder = _option(argv, "--folder", ".demo")
    argv, named = _option(argv, "--first", "")
    try:
        match argv:
            case ["get"]:
                _print_replicas(ask(Path(folder), {"do": "get"}))
            case ["set", number] if number.isdecimal():
                first = [name for name in named.split(",") if name]
                _print_replicas(ask(Path(folder), {"do": "set", "replicas": int(number), "first": first}))
            case ["restart", worker]:
                ask(Path(folder), {"do": "restart", "worker": worker})
                print(f"{worker}: restarted")
            case ["workers"]:
                print(json.dumps(ask(Path(folder), {"do": "workers"})["workers"]))
            case ["--help" | "-h"]:
                print(USAGE)
            case _:
                print(f"found {' '.join(argv) or 'nothing'!r}\n{USAGE}", file=sys.stderr)
                return 2
    except FleetError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
