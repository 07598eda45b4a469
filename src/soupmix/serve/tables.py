"""The tables: profiles, what they learn, keys, and one secret; in SQLite (WAL) or in whatever SQLAlchemy has a URL for.

The files of a database are this user's alone: opened as themselves, never through a link, and never emptied.
"""

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
from alembic.config import Config
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Engine,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    create_engine,
    event,
    text,
)
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from soupmix.errors import OutputError, RecipeError
from soupmix.locks import locked

__all__ = [
    "EVIDENCE",
    "KEYS",
    "LEARNING",
    "METADATA",
    "PROFILES",
    "QUESTIONS",
    "SECRETS",
    "open_database",
    "own_files",
    "sole_opener",
]

_MIGRATIONS = Path(__file__).parent / "migrations"
_LOCK = 0x736F75706D6978  # "soupmix": the advisory lock under which PostgreSQL is migrated

METADATA = MetaData()
PROFILES = Table(
    "profiles",
    METADATA,
    Column("tenant", String(63), primary_key=True),
    Column("id", String(32), primary_key=True),
    Column("name", String(200)),
    Column("weights", JSON, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("sources", JSON, nullable=False),
    Column("mode", String(16), nullable=False, server_default="full"),
    Column("version", Integer, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),
    UniqueConstraint("tenant", "name", name="one_profile_per_name"),
)


def _of_profile() -> list[Column[str]]:
    return [Column("tenant", String(63), primary_key=True), Column("profile", String(32), primary_key=True)]


def _gone_with_it() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(["tenant", "profile"], ["profiles.tenant", "profiles.id"], ondelete="CASCADE")


LEARNING = Table(
    "learning",
    METADATA,
    *_of_profile(),
    Column("version", Integer, nullable=False),
    Column("frozen", Boolean, nullable=False),
    Column("listens", Boolean, nullable=False),
    Column("most", JSON, nullable=False),
    Column("weights", JSON, nullable=False),
    Column("because", JSON, nullable=False),
    Column("topics", JSON, nullable=False, server_default="{}"),
    Column("basis", String(64), nullable=False),
    _gone_with_it(),
)
EVIDENCE = Table(
    "evidence",
    METADATA,
    *_of_profile(),
    Column("id", String(63), primary_key=True),
    Column("source", String(63), nullable=False),
    Column("signal", JSON, nullable=False),
    Column("traits", JSON, nullable=False),
    Column("adapters", String(71), nullable=False),
    Column("base", String(71), nullable=False),
    Column("request", String(40), nullable=False),
    Column("received", BigInteger, nullable=False),
    _gone_with_it(),
)
QUESTIONS = Table(
    "questions",
    METADATA,
    *_of_profile(),
    Column("id", String(63), primary_key=True),
    Column("answers", JSON, nullable=False),
    Column("traits", JSON, nullable=False),
    Column("topic", String(63)),
    Column("asked", BigInteger, nullable=False),
    _gone_with_it(),
)
KEYS = Table(
    "keys",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False),
    Column("tenant", String(63), nullable=False),
    Column("operator", Boolean, nullable=False),
    Column("attributes", JSON, nullable=False),
    Column("created", BigInteger, nullable=False),
    Column("revoked", BigInteger),
)
SECRETS = Table(
    "secrets",
    METADATA,
    Column("name", String(32), primary_key=True),
    Column("value", String(64), nullable=False),
)


def open_database(address: str) -> Engine:
    """Connect, and bring the tables to what this version needs.

    Args:
        address: a file (SQLite), or a URL such as "postgresql+psycopg://host/name".

    Raises:
        RecipeError: no such kind of database, or its driver is not installed (reason "bad-database").
        OutputError: it cannot be opened or migrated (reason "database").
    """
    url = _url(address)
    try:
        # parameters are what people asked for: they belong in no message and no log
        database = create_engine(url, hide_parameters=True, pool_pre_ping=True, pool_size=16, max_overflow=48)
        if database.dialect.name == "sqlite":
            event.listen(database, "connect", _durable)
        with _alone(database, url) as connection:
            _migrate(connection)
    except (ArgumentError, ModuleNotFoundError) as error:
        raise _no_driver(url, error) from error
    except OutputError:
        raise
    except (SQLAlchemyError, OSError) as error:
        why = _first_line(error) if isinstance(error, SQLAlchemyError) else error.strerror
        raise OutputError(f"database {url} cannot be opened: {why}", reason="database") from error
    return database


