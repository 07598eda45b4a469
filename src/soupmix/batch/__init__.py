"""Batches from files: a soup per line, results in order, and nothing lost or repeated when the process is killed."""

from soupmix.batch.columns import Columns
from soupmix.batch.desk import MOST_ANSWERS, Defaults, Desk
from soupmix.batch.inputs import InputFile, open_input
from soupmix.batch.journal import Journal, open_journal
from soupmix.batch.order import waiting_room
from soupmix.batch.run import answer_lines, check_free, check_new, finish, settings_of

__all__ = [
    "MOST_ANSWERS",
    "Columns",
    "Defaults",
    "Desk",
    "InputFile",
    "Journal",
    "answer_lines",
    "check_free",
    "check_new",
    "finish",
    "open_input",
    "open_journal",
    "settings_of",
    "waiting_room",
]
