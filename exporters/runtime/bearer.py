"""The bearer token of whoever may command a process: one line in a file, read again at each request.

So it can be changed without a restart. Without a token to compare with, nobody is served: 503, which says that the
fault is on this side (Alertmanager, for one, asks again after a 503 and gives up after a 4xx). Without the right one:
401.
"""

import hmac
from pathlib import Path

from exporters.runtime.endpoint import Request, Response, json_response

LEAST = 16  # characters
MOST = 4096


class TokenError(Exception):
    """The token cannot be had; says which setting or file, why, and what to do."""


def read_token(token_file: Path | None, setting: str) -> str:
    """`setting`: where the file is configured, such as `budget.token_file`. Raises TokenError."""
    if token_file is None:
        raise TokenError(
            f"{setting} is not configured, so nobody can prove who they are; write a long random line into a file "
            "that only both sides can read, and name it there"
        )
    try:
        with token_file.open("rb") as file:
            text = file.read(MOST + 1).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise TokenError(f"{token_file}: the token cannot be read ({why}); check {setting}") from None
    if not LEAST <= len(text) <= MOST or not text.isprintable() or " " in text:
        raise TokenError(f"{token_file}: a token is one line of {LEAST} to {MOST} characters without spaces")
    return text


def refused(request: Request, token_file: Path | None, setting: str) -> Response | None:
    """The answer to a request that has no right to ask: 401, or 503 without a token of our own; None where it has."""
    try:
        token = read_token(token_file, setting)
    except TokenError as error:
        return json_response({"error": str(error)}, 503)
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # compared as bytes and in constant time, so that neither its start nor its length can be felt out
    right = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    if right and scheme.lower() == "bearer":
        return None
    answer = json_response({"error": f"send the token of {setting} as 'Authorization: Bearer TOKEN'"}, 401)
    return Response(401, answer.body, answer.content_type, {"WWW-Authenticate": "Bearer"})
