"""Where the connections are of which none waits for an answer: cheroot's, by a clock that nobody sets.

cheroot goes by the time of day. Set back, it would close no silent connection until that time has come again.
"""

import selectors
import time
from typing import Any

from cheroot.connections import ConnectionManager


class Connections(ConnectionManager):
    server: Any
    _selector: Any  # these, cheroot keeps to itself
    _stop_requested: bool
    _remove_invalid_sockets: Any
    _from_server_socket: Any
    _expire: Any

    def put(self, conn: Any) -> None:
        conn.last_used = conn.silent_since()
        if conn.pending():
            self.server.process_conn(conn)
        else:
            self._selector.register(conn.socket.fileno(), selectors.EVENT_READ, data=conn)

    def _run(self, expiration_interval: float) -> None:
        look_at = 0.0
        while not self._stop_requested:
            try:
                active = self._selector.select(timeout=expiration_interval)
            except OSError:
                self._remove_invalid_sockets()
                continue
            for descriptor, conn in active:
                if conn is not self.server:
                    self._selector.unregister(descriptor)
                    self.server.process_conn(conn)
                elif (new := self._from_server_socket(self.server.socket)) is not None:
                    self.server.process_conn(new)
            now = time.monotonic()
            if now >= look_at:
                look_at = now + expiration_interval
                self._expire(threshold=now - self.server.timeout)
