"""One JSON request to a neighbour (Alertmanager, the scaler) within a deadline, and what is known when it fails."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import HTTPError, NewConnectionError

from exporters.runtime.bearer import TokenError, read_token

MAX_BYTES = 8 * 2**20


class NeighbourError(Exception):
    """No usable answer. `may_have_arrived`: the request may have had its effect all the same."""

    def __init__(self, message: str, *, may_have_arrived: bool) -> None:
        self.may_have_arrived = may_have_arrived
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Reply:
    """`body` is the parsed JSON, or the text where it is none."""

    status: int
    body: Any


def exchange(method: str, url: str, seconds: float, body: object = None, token_file: Path | None = None) -> Reply:
    """The reply, whatever its status. Raises NeighbourError. No proxy or credential of the environment is used."""
    until = time.monotonic() + seconds
    headers = {"Accept": "application/json"}
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {read_token(token_file, 'replace.token_file')}"
        except TokenError as error:
            raise NeighbourError(str(error), may_have_arrived=False) from None
    with requests.Session() as session:
        session.trust_env = False
        try:
            with session.request(
                method, url, json=body, headers=headers, timeout=seconds, stream=True, allow_redirects=False
            ) as response:
                text = bytearray()
                for piece in response.iter_content(65536):
                    text += piece
                    if len(text) > MAX_BYTES or time.monotonic() > until:
                        raise NeighbourError(f"{url}: the answer is too large or too slow", may_have_arrived=True)
                return Reply(response.status_code, _parsed(bytes(text)))
        except requests.ConnectTimeout:
            raise NeighbourError(f"{url}: no connection within {seconds:.1f} s", may_have_arrived=False) from None
        except (OSError, HTTPError, ValueError) as error:  # requests' own are OSErrors; ValueError: an unusable address
            refused = _was_refused(error)
            raise NeighbourError(
                f"{url}: {'refuses connections' if refused else error}", may_have_arrived=not refused
            ) from None


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text[:300].decode("utf-8", "replace").strip()


def _was_refused(error: BaseException) -> bool:
    """Whether no connection came about, so that nothing can have been sent."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, NewConnectionError):
            return True
        inner = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, BaseException)), None)
    return isinstance(error, ValueError)
