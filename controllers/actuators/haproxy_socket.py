"""HAProxy's runtime socket: its commands, its answers as values, and its refusals as sentences.

Columns are found by their names: HAProxy 2.6 to 3.x have the same ones, and newer ones add to the right.
"""

import csv
import socket
import time
from dataclasses import dataclass

from controllers.actuators.haproxy_plan import Seen, Slot
from controllers.actuators.interface import ActuatorError, PermanentError

ANSWER_LIMIT_BYTES = 16 * 2**20
# of srv_admin_state; 0x04 only says that it began as `disabled`, and stays when it no longer is
_MAINTENANCE, _DRAIN = 0x01 | 0x02 | 0x20 | 0x40, 0x08 | 0x10
_RUNNING = 2  # of srv_op_state; 1 is one that starts slowly
_PASSED = 3  # of srv_check_result


class BusyError(ActuatorError):
    """The server still has connections, so it cannot be removed yet."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """The socket at `address` (a path, or HOST:PORT) and the backend that is asked about."""

    address: str
    backend: str

    def ask(self, command: str, until: float) -> str:
        """The answer to one command, by `until` on the monotonic clock. Raises ActuatorError."""
        try:
            with self._connected(until) as connection:
                connection.sendall(f"{command}\n".encode())
                answer = bytearray()
                while len(answer) <= ANSWER_LIMIT_BYTES:
                    connection.settimeout(_left(until))
                    some = connection.recv(65536)
                    if not some:
                        return answer.decode(errors="replace")
                    answer += some
        except TimeoutError:
            raise ActuatorError(f"{self.address}: HAProxy did not answer '{command}' in time; is it hanging?") from None
        except PermissionError:
            raise PermanentError(
                f"{self.address}: no right to open HAProxy's socket; let tidewise's user in, by `mode 660 group …` of "
                "the `stats socket` line"
            ) from None
        except OSError as error:
            raise ActuatorError(
                f"{self.address}: HAProxy cannot be reached ({error.strerror or error}); is it running, with "
                f"`stats socket {self.address} level admin`?"
            ) from None
        raise ActuatorError(f"{self.address}: '{command}' was answered by more than {ANSWER_LIMIT_BYTES >> 20} MB")

    def tell(self, command: str, until: float) -> None:
        """A command that changes something. Raises BusyError, PermanentError, ActuatorError."""
        refuse(self.ask(command, until), command, self.address, self.backend)

    def seen(self, until: float) -> dict[str, Seen]:
        """The backend's servers by name. Raises ActuatorError."""
        states = self.ask(f"show servers state {self.backend}", until)
        return servers(states, self.ask(f"show stat {self.backend} 4 -1", until), self.address, self.backend)

    def uptime_seconds(self, until: float) -> float:
        """Of the process that answers: it is short after a reload. Raises ActuatorError."""
        answer = self.ask("show info", until)
        refuse_reading(answer, "show info", self.address, self.backend)
        for line in answer.splitlines():
            key, _, value = line.partition(":")
            if key == "Uptime_sec" and value.strip().isdigit():
                return float(value)
        raise _unreadable("show info", answer, self.address)

    def _connected(self, until: float) -> socket.socket:
        host, _, port = self.address.rpartition(":")
        if self.address.startswith("/"):
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.settimeout(_left(until))
                connection.connect(self.address)
            except BaseException:
                connection.close()
                raise
            return connection
        return socket.create_connection((host.strip("[]"), int(port)), timeout=_left(until))


def _left(until: float) -> float:
    left = until - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def servers(states: str, stats: str, where: str, backend: str) -> dict[str, Seen]:
    """The answers to `show servers state` and `show stat` together. Raises ActuatorError where they are cut or wrong.

    Whoever is in one of them only has come or gone between the two, and is left out.
    """
    refuse_reading(states, "show servers state", where, backend)
    refuse_reading(stats, "show stat", where, backend)
    rows = {row["svname"]: row for row in csv.DictReader(stats.removeprefix("# ").splitlines()) if row.get("svname")}
    lines = states.splitlines()
    if not stats.startswith("# pxname,svname,") or not _is_whole(stats):
        raise _unreadable("show stat", stats, where)
    if lines[:1] != ["1"] or len(lines) < 2 or not lines[1].startswith("# be_id ") or not _is_whole(states):
        raise _unreadable("show servers state", states, where)
    columns = lines[1].removeprefix("# ").split()
    found: dict[str, Seen] = {}
    for line in filter(None, lines[2:]):
        values = dict(zip(columns, line.split(), strict=False))
        try:
            row = rows.get(values["srv_name"])
            admin = int(values["srv_admin_state"])
            slot = Slot(values["srv_name"], values["srv_addr"], int(values["srv_port"]))
            if row is not None:
                found[slot.name] = Seen(
                    slot,
                    maintenance=bool(admin & _MAINTENANCE),
                    draining=bool(admin & _DRAIN),
                    running=int(values["srv_op_state"]) in (1, _RUNNING),
                    passed=int(values["srv_check_result"]) >= _PASSED,
                    sessions=int(row["scur"]) + int(row["qcur"]),
                    check=" ".join(filter(None, (row.get("check_status"), row.get("last_chk")))),
                )
        except (KeyError, ValueError, TypeError):
            raise _unreadable("show servers state", line, where) from None
    return found


def _is_whole(answer: str) -> bool:
    """HAProxy ends each answer with an empty line; one that is cut has none."""
    return answer.endswith("\n\n")


def refuse_reading(answer: str, command: str, where: str, backend: str) -> None:
    """Raises PermanentError where the answer to a question is a refusal."""
    said = answer.strip()
    if "Permission denied" in said[:200]:
        raise PermanentError(f"{where}: '{command}' is refused; give the `stats socket` line `level admin`")
    if said.startswith(("Can't find backend", "No such proxy", "No such backend")):
        raise PermanentError(f"{where}: HAProxy has no backend {backend}; correct `backend`, or reload HAProxy")
    if said.startswith("Unknown command"):
        raise PermanentError(f"{where}: HAProxy does not know '{command}'; 2.6 or newer is needed")


def refuse(answer: str, command: str, where: str, backend: str) -> None:
    """Raises what an answer to a change means, unless it was done: HAProxy says nothing then, or that it was."""
    said = " ".join(answer.split())
    if said in ("", "New server registered.", "Server deleted."):
        return
    refuse_reading(answer, command, where, backend)
    if "dynamic load balancing" in said:
        raise PermanentError(
            f"{where}: backend {backend} has a `balance` that cannot take servers while HAProxy runs; choose one of "
            "roundrobin, leastconn, random, or `hash-type consistent`"
        )
    if said.startswith("Server still has"):
        raise BusyError(f"{where}: {command}: {said}")
    if "unknown keyword" in said.lower() or "not supported for dynamic servers" in said:
        raise PermanentError(f"{where}: '{command}': {said[:200]}; correct `options`")
    raise ActuatorError(f"{where}: '{command}' was answered: {said[:200]}")


def _unreadable(command: str, answer: str, where: str) -> ActuatorError:
    return ActuatorError(
        f"{where}: the answer to '{command}' is not whole or not HAProxy's: {answer.strip()[:80]!r}; is that its "
        "`stats socket`?"
    )
