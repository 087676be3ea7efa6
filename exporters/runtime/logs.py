"""Structured logs of every process: one event with fields a line, on stderr, time in UTC."""

import contextlib
import logging
import sys
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
FORMATS = ("auto", "json", "logfmt")


def configure_logs(process: str, level: str = "info", fmt: Literal["auto", "json", "logfmt"] = "auto") -> None:
    """Set up structlog, and the standard library's logging through it. "auto": logfmt on a terminal, JSON elsewhere.

    `process` stands in every line, as in tidewise_build_info. Raises ValueError for an unknown level.
    """
    if level not in LEVELS:
        raise ValueError(f"found log level '{level}'; it must be one of {', '.join(LEVELS)}")

    def in_order(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        first = {key: event.pop(key) for key in ("timestamp", "level", "event")}
        return {**first, "process": process, **event}

    readable = fmt == "logfmt" or (fmt == "auto" and sys.stderr.isatty())
    renderer: Processor = (
        structlog.processors.LogfmtRenderer(bool_as_flag=False)
        if readable
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            in_order,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(cast(TextIO, _Lossy(sys.stderr))),
    )
    # Libraries speak at their own pace: only their warnings and errors are worth a line.
    logging.basicConfig(handlers=[_ToStructlog()], level=max(LEVELS[level], logging.WARNING), force=True)


class _Lossy:
    """A stream whose full disk or closed pipe costs a log line, and not the work that wanted to tell of it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError, ValueError):  # ValueError: the stream was closed
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _ToStructlog(logging.Handler):
    """Lines of libraries that use the standard library's logging, in the same format as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )
