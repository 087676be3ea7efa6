"""Questions to one Docker daemon, each within a deadline, its refusals made into sentences."""

import contextlib
import errno
import time
from collections.abc import Iterator, Mapping
from typing import Any

from controllers.actuators.interface import ActuatorError, PermanentError
from controllers.config import DockerTarget

# What the daemon says when it cannot do it this time either, and what to do.
_HOPELESS = {
    "port is already allocated": "two containers cannot have one port of the host; publish none, or a range",
    "address already in use": "two containers cannot have one port or address; publish none, or a range",
    "No such image": "pull or build it",
    "device or resource busy": "a device can be held by one container",
}


class NotThereError(ActuatorError):
    """The container or image is gone."""


class NameTakenError(ActuatorError):
    """A container of that name is there already."""


class Daemon:
    """Where it is and how it is spoken to. Its API's version is asked once."""

    def __init__(self, target: DockerTarget) -> None:
        self._target = target
        self._version: str | None = None

    @contextlib.contextmanager
    def client(self, until: float) -> Iterator["Client"]:
        """One connection, for one thread. Raises ActuatorError."""
        if self._version is None:
            with contextlib.closing(self._connected(None)) as raw:
                self._version = str(
                    Client(raw, self._target.host, until).ask("version", api_version=False)["ApiVersion"]
                )
        with contextlib.closing(self._connected(self._version)) as raw:
            yield Client(raw, self._target.host, until)

    def _connected(self, version: str | None) -> Any:
        """Nothing is sent yet."""
        try:
            from docker import APIClient
            from docker.constants import MINIMUM_DOCKER_API_VERSION
            from docker.errors import DockerException
            from docker.tls import TLSConfig
        except ImportError:
            raise PermanentError("target.docker: needs the package docker; install tidewise[docker]") from None

        target = self._target
        tls: Any = False
        try:
            if target.ca_file or target.cert_file:
                pair = (str(target.cert_file), str(target.key_file)) if target.cert_file else None
                tls = TLSConfig(client_cert=pair, ca_cert=str(target.ca_file) if target.ca_file else None, verify=True)
            raw = APIClient(target.host, version or MINIMUM_DOCKER_API_VERSION, tls=tls)
        except (DockerException, OSError) as error:
            raise PermanentError(f"target.docker: {target.host} cannot be spoken to: {error}") from None
        raw.trust_env = False  # proxies of the environment are not on the way to a socket
        return raw


class Client:
    """One connection to it, until a time (monotonic clock)."""

    def __init__(self, raw: Any, host: str, until: float) -> None:
        self._raw = raw
        self._host = host
        self._until = until

    def ask(self, call: str, *arguments: Any, **options: Any) -> Any:
        """The answer of the library's function `call`. Raises ActuatorError and its kinds."""
        import requests
        from docker.errors import APIError, DockerException

        left = self._until - time.monotonic()
        if left <= 0:
            raise ActuatorError(
                f"{self._host}: no time was left to ask for {call}; the next decision goes on from there"
            )
        self._raw.timeout = left
        try:
            return getattr(self._raw, call)(*arguments, **options)
        except APIError as error:
            raise self._refusal(call, arguments, error) from None
        except requests.exceptions.Timeout:
            raise ActuatorError(
                f"{self._host}: no answer to {call} within {left:.1f} s; is the daemon hanging?"
            ) from None
        except (requests.exceptions.RequestException, DockerException, OSError) as error:
            raise self._unreachable(error) from None

    def stop(self, container: str, grace_seconds: float) -> None:
        """Waits for its end; after the grace period it is killed."""
        self._until -= grace_seconds  # the library adds them again
        try:
            self.ask("stop", container, timeout=round(grace_seconds))
        finally:
            self._until += grace_seconds

    def connect(self, network: str, container: str, endpoint: Mapping[str, Any]) -> None:
        self.ask(
            "connect_container_to_network",
            container,
            network,
            aliases=endpoint.get("Aliases"),
            links=endpoint.get("Links"),
            driver_opt=endpoint.get("DriverOpts"),
        )

    def _refusal(self, call: str, arguments: tuple[Any, ...], error: Any) -> ActuatorError:
        said = str(error.explanation or error).strip()
        status = error.status_code
        where = f"{self._host}: {call}: {status}: {said}"
        if status == 404 and "network" not in said and call != "create_container_from_config":
            return NotThereError(where)
        if status == 409 and call == "create_container_from_config":
            return NameTakenError(where)
        if status in (401, 403):
            return PermanentError(f"{where}; whoever guards the daemon has to allow this")
        hopeless = next((what for words, what in _HOPELESS.items() if words in said), None)
        return PermanentError(f"{where}; {hopeless}") if hopeless else ActuatorError(where)

    def _unreachable(self, error: BaseException) -> ActuatorError:
        number = _errno(error)
        if number == errno.EACCES:
            return PermanentError(
                f"{self._host}: no right to it; add this user to the group that owns the socket (usually docker), "
                "which is as good as root"
            )
        if number in (errno.ENOENT, errno.ECONNREFUSED):
            return ActuatorError(f"{self._host}: no daemon answers there; is Docker running, and is that its socket?")
        return ActuatorError(f"{self._host}: the connection failed: {error}")


def _errno(error: BaseException | None) -> int | None:
    """Of the operating system's error somewhere inside the libraries' own."""
    seen: list[Any] = [error]
    while seen:
        one = seen.pop()
        if isinstance(one, OSError) and isinstance(one.errno, int):
            return one.errno
        if isinstance(one, BaseException):
            seen += [one.__cause__, one.__context__, *one.args, getattr(one, "reason", None)]
    return None
