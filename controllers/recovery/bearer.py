"""Who may tell a controller something: the bearer of the token in a file. Without file, token or match nobody may."""

import hmac
from pathlib import Path

from exporters.runtime.endpoint import Request, Response, json_response


def refused(request: Request, token_file: Path | None, setting: str) -> Response | None:
    """The answer to a request without the right bearer token; None where it has it.

    The file is read at each request, so that a token can be changed while the process runs. `setting`: where the file
    is configured, for the answer's text.
    """
    if token_file is None:
        return json_response({"error": f"closed: {setting} is not configured"}, 403)
    try:
        expected = token_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return json_response({"error": f"the file of {setting} cannot be read"}, 503)
    if not expected:
        return json_response({"error": f"the file of {setting} is empty"}, 503)
    given = request.headers.get("authorization", "")
    if hmac.compare_digest(given.encode(), f"Bearer {expected}".encode()):
        return None
    text = '{"error": "wrong or missing bearer token"}\n'
    return Response(401, text, "application/json", headers={"WWW-Authenticate": "Bearer"})
