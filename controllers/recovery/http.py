"""One JSON request to a neighbour (Alertmanager, the scaler) within a deadline, and what is known when it fails."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import requests
from urllib3.exceptions import NewConnectionError

from controllers.sources.answer import SourceError
from controllers.sources.transport import Transport
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


def exchange(
    method: str,
    url: str,
    seconds: float,
    body: object = None,
    token_file: Path | None = None,
    setting: str = "replace.token_file",
) -> Reply:
    """The reply, whatever its status. Raises NeighbourError. No proxy or credential of the environment is used.

    `setting`: where the token's file is configured.
    """
    headers = {"Accept": "application/json", "Connection": "close"}  # a kept one may be gone when it is needed
    if token_file is not None:
        try:
            headers["Authorization"] = f"Bearer {read_token(token_file, setting)}"
        except TokenError as error:
            raise NeighbourError(str(error), may_have_arrived=False) from None
    try:
        reply = _transport().request(method, url, headers, seconds, json=body)
    except SourceError as error:
        unsent = _was_never_sent(error)
        raise NeighbourError(str(error), may_have_arrived=not unsent) from None
    if len(reply.body) > MAX_BYTES:
        raise NeighbourError(f"{url}: the answer is too large", may_have_arrived=True)
    return Reply(reply.status, _parsed(reply.body))


@cache
def _transport() -> Transport:
    session = requests.Session()
    session.trust_env = False
    return Transport(session)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text[:300].decode("utf-8", "replace").strip()


def _was_never_sent(error: BaseException) -> bool:
    """Whether no connection came about, so that nothing can have been sent."""
    inner: BaseException | None = error.__context__
    if isinstance(inner, (requests.ConnectTimeout, ValueError)):  # ValueError: an address that cannot be used
        return True
    while inner is not None:
        if isinstance(inner, NewConnectionError):
            return True
        inner = getattr(inner, "reason", None) or next((a for a in inner.args if isinstance(a, BaseException)), None)
    return False
