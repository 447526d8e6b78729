"""Logs: one JSON line an event on stdout, with the ids of its trace.

Fields: ``ts`` (RFC 3339, UTC), ``level``, ``service``, ``logger``, ``message``,
``trace_id`` and ``span_id`` where there is a span, ``exception`` where there is
one, and whatever was given as ``extra``. Prompt text is never logged.

Lines are written by the thread that logs, without a queue: a service logs a few
lines a request and none a token, so nothing is gained that would be worth lines
lost in a crash.
"""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

from opentelemetry import trace

_STANDARD = frozenset(
    logging.LogRecord("", 0, "", 0, "", (), None).__dict__.keys()
    | {"message", "asctime", "taskName"}
)
# One line is one write; a collector takes so much and no more.
_MAX_EXCEPTION = 16_384
_MAX_MESSAGE = 8_192

# Loggers of libraries that say at INFO what an operator need not read.
_QUIET = {
    "grpc": logging.WARNING,
    "asyncio": logging.WARNING,
    "opentelemetry": logging.WARNING,
    "pymongo": logging.WARNING,
    "httpx": logging.WARNING,
    "httpcore": logging.WARNING,
    "uvicorn.access": logging.WARNING,
    "uvicorn.error": logging.INFO,
    "kubernetes": logging.WARNING,
    "urllib3": logging.WARNING,
}


def setup_logging(
    service: str, level: str = "info", fmt: Literal["json", "console"] = "json"
) -> None:
    """Send all logging to stdout; replaces whatever was set up before."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(service) if fmt == "json" else ConsoleFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    threshold = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(threshold)
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, threshold))
    # uvicorn installs handlers of its own unless told not to.
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    logging.captureWarnings(capture=True)


def _extras(record: logging.LogRecord) -> dict[str, Any]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


def _trace_ids() -> dict[str, str]:
    context = trace.get_current_span().get_span_context()
    if not context.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(context.trace_id),
        "span_id": trace.format_span_id(context.span_id),
    }


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its line end."""
        moment = datetime.fromtimestamp(record.created, UTC)
        line: dict[str, Any] = {
            "ts": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage()[:_MAX_MESSAGE],
            **_trace_ids(),
        }
        # An extra never stands in for a field that readers rely on.
        line |= {key: value for key, value in _extras(record).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)[-_MAX_EXCEPTION:]
        if record.stack_info:
            line["stack"] = record.stack_info[-_MAX_EXCEPTION:]
        return json.dumps(line, default=str, ensure_ascii=False, separators=(",", ":"))


_COLOURS = {"DEBUG": "2", "INFO": "32", "WARNING": "33", "ERROR": "31", "CRITICAL": "31;1"}


class ConsoleFormatter(logging.Formatter):
    """Formats a record for people: time, level, logger, message, extras; coloured on a terminal."""

    def __init__(self) -> None:
        super().__init__()
        self._coloured = sys.stdout.isatty()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the exception below it."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        level = f"{record.levelname:<7}"
        if self._coloured:
            level = f"\x1b[{_COLOURS.get(record.levelname, '0')}m{level}\x1b[0m"
        extras = "".join(f" {key}={value}" for key, value in _extras(record).items())
        line = f"{clock} {level} {record.name}: {record.getMessage()}{extras}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line
