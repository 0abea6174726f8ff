"""Log lines of the service's processes, for people or as one JSON object a line."""

import json
import logging
import sys
from datetime import UTC, datetime

from jobs.settings import Settings

# What every record carries anyway; anything else on it was given as `extra` and belongs into the JSON.
_STANDARD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """`{"at", "level", "logger", "message", …}` with what the call gave as `extra`, such as `job_id`."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _STANDARD},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


def configure_logging(settings: Settings) -> None:
    """Send everything from the level in `settings` on to stderr; replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter()
        if settings.log_format == "json"
        else logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level.upper())
    # One line per statement and per bell: of use only to who debugs those libraries.
    for chatty in ("sqlalchemy", "alembic", "celery", "kombu", "amqp", "fsspec"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, root.level))
