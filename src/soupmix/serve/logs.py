"""Logs as lines of JSON on stderr. Nothing that a person wrote is in them: no prompt, no answer, no user id, no address."""

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any, Final

__all__ = ["LOGGER", "set_up", "tell"]

LOGGER: Final = logging.getLogger("soupmix.serve")


class _Lines(logging.Formatter):
    """One line per record; of an exception its type and where it happened, not its message, which may quote a request."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            line["error"] = type(error).__name__
            line["at"] = [f"{each.filename}:{each.lineno}" for each in traceback.extract_tb(error.__traceback__)][-8:]
        return json.dumps(line, ensure_ascii=True)


def set_up(level: int = logging.INFO) -> None:
    """Send every log of this process to stderr as lines of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for noisy in ("alembic", "sqlalchemy", "asyncio", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def tell(event: str, *, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with what is known of it."""
    LOGGER.log(level, event, extra={"fields": fields})
