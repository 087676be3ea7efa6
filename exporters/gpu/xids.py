"""Errors that the driver reports by number (XID): waited for in a thread of its own, counted while this runs."""

import ctypes
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from exporters.gpu.families import CRITICAL_XIDS, XID_ERRORS, XID_LAST
from exporters.labels import Cap

WAIT_MILLISECONDS = 500
END_SECONDS = 2.0
MOST_XIDS = 200  # distinct numbers


class Xids:
    """What was heard so far. It outlives every event set, so that a reset forgets nothing."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._cap = Cap("gpu.nvml", "xid", MOST_XIDS)
        self._counts: dict[tuple[str, str], int] = {}
        self._last: dict[tuple[str, str], float] = {}

    def watched(self, uuid: str) -> None:
        """From now on no event means none: those that call for somebody are on the page as 0."""
        with self._lock:
            for xid in CRITICAL_XIDS:
                self._counts.setdefault((uuid, self._cap(str(xid))), 0)

    def heard(self, uuid: str, xid: int) -> None:
        with self._lock:
            key = uuid, self._cap(str(xid))
            self._counts[key] = self._counts.get(key, 0) + 1
            self._last[key] = self._clock()

    def metrics(self) -> Iterator[Metric]:
        counts, last = XID_ERRORS.metric(), XID_LAST.metric()
        with self._lock:
            for key, count in sorted(self._counts.items()):
                counts.add_metric(key, count)
            for key, at in sorted(self._last.items()):
                last.add_metric(key, at)
        yield from (family for family in (counts, last) if family.samples)


class Events:
    """One event set of NVML, and the thread that waits on it. `handles`: of the cards, by uuid."""

    def __init__(self, nvml: Any, handles: Mapping[str, Any], xids: Xids) -> None:
        self._nvml, self._xids = nvml, xids
        self._uuids: dict[int | None, str] = {}
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        try:
            self._set = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return
        for uuid, handle in handles.items():
            try:
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, self._set)
            except nvml.NVMLError:
                continue  # a card without events has no series of them
            self._uuids[_address(handle)] = uuid
            xids.watched(uuid)
        self._thread = threading.Thread(target=self._wait, name="xids", daemon=True)
        self._thread.start()

    def end(self) -> bool:
        """Whether the thread has ended: before that NVML may not be shut down."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(END_SECONDS)
            if self._thread.is_alive():
                return False
            self._nvml.nvmlEventSetFree(self._set)
            self._thread = None
        return True

    def _wait(self) -> None:
        while not self._ended.is_set():
            try:
                event = self._nvml.nvmlEventSetWait_v2(self._set, WAIT_MILLISECONDS)
            except self._nvml.NVMLError as error:
                if error.value != self._nvml.NVML_ERROR_TIMEOUT:
                    self._ended.wait(WAIT_MILLISECONDS / 1000)  # a lost card makes each wait fail at once
                continue
            if event.eventType & self._nvml.nvmlEventTypeXidCriticalError:
                uuid = self._uuids.get(_address(event.device))
                if uuid is not None:
                    self._xids.heard(uuid, int(event.eventData))


def _address(handle: Any) -> int | None:
    """Of what a handle points to; two handles of one card are two objects."""
    return ctypes.cast(handle, ctypes.c_void_p).value
