"""User names and passwords of HTTP's basic authentication, against bcrypt hashes.

A bcrypt check is slow on purpose (a hash of cost 10 takes a tenth of a second), so what was found right once is known
again without one, and what is wrong can neither fill the server's threads nor take more than one processor.
"""

import base64
import binascii
import hmac
import re
import secrets
import threading
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Literal

HASH = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
COSTS = range(4, 16)  # 15 takes three seconds; a check must end before the client loses patience
REMEMBERED = 256  # right combinations of user, hash and password
AT_ONCE = 4  # checks that run or wait; more are told to come again
AT_ONCE_OF_ONE = 2  # of these from one address, so that one client cannot take every place
MOST = 1024  # characters of an Authorization header

Verdict = Literal["right", "wrong", "busy"]


class Passwords:
    """Says whether a request may pass. Remembers what was right, as a keyed digest: never a password."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()
        self._checking: Counter[str] = Counter()  # by address
        self._processor = threading.Lock()

    def judge(self, users: Mapping[str, str], authorization: str, address: str) -> Verdict:
        """`users`: bcrypt hash by name. `authorization`: the header, empty where there is none."""
        given = _basic(authorization)
        if given is None:
            return "wrong"
        name, password = given
        known = users.get(name.decode("utf-8", "replace"))
        hashed = known or self._stand_in(users, name)
        digest = self._digest(name, hashed.encode(), password)
        with self._lock:
            if known and digest in self._right:
                self._right.move_to_end(digest)
                return "right"
            if self._checking.total() >= AT_ONCE or self._checking[address] >= AT_ONCE_OF_ONE:
                return "busy"
            self._checking[address] += 1
        try:
            with self._processor:
                right = _matches(password, hashed.encode()) and known is not None
        finally:
            with self._lock:
                self._checking[address] -= 1
                if not self._checking[address]:
                    del self._checking[address]
        if right:
            with self._lock:
                self._right[digest] = None
                while len(self._right) > REMEMBERED:
                    self._right.popitem(last=False)
        return "right" if right else "wrong"

    def _stand_in(self, users: Mapping[str, str], name: bytes) -> str:
        """A hash for a name that nobody has, always the same one: the time of the answer does not tell who exists."""
        hashes = list(users.values())
        return hashes[int.from_bytes(self._digest(name)[:8], "big") % len(hashes)]

    def _digest(self, *parts: bytes) -> bytes:
        return hmac.digest(self._key, b"".join(len(part).to_bytes(4, "big") + part for part in parts), "sha256")


def _basic(authorization: str) -> tuple[bytes, bytes] | None:
    """(name, password) of a Basic header; None for any other."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(authorization) > MOST:
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None


def _matches(password: bytes, hashed: bytes) -> bool:
    import bcrypt  # here, because most processes have no users

    try:
        return bcrypt.checkpw(password[:72], hashed)  # bcrypt never looks further, nor do the tools that hash
    except ValueError:  # a version that refuses some bytes
        return False
