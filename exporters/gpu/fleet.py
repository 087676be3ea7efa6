"""All cards of the machine: found, read beside each other, lost and found again.

The driver is asked in one thread and each card in another, so that a call that hangs costs its own series and no other.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import structlog
from prometheus_client.metrics_core import Metric

from exporters.collector import PartialReadError
from exporters.gpu.card import DRIVER_GONE, LOST, NO_PERMISSION, Card, DriverDownError
from exporters.gpu.inquiry import Inquiry, NoAnswerError
from exporters.gpu.samples import Reading, Sample, card_metrics, driver_metrics
from exporters.gpu.xids import Events, Xids

PATIENCE_SECONDS = 5.0  # a card that woke up from sleep takes one or two
SPARE_SECONDS = 0.2  # of the scrape's budget, for what is to be said afterwards
RETRY_SECONDS = 30.0  # before the first attempt to find a lost card again; each takes twice as long as the one before
LONGEST_RETRY_SECONDS = 600.0

_BY_ITSELF = ("lost", "reset_required", "gone")  # what no failed read tells of

_log = structlog.get_logger()

ADVICE = {
    "library_not_found": "is the driver installed, and its library visible here (in a container: the NVIDIA runtime)?",
    "driver_not_loaded": "load the kernel module (modprobe nvidia) or look into the kernel's log",
    "version_mismatch": "the driver was updated under a running kernel module: reboot or reload it, then restart this",
    "error": "look into the kernel's log",
}


@dataclass
class Found:
    """What one initialisation of NVML found. `lost`: why a card could not even be named, for each such card."""

    cards: dict[str, tuple[Card, Inquiry[Reading]]]
    lost: list[str]
    versions: tuple[str, str]
    events: Events
    listing: frozenset[str]
    at: float


class Fleet:
    """The collect function, and what it remembers. `nvml`: imports the module pynvml."""

    def __init__(
        self,
        nvml: Callable[[], Any],
        proc: Path,
        owned: Callable[[Mapping[int, int]], Sequence[Sample]] | None,
        retry_seconds: float = RETRY_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        self._import, self._proc, self._owned = nvml, proc, owned
        self._retry_seconds, self._patience_seconds = retry_seconds, patience_seconds
        self._driver: Inquiry[None] = Inquiry(self._find)
        self._found: Found | None = None
        self._again = False  # NVML is to be initialised anew
        self._xids = Xids()
        self._attempts = 0  # to find a lost card again
        self._driver_down: str | None = None
        self._down: dict[str, str | None] = {}  # of each card that was ever seen: why it is down

    def collect(self, deadline: float) -> Iterator[Metric]:
        until = min(deadline - SPARE_SECONDS, time.monotonic() + self._patience_seconds)
        try:
            readings, versions = self._readings(until)
        except NoAnswerError:
            yield from driver_metrics("no_answer")
            yield from self._xids.metrics()
            raise PartialReadError(
                "the NVIDIA driver does not answer; it is left alone until it does. Look into the kernel's log"
            ) from None
        except DriverDownError as down:
            self._again = True
            self._note_driver(down.reason, f"{down}; {ADVICE[down.reason]}")
            yield from driver_metrics(down.reason)
            yield from self._xids.metrics()
            return
        self._note_driver(None)
        yield from driver_metrics(None, versions)
        yield from card_metrics(readings)
        yield from self._xids.metrics()
        problems = [problem for reading in readings.values() for problem in reading.problems]
        if problems:
            raise PartialReadError("; ".join(problems))

    def close(self) -> None:
        """Let what is under way come back and give NVML back, unless something hangs."""
        until = time.monotonic() + self._patience_seconds
        inquiries: list[Inquiry[Any]] = [self._driver]
        if self._found is not None:
            inquiries += [inquiry for _, inquiry in self._found.cards.values()]
        while any(inquiry.busy for inquiry in inquiries) and time.monotonic() < until:
            time.sleep(0.005)
        if self._found is not None and not self._busy():
            self._shut_down(self._import(), self._found)

    def _readings(self, until: float) -> tuple[dict[str, Reading], tuple[str, str]]:
        """Each card's, and the versions. Raises NoAnswerError, DriverDownError."""
        if self._driver.busy or not self._keeps():
            self._driver.ask()
            self._driver.answer(until)
        if self._found is None:
            raise NoAnswerError
        return self._read(self._found, until), self._found.versions

    def _keeps(self) -> bool:
        """Whether what was found still holds; while a card hangs there is no other way."""
        if self._found is None:
            return False
        if self._busy():
            return True
        if self._again or self._listing() != self._found.listing:
            return False
        if not self._found.lost and not any(self._down.values()):
            self._attempts = 0
            return True
        pause = min(self._retry_seconds * 2**self._attempts, LONGEST_RETRY_SECONDS)
        if time.monotonic() - self._found.at < pause:
            return True
        self._attempts += 1
        return False

    def _busy(self) -> bool:
        return self._found is not None and any(inquiry.busy for _, inquiry in self._found.cards.values())

    def _listing(self) -> frozenset[str]:
        """The cards that the kernel module lists: changes where one is plugged in or taken out."""
        try:
            return frozenset(path.name for path in (self._proc / "driver" / "nvidia" / "gpus").iterdir())
        except OSError:
            return frozenset()

    def _find(self) -> None:
        """Initialise NVML (again) and list the cards. Raises DriverDownError."""
        nvml = self._import()
        if self._found is not None:
            self._shut_down(nvml, self._found)
        try:
            nvml.nvmlInit()
            try:
                self._found, self._again = self._list(nvml), False
            except BaseException:
                nvml.nvmlShutdown()  # every nvmlInit wants one of its own
                raise
        except nvml.NVMLError as error:
            raise DriverDownError(DRIVER_GONE.get(error.value, "error"), f"NVML: {error}") from error

    def _shut_down(self, nvml: Any, found: Found) -> None:
        """Also a lost card can only be reset while nobody has it open."""
        if not found.events.end():
            raise DriverDownError("error", "NVML: the thread that waits for events does not come back")
        self._found = None
        for card, _ in found.cards.values():
            try:
                card.close()
            except nvml.NVMLError:
                continue  # what it held went with the card
        try:
            nvml.nvmlShutdown()
        except nvml.NVMLError as error:
            _log.warning("gpu_shutdown_failed", problem=str(error))

    def _list(self, nvml: Any) -> Found:
        listing = self._listing()
        cards: dict[str, tuple[Card, Inquiry[Reading]]] = {}
        lost: list[str] = []
        for index in range(nvml.nvmlDeviceGetCount()):
            try:
                handle = nvml.nvmlDeviceGetHandleByIndex(index)
                uuid = str(nvml.nvmlDeviceGetUUID(handle))
            except nvml.NVMLError as error:
                if error.value in DRIVER_GONE:
                    raise
                if error.value == NO_PERMISSION:  # it is counted, and somebody else's: so in some containers
                    continue
                lost.append(LOST.get(error.value, "error"))
                continue
            card = Card(nvml, handle, uuid, index, self._owned)
            cards[uuid] = card, Inquiry(card.read)
        handles = {uuid: card.handle for uuid, (card, _) in cards.items()}
        return Found(cards, lost, _versions(nvml), Events(nvml, handles, self._xids), listing, time.monotonic())

    def _read(self, found: Found, until: float) -> dict[str, Reading]:
        """Each card, beside each other; also those that were there once and are there no more."""
        for _, inquiry in found.cards.values():
            inquiry.ask()
        readings: dict[str, Reading] = {}
        driver_down: DriverDownError | None = None
        for uuid, (_, inquiry) in found.cards.items():
            try:
                readings[uuid] = inquiry.answer(until)
            except DriverDownError as down:  # the other cards' questions come to their end first
                driver_down = down
            except NoAnswerError:
                sentence = f"{uuid}: a call does not return; the card is left alone until it does"
                readings[uuid] = Reading(problems=(sentence,), down="no_answer")
        if driver_down is not None:
            raise driver_down
        gone = sorted(self._down.keys() - readings.keys())
        # A card that cannot be named is probably one of those that are gone: it is there once, by the name it had.
        for uuid, reason in zip_longest(gone, found.lost):
            if uuid is not None:
                readings[uuid] = Reading(down=reason or "gone")
        for place, reason in enumerate(found.lost[len(gone) :]):
            readings[f"unknown-{place}"] = Reading(down=reason)
        for uuid, reading in readings.items():
            self._note(uuid, reading.down)
        return readings

    def _note(self, uuid: str, down: str | None) -> None:
        """Remember it, and log it where that is news. What a PartialReadError tells is logged by who catches it."""
        before = self._down.get(uuid)
        if not uuid.startswith("unknown-"):
            self._down[uuid] = down
        if down in _BY_ITSELF and down != before:
            _log.warning("gpu_lost", uuid=uuid, reason=down)
        elif before in _BY_ITSELF and not down:
            _log.info("gpu_found_again", uuid=uuid)
            self._again = True  # its events are registered while NVML is initialised

    def _note_driver(self, down: str | None, problem: str = "") -> None:
        before, self._driver_down = self._driver_down, down
        if down and down != before:
            _log.warning("gpu_driver_down", reason=down, problem=problem)
        elif before and not down:
            _log.info("gpu_driver_up")


def _versions(nvml: Any) -> tuple[str, str]:
    """Of the driver, and of CUDA as MAJOR.MINOR; empty where it does not tell."""
    try:
        driver = str(nvml.nvmlSystemGetDriverVersion())
    except nvml.NVMLError:
        driver = ""
    try:
        cuda = nvml.nvmlSystemGetCudaDriverVersion()
    except nvml.NVMLError:
        return driver, ""
    return driver, f"{cuda // 1000}.{cuda % 1000 // 10}"
