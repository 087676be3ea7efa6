"""The bearer token: a file of one line, read again at each request, so that it can be changed without a restart."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LEAST = 16  # characters
MOST = 4096


class TokenError(Exception):
    """The token cannot be had; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Denied:
    """Why a request is not served: 401, or 503 where this side has no token to compare with."""

    status: int
    message: str


def read_token(path: Path | None) -> str:
    """Raises TokenError."""
    if path is None:
        raise TokenError(
            "budget.token_file is not configured, so nobody can prove who they are; write a long random line into a "
            "file, readable by the budget and its callers only, and name it there"
        )
    try:
        with path.open("rb") as file:
            text = file.read(MOST + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise TokenError(f"{path}: the token cannot be read ({why}); check budget.token_file") from None
    if not LEAST <= len(text) <= MOST or not text.isprintable() or " " in text:
        raise TokenError(f"{path}: a token is one line of {LEAST} to {MOST} characters without spaces")
    return text


def guard(path: Path | None) -> Callable[[str | None], Denied | None]:
    """A function from an Authorization header to None, or why it is not enough."""

    def check(header: str | None) -> Denied | None:
        try:
            token = read_token(path)
        except TokenError as error:
            return Denied(503, str(error))
        scheme, _, given = (header or "").partition(" ")
        # compared as bytes and in constant time, so that neither its start nor its length can be felt out
        right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
        if scheme.lower() != "bearer" or not right:
            return Denied(401, "send the token of budget.token_file as 'Authorization: Bearer TOKEN'")
        return None

    return check
