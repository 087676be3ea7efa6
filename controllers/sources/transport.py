"""One exchange with a deadline that holds, be the other side silent or answering a byte a second.

A blocking client only limits the time between two bytes, and name resolution not at all. So the exchange runs in a
thread of its own and the asker waits for it no longer than the deadline. What is left behind is shut down; where
that is not possible (the headers are still dripping in), few such leftovers are tolerated before nothing more is asked.
"""

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import requests
from urllib3.exceptions import HTTPError

from controllers.sources.answer import Kind, SourceError

MAX_BYTES = 64 * 2**20  # of one answer, unpacked
MAX_LEFT_BEHIND = 8


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]  # looked up without regard to case
    body: bytes


class Transport:
    """Asks by one session (connections are kept alive); may be used from several threads."""

    def __init__(self, session: requests.Session) -> None:
        self._session = session
        self._left_behind: set[threading.Thread] = set()

    def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str], seconds: float) -> Reply:
        """The reply to a form. As `request`."""
        return self.request("POST", url, headers, seconds, data=dict(form))

    def request(self, method: str, url: str, headers: Mapping[str, str], seconds: float, **content: Any) -> Reply:
        """The reply, whatever its status, within `seconds`. Raises SourceError; follows no redirect.

        `content`: what is sent, as `requests` takes it (`data`, `json`).
        """
        self._left_behind -= {thread for thread in tuple(self._left_behind) if not thread.is_alive()}
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            raise SourceError(
                Kind.TIMEOUT, f"{url}: {len(self._left_behind)} earlier requests are still hanging; not asking again"
            )
        outcome: queue.SimpleQueue[Reply | Exception] = queue.SimpleQueue()
        opened: list[requests.Response] = []

        def exchange() -> None:
            try:
                outcome.put(_exchange(self._session, method, url, headers, seconds, content, opened))
            except Exception as error:  # crosses to the asker, who raises it
                outcome.put(error)

        thread = threading.Thread(target=exchange, name="prometheus-request", daemon=True)
        thread.start()
        try:
            found = outcome.get(timeout=seconds)
        except queue.Empty:
            self._left_behind.add(thread)
            for response in opened:
                _shut_down(response)
            raise SourceError(Kind.TIMEOUT, f"{url}: no complete answer within {seconds:.1f} s") from None
        if isinstance(found, Exception):
            raise found
        return found


def _exchange(
    session: requests.Session,
    method: str,
    url: str,
    headers: Mapping[str, str],
    seconds: float,
    content: Mapping[str, Any],
    opened: list[requests.Response],
) -> Reply:
    try:
        with session.request(
            method, url, headers=dict(headers), stream=True, allow_redirects=False, timeout=seconds, **content
        ) as response:
            opened.append(response)
            body = bytearray()
            for piece in response.iter_content(65536):
                body += piece
                if len(body) > MAX_BYTES:
                    raise SourceError(
                        Kind.OVERLOADED, f"the answer is larger than {MAX_BYTES // 2**20} MiB; ask for less"
                    )
            return Reply(response.status_code, response.headers, bytes(body))
    except requests.Timeout:
        raise SourceError(Kind.TIMEOUT, f"{url}: no answer within {seconds:.1f} s") from None
    except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError) as error:
        raise SourceError(Kind.MALFORMED, f"{url}: the answer was cut short ({error})") from None
    except (
        OSError,
        HTTPError,
        ValueError,
    ) as error:  # requests' own errors are OSErrors; ValueError: an unusable address
        raise SourceError(Kind.UNREACHABLE, f"{url}: {_innermost(error)}") from None


def _shut_down(response: requests.Response) -> None:
    try:
        response.raw.shutdown()
    except (OSError, ValueError, RuntimeError):  # it ended by itself in the meantime
        return


def _innermost(error: BaseException) -> str:
    """What the operating system said, under the layers of two libraries: that is what a person can act on."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return str(error)
