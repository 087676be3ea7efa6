"""A load that rises and falls at times that are known, and the pages on which its forecast stands.

No forecaster learns a day's pattern within a test, so a page in its names tells the hour that is known ahead.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from testbed.parts import HOST

QUANTILES = (0.5, 0.9, 0.98)
STEP_SECONDS = 0.25
WINDOW_SECONDS = 3.0  # that one decision covers


@dataclass
class Tide:
    """Seconds count from `began`; rates are of a second. Until it has begun the load is low."""

    workload: str
    low: float
    high: float
    rises_seconds: float
    falls_seconds: float
    ends_seconds: float
    lead_seconds: float
    horizons: tuple[float, ...]
    after: float | None = None  # the rate once it has fallen; None: as low as before
    delay_seconds: float = 0.0  # so much earlier than its horizon says is what a rate of the forecast tells of
    began: float = field(default_factory=lambda: time.time() + 1e6)

    def rate(self, at: float) -> float:
        since = at - self.began
        if since < self.rises_seconds:
            return self.low
        return self.high if since < self.falls_seconds else self.low if self.after is None else self.after

    def arrivals(self) -> Iterator[float]:
        at = self.began
        while at < self.began + self.ends_seconds:
            yield at
            at += 1 / self.rate(at)

    def page(self) -> str:
        """What `tidewise forecast` publishes of one workload that it knows."""
        now, of = time.time(), f'workload="{self.workload}"'
        begin, end = self.lead_seconds, self.lead_seconds + WINDOW_SECONDS
        lines = [
            f"tidewise_forecast_made_timestamp_seconds{{{of}}} {now}",
            f"tidewise_forecast_valid_until_timestamp_seconds{{{of}}} {now + 60}",
            f"tidewise_forecast_gate_open{{{of}}} 1",
            f"tidewise_forecast_window_begin_seconds{{{of}}} {begin}",
            f"tidewise_forecast_window_end_seconds{{{of}}} {end}",
        ]
        window = max(self._rates(now + begin, now + end))
        lines += [f'tidewise_forecast_window_peak_quantile{{{of},quantile="{q}"}} {window}' for q in QUANTILES]
        for seconds in self.horizons:
            labels = f'{of},horizon_seconds="{seconds + self.delay_seconds:g}"'
            then, until = self.rate(now + seconds), self._rates(now, now + seconds)
            lines.append(f"tidewise_forecast_demand{{{labels}}} {then}")
            for quantile in QUANTILES:
                which = f'{{{labels},quantile="{quantile}"}}'
                lines += [
                    f"tidewise_forecast_demand_quantile{which} {then}",
                    f"tidewise_forecast_peak_quantile{which} {max(until)}",
                    f"tidewise_forecast_arrivals_quantile{which} {sum(until) * STEP_SECONDS}",
                ]
        return "\n".join(lines) + "\n"

    def _rates(self, begin: float, end: float) -> list[float]:
        return [self.rate(begin + step * STEP_SECONDS) for step in range(int((end - begin) / STEP_SECONDS) + 1)]


@contextmanager
def served(page: Callable[[], str]) -> Iterator[int]:
    """A page under any path; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer((HOST, 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
