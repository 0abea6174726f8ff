"""Log lines of the service's processes, for people or as one JSON object a line.

In JSON nothing plain is left: warnings and uncaught exceptions are lines as well, and what a child process writes
past its logging (a library in C, the broker, an interpreter that can't go on) becomes lines of its parent.
"""

import json
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from das.errors import DasError
from jobs.masking import masked
from jobs.process import REFUSED
from jobs.settings import Settings

log = logging.getLogger(__name__)


class LineFormatter(JsonFormatter):
    """`{"at", "level", "logger", "message", …}` with what the call gave as `extra`, such as `job_id`."""

    def __init__(self) -> None:
        super().__init__(["message"], rename_fields={"exc_info": "exception"}, json_ensure_ascii=False)

    def add_fields(
        self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]
    ) -> None:
        """Begin the line with when, how grave and by whom."""
        log_data["at"] = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        log_data["level"] = record.levelname.lower()
        log_data["logger"] = record.name
        super().add_fields(log_data, record, message_dict)


class MaskingFormatter(logging.Formatter):
    """Another formatter's lines, tracebacks included, without the credentials of the URLs in them."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self._formatter = formatter

    def format(self, record: logging.LogRecord) -> str:
        return masked(self._formatter.format(record))


def configure_logging(settings: Settings) -> None:
    """Send everything from the level in `settings` on to stderr; replaces what was configured before.

    Warnings and exceptions that nobody caught, in whichever thread, are logged too.
    """
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(MaskingFormatter(LineFormatter() if settings.log_format == "json" else plain))
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # One line per statement and per bell: of use only to who debugs those libraries.
    for chatty in ("sqlalchemy", "alembic", "celery", "kombu", "amqp", "fsspec"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)
    sys.excepthook = _log_uncaught
    threading.excepthook = _log_uncaught_in_thread
    sys.unraisablehook = _log_unraisable


@contextmanager
def refusals_told(settings: Settings) -> Iterator[None]:
    """Where log lines are JSON, tell of a `DasError` in one of them and exit; elsewhere let it through.

    Raises:
        SystemExit: with `REFUSED`.
    """
    try:
        yield
    except DasError as error:
        if settings.log_format != "json":
            raise
        log.critical("%s", error)
        raise SystemExit(REFUSED) from error


def passing_on(settings: Settings, child: str) -> Callable[[str], None] | None:
    """What is to be done with each line that a child process writes; None where it may write past us.

    In JSON a line that is one already goes on as it is, and any other is put into one.
    """
    if settings.log_format != "json":
        return None

    def pass_on(line: str) -> None:
        if _is_a_line(line):
            sys.stderr.write(line + "\n")
            sys.stderr.flush()
        elif line.strip():
            log.warning("%s", line, extra={"child": child})

    return pass_on


def _is_a_line(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def _log_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        log.critical("interrupted")
    else:
        log.critical("uncaught exception", exc_info=(kind, error, traceback))


def _log_uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if issubclass(told.exc_type, SystemExit):
        return
    error = told.exc_value or told.exc_type()
    name = told.thread.name if told.thread else "(none)"
    log.critical(
        "uncaught exception in the thread %s", name, exc_info=(told.exc_type, error, told.exc_traceback)
    )


def _log_unraisable(told: "sys.UnraisableHookArgs") -> None:
    error = told.exc_value or told.exc_type()
    log.error(
        "%s: %r", told.err_msg or "exception ignored in", told.object,
        exc_info=(told.exc_type, error, told.exc_traceback),
    )  # fmt: skip
