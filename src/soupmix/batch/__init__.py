"""Batches from files: a soup per line, results in order, and nothing lost or repeated when the process is killed."""

from soupmix.batch.answering import record
from soupmix.batch.columns import Columns
from soupmix.batch.desk import MOST_ANSWERS, Defaults, Desk
from soupmix.batch.journal import Journal, open_journal
from soupmix.batch.order import waiting_room
from soupmix.batch.run import answer_lines, check_free, check_new, finish, settings_of
from soupmix.batch.source import Source, open_source

__all__ = [
    "MOST_ANSWERS",
    "Columns",
    "Defaults",
    "Desk",
    "Journal",
    "Source",
    "answer_lines",
    "check_free",
    "check_new",
    "finish",
    "open_journal",
    "open_source",
    "record",
    "settings_of",
    "waiting_room",
]
