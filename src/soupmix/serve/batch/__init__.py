"""Batches from files: a soup per line, results in order, and nothing lost or repeated when the process is killed."""

from soupmix.serve.batch.answering import record
from soupmix.serve.batch.asking import MOST_ANSWERS, Defaults, Desk
from soupmix.serve.batch.columns import Columns
from soupmix.serve.batch.journal import Journal, open_journal
from soupmix.serve.batch.ordering import waiting_room
from soupmix.serve.batch.running import answer_lines, check_free, check_new, finish, settings_of
from soupmix.serve.batch.source import Source, open_source

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