def _url(address: str) -> URL:
    try:
        url = make_url(address) if "://" in address else URL.create("sqlite", database=str(Path(address).absolute()))
    except ArgumentError as error:
        raise RecipeError(f"{address!r} is neither a file nor the URL of a database", reason="bad-database") from error
    if url.drivername == "postgresql":  # by itself it means a driver that is not among our extras
        url = url.set(drivername="postgresql+psycopg")
    if url.get_backend_name() == "sqlite" and ("uri" in url.query or (url.database or "").startswith("file:")):
        raise RecipeError(f"{address!r} is a URL within a URL; give the file itself", reason="bad-database")
    return url


def _no_driver(url: URL, error: Exception) -> RecipeError:
    if getattr(error, "name", None) == "psycopg":
        said = "PostgreSQL needs psycopg, which is not installed: pip install 'soupmix[postgres]'"
    else:
        said = (
            f"there is no driver for {url.drivername!r} here; give a file (SQLite), or postgresql+psycopg://HOST/NAME"
        )
    return RecipeError(f"database {url}: {said}", reason="bad-database")


def _durable(connection: Any, _: object) -> None:
    """Readers do not wait for the writer, and what was acknowledged is on the disk."""
    cursor = connection.cursor()
    for setting in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {setting}")
    cursor.close()


@contextmanager
def _alone(database: Engine, url: URL) -> Iterator[Connection]:
    """A transaction in which no other server migrates."""
    if url.get_backend_name() == "sqlite" and url.database:
        path = Path(url.database)
        own_files(path)  # SQLite's other files take after this one
        with sole_opener(path), database.begin() as connection:
            yield connection
    else:
        with database.begin() as connection:
            if database.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
            yield connection


def _migrate(connection: Connection) -> None:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    alembic.command.upgrade(config, "head")
    if connection.execute(SECRETS.select().where(SECRETS.c.name == "salt")).first() is None:
        connection.execute(SECRETS.insert().values(name="salt", value=secrets.token_hex(32)))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


_BESIDE = ("-wal", "-shm", "-journal")  # what SQLite keeps beside a database
_FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # of a FIFO nobody is waited for


def own_files(path: Path) -> None:
    """Make an empty database that only this user may read, or check that one is, with what SQLite keeps beside it.

    Raises:
        OutputError: one of them is a link or no file, belongs to somebody else, or can be written by others: whoever can
            write there makes keys of their own (reason "not-private"). OSError: the disk refuses.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(_opened(path, os.O_CREAT))
    for end in _BESIDE:
        beside = path.with_name(f"{path.name}{end}")
        if os.path.lexists(beside):
            os.close(_opened(beside))


@contextmanager
def sole_opener(path: Path) -> Iterator[None]:
    """Wait until no other process opens this database. Raises as `own_files` does."""
    with locked(_opened(path.with_name(f"{path.name}.lock"), os.O_CREAT)):
        yield


def _opened(path: Path, more: int = 0) -> int:
    try:
        handle = os.open(path, _FLAGS | more, 0o600)
    except OSError as error:
        if path.is_symlink():
            raise _refused(path, "is a link") from error
        raise
    found = os.fstat(handle)
    wrong = _wrong(found)
    if wrong:
        os.close(handle)
        raise _refused(path, wrong)
    return handle


def _wrong(found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if found.st_nlink > 1:  # none: another server has just removed its journal
        return "has another name elsewhere, by a hard link"
    if found.st_uid != os.geteuid():
        return "belongs to another user"
    return "can be written by other users" if found.st_mode & 0o022 else ""


def _refused(path: Path, wrong: str) -> OutputError:
    return OutputError(
        f"{path} {wrong}, so keys in it may be anybody's; see who could write there and `soupmix serve keys list`, then give "
        "a file of your own (chmod 600)",
        reason="not-private",
    )
