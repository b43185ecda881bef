"""Structured logs: one JSON object a line. Nothing of a user: no names, texts, keys, bodies.

A request is logged by its route's template (`/v1/users/{user}`), never by its path.
"""

import json
import logging
import sys
import time
from traceback import extract_tb
from typing import Any

LOGGER = logging.getLogger("palate.serve")
FIELDS = ("request_id", "method", "route", "status", "seconds", "tokens", "error")


class JsonLines(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Time, level, event, and the fields that were given."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        line |= {name: getattr(record, name) for name in FIELDS if hasattr(record, name)}
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__  # messages may repeat what a user wrote
            frames = extract_tb(record.exc_info[2])
            line["place"] = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        return json.dumps(line)


def set_up_logs(level: str) -> None:
    """Send the server's log to standard error as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in ("palate.serve", "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level.upper())
