"""The lines of ours in HAProxy's configuration: read, and written anew in one step.

They stand in the backend's own section, between two marks, so that a reload has the servers that are wanted:

    backend be_app
      …
      # tidewise: begin
      server tidewise-10.0.0.5:8000 10.0.0.5:8000 check # serving since 1800000000.000
      server tidewise-10.0.0.5:8001 10.0.0.5:8001 check disabled # leaving since 1800000060.000
      # failed tidewise-10.0.0.5:8002 1 times, last at 1800000030.000
      # tidewise: end

Only servers that serve take requests after a reload; the others are `disabled` until the next call goes on with them.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from controllers.actuators.haproxy_plan import Block, Entry, Failure, Role, slot_of
from controllers.actuators.interface import ActuatorError, PermanentError
from exporters.runtime.durable import sync_folder

BEGIN, END = "# tidewise: begin", "# tidewise: end"
NOTE = "# between the marks, tidewise writes; it writes anew with every change of the number"
_SECTIONS = re.compile(
    "global|defaults|frontend|backend|listen|peers|userlist|resolvers|mailers|cache|program|ring|http-errors|fcgi-app|"
    "log-forward|log-profile|crt-store|traces|acme"
)
_SERVER = re.compile(
    r"server (?P<name>\S+) (?P<address>\S+) .*# (?P<role>starting|serving|leaving) since (?P<since>\d+\.\d+)"
)
_FAILED = re.compile(r"# failed (?P<name>\S+) (?P<count>\d+) times, last at (?P<at>\d+\.\d+)")
_ADDRESS = re.compile(r"\[?([0-9A-Fa-f:.]+?)\]?:(\d+)")


def find_block(text: str, backend: str, where: str) -> tuple[int, int]:
    """The lines [begin, end) of `text` between the backend's two marks. Raises PermanentError. `where`: the file."""
    section = None
    begin = end = found_backend = None
    for number, line in enumerate(text.splitlines()):
        words = line.split()
        if words and _SECTIONS.fullmatch(words[0]):
            section = words[1] if words[0] in ("backend", "listen") and len(words) > 1 else None
            found_backend = number if section == backend else found_backend
        if section != backend:
            continue
        if line.strip() == BEGIN:
            if begin is not None:
                raise PermanentError(f"{where}: line {number + 1}: a second '{BEGIN}' in backend {backend}; keep one")
            begin = number + 1
        if line.strip() == END and begin is not None and end is None:
            end = number
    if begin is None or end is None:
        found = "no section of it" if found_backend is None else "no place for its servers"
        raise PermanentError(
            f"{where}: backend {backend}: found {found}; into `backend {backend}`, write the two lines "
            f"'{BEGIN}' and '{END}'"
        )
    return begin, end


def default_servers(text: str, backend: str) -> list[int]:
    """Lines of `default-server` that the backend's servers get at a reload, and not when they are added meanwhile."""
    found, counts = [], False
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and _SECTIONS.fullmatch(words[0]):
            counts = words[0] == "defaults" or words[:2] in (["backend", backend], ["listen", backend])
        elif words and counts and words[0] == "default-server":
            found.append(number)
    return found


def parsed(text: str, backend: str, prefix: str, where: str) -> Block:
    """The block as written. Raises PermanentError where somebody else's lines stand in it."""
    begin, end = find_block(text, backend, where)
    entries: list[Entry] = []
    failures: list[Failure] = []
    for number, line in enumerate(map(str.strip, text.splitlines()[begin:end]), begin + 1):
        server, failed = _SERVER.fullmatch(line), _FAILED.fullmatch(line)
        if failed:
            failures.append(Failure(failed["name"], int(failed["count"]), float(failed["at"])))
        elif server and (address := _ADDRESS.fullmatch(server["address"])):
            slot = slot_of(prefix, address[1], int(address[2]))
            if slot.name != server["name"]:
                raise PermanentError(
                    f"{where}: line {number}: the server {server['name']} is not called {slot.name}; was `prefix` "
                    "changed? Set it back, scale down, and change it then"
                )
            entries.append(Entry(slot, Role(server["role"]), float(server["since"])))
        elif line and line != NOTE:
            raise PermanentError(
                f"{where}: line {number}: {line[:60]!r} stands between the marks and is not of ours; move it out"
            )
    return Block(tuple(entries), tuple(failures))


def rendered(text: str, block: Block, backend: str, options: str, where: str) -> str:
    """The whole file with this block, everything else as it was. Raises PermanentError where the marks are missing."""
    begin, end = find_block(text, backend, where)
    lines = text.splitlines(keepends=True)
    mark = lines[begin - 1]
    indent = mark[: len(mark) - len(mark.lstrip())]
    ours = [NOTE]
    for entry in block.entries:
        hidden = "" if entry.role is Role.SERVING else " disabled"
        server = f"server {entry.slot.name} {entry.slot.address} {options}{hidden}"
        ours.append(f"{server} # {entry.role} since {entry.since:.3f}")
    ours += [f"# failed {one.name} {one.count} times, last at {one.at:.3f}" for one in block.failures]
    return "".join([*lines[:begin], *(f"{indent}{line}\n" for line in ours), *lines[end:]])


def read(path: Path) -> str:
    """Raises PermanentError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise PermanentError(
            f"{path}: cannot be read ({reason}); `file` is the part of HAProxy's configuration with the backend in it"
        ) from None


def write(path: Path, text: str) -> None:
    """The whole file anew, with its owner and mode: as it was or as it is now, whenever HAProxy or a power cut comes.

    Raises ActuatorError.
    """
    path = path.resolve()  # a link stays one
    fresh = path.with_name(f".{path.name}.tidewise-new")  # hidden: HAProxy leaves it out when it reads a folder
    try:
        before = path.stat()
        fresh.unlink(missing_ok=True)
        with fresh.open("x", encoding="utf-8") as file:
            os.fchmod(file.fileno(), stat.S_IMODE(before.st_mode))
            if os.geteuid() == 0:
                os.fchown(file.fileno(), before.st_uid, before.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            fresh.unlink(missing_ok=True)
        raise ActuatorError(
            f"{path}: cannot be written ({error.strerror}); make room, or let tidewise write in {path.parent}"
        ) from None


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Nobody else changes the servers meanwhile. Raises ActuatorError when somebody does now.

    A process that is ended lets go by that.
    """
    read(path)  # says it better when the whole path is wrong
    path = path.resolve()
    lock = path.with_name(f".{path.name}.tidewise-lock")
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ActuatorError(
            f"{lock}: cannot be written ({error.strerror}); let tidewise write in {path.parent}"
        ) from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ActuatorError(
                f"{path}: another tidewise is changing the servers; is `tidewise scale` running twice?"
            ) from None
        except OSError as error:
            raise ActuatorError(
                f"{lock}: cannot be locked ({error.strerror}); keep HAProxy's configuration on a disk that has locks"
            ) from None
        yield
    finally:
        os.close(descriptor)
