"""The database: migrations make what the code expects, in SQLite and in PostgreSQL, whoever comes first."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from soupmix.errors import OutputError, RecipeError
from soupmix.openai.errors import HttpError
from soupmix.serve.evidence import Entry, EvidenceStore, OpenQuestion, Provenance
from soupmix.serve.keys import ApiKeys
from soupmix.serve.profiles import Draft, Profiles
from soupmix.serve.tables import METADATA, open_database, own_files
from soupmix.weights import Weights
from tests.support.serving import MODEL, Running
from tests.support.wanting import choice, traits

TRAITS = traits(2)
CALM = Draft("Ann", Weights("calm=0.5"), {"audience": "adult"}, {"calm": "explicit"})


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of this test's own, on a socket in a folder."""
    folder = os.environ.get("SOUPMIX_POSTGRES_BIN") or (shutil.which("initdb") and Path(shutil.which("initdb")).parent)
    if not folder:
        pytest.skip("no PostgreSQL here; set SOUPMIX_POSTGRES_BIN to the folder of initdb")
    home = tmp_path_factory.mktemp("pg")
    data, log = home / "data", home / "log"
    as_user: list[str] = []
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        shutil.chown(home, "postgres")
        for parent in list(home.parents)[:3]:
            parent.chmod(parent.stat().st_mode | 0o011)
        as_user = ["runuser", "-u", "postgres", "--"]

    def call(*words: object) -> None:
        done = subprocess.run([*as_user, *map(str, words)], cwd="/", capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    call(Path(folder) / "initdb", "-D", data, "-U", "soupmix", "--auth=trust", "--no-sync")
    call(Path(folder) / "pg_ctl", "-D", data, "-l", log, "-w", "-o", f"-k {home} -c listen_addresses=''", "start")
    yield f"postgresql+psycopg://soupmix@/postgres?host={home}"
    call(Path(folder) / "pg_ctl", "-D", data, "-m", "immediate", "stop")


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "a%b" / "serve.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


def test_migrations_make_the_tables_that_the_code_knows(address: str) -> None:
    database = open_database(address)
    with database.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    database.dispose()


def test_of_servers_that_start_together_one_migrates(address: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_database(address), range(8)))
    assert len({ApiKeys(each).salt("acme") for each in found}) == 1
    for each in found:
        each.dispose()


def test_what_is_stored_comes_back(address: str) -> None:
    database = open_database(address)
    profiles = Profiles(database, 1000)
    made = profiles.create("acme", CALM)
    database.dispose()
    database = open_database(address)
    profiles = Profiles(database, 1000)
    assert profiles.get("acme", made.id) == made
    assert profiles.change("acme", made.id, CALM, 1).version == 2
    key = ApiKeys(database).create("acme", {"audience": "minor"})
    assert ApiKeys(database).caller(key).attributes == {"audience": "minor", "tenant": "acme"}
    profiles.delete("acme", made.id, 2)
    assert profiles.page("acme", 10) == []
    database.dispose()


def test_what_is_learned_is_counted_whoever_comes_at_once_and_goes_with_its_profile(address: str) -> None:
    database = open_database(address)
    profiles, store = Profiles(database, 1000), EvidenceStore(database)
    profile = profiles.create("acme", replace(CALM, name=None)).id

    def add(name: str, source: str) -> str:
        signal = choice(TRAITS, name, (0.0, 0.0), (1.0, 0.0), source=source)
        try:
            with store.change("acme", profile, None) as change:
                change.add(Entry(signal, TRAITS, Provenance("a", "b", "r", 1)), 4)
        except HttpError as error:
            return error.reason
        return "kept"

    with ThreadPoolExecutor(8) as pool:
        same = list(pool.map(lambda _: add("same", "s0"), range(8)))
        others = list(pool.map(lambda number: add(f"e{number}", f"s{number}"), range(1, 9)))
    assert sorted(same) == ["kept"] + ["replayed"] * 7
    assert sorted(others) == ["kept"] * 3 + ["too-much-evidence"] * 5
    assert store.learning("acme", profile).version == 4, "what is refused is no version"
    assert len(store.entries("acme", profile)) == 4
    assert store.entries("beta", profile) == []
    for number in range(20):
        store.ask("acme", profile, OpenQuestion(f"q{number}", ({"t0": 0.0, "t1": 0.0},) * 2, TRAITS, None))
    waiting = store.waiting("acme", profile)
    assert (len(waiting), waiting[0]) == (16, "q19")
    assert store.settle("acme", profile, 4, weights={"calm": 1}, because=[], basis="x")
    assert not store.settle("acme", profile, 3, weights={}, because=[], basis="y")
    assert store.learning("acme", profile).weights == Weights("calm=0.000001")
    profiles.delete("acme", profile, None)
    assert (store.entries("acme", profile), store.waiting("acme", profile)) == ([], [])
    assert store.learning("acme", profile).version == 0
    database.dispose()


def test_sqlite_waits_for_the_disk(tmp_path: Path) -> None:
    database = open_database(str(tmp_path / "serve.db"))
    with database.connect() as connection:
        settings = {name: connection.scalar(text(f"PRAGMA {name}")) for name in ("journal_mode", "synchronous")}
    assert settings == {"journal_mode": "wal", "synchronous": 2}
    database.dispose()


def test_salts_of_tenants_differ_between_servers(tmp_path: Path) -> None:
    found = [open_database(str(tmp_path / name)) for name in ("a.db", "b.db")]
    salts = [ApiKeys(each).salt(tenant) for each in found for tenant in ("acme", "beta", "")]
    assert len(set(salts)) == 6
    for each in found:
        each.dispose()


def test_a_database_that_is_none_is_said_to_be(tmp_path: Path) -> None:
    (tmp_path / "serve.db").write_text("not a database, but a text of some length, so that it has a header of its own")
    with pytest.raises(OutputError):
        open_database(str(tmp_path / "serve.db"))
    with pytest.raises(RecipeError):
        open_database("nosuch://x")


def test_a_server_on_postgresql(start: Callable[..., AbstractContextManager[Running]], postgres: str) -> None:
    with start(database=postgres) as server, server.http() as http:
        made = http.post("/v1/soups", json={"weights": {"calm": 0.5}, "name": "Bob \u00fc"})
        assert made.status_code == 201
        ask = {"model": made.json()["model"], "prompt": "x", "max_tokens": 1}
        assert http.post("/v1/completions", json=ask).json()["soup"]["granted"] == {"calm": "0.5"}
        assert http.post("/v1/completions", json={**ask, "model": MODEL}).status_code == 200


def test_a_database_that_went_is_503_until_it_is_back(
    start: Callable[..., AbstractContextManager[Running]], tmp_path: Path
) -> None:
    where = tmp_path / "serve.db"
    with start(database=str(where)) as server, server.http() as http:
        database = server.state.profiles._database
        with database.connect() as connection:
            connection.execute(text("ALTER TABLE profiles RENAME TO away"))
            connection.commit()
            answer = http.get("/v1/soups")
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database")
            assert "profiles" not in answer.text
            connection.execute(text("ALTER TABLE away RENAME TO profiles"))
            connection.commit()
        assert http.get("/v1/soups").status_code == 200


def _link_lock(home: Path) -> None:
    (home / "precious").write_text("what somebody else wrote")
    (home / "serve.db.lock").symlink_to(home / "precious")


def _hard_link(home: Path) -> None:
    open_database(str(home / "serve.db")).dispose()
    (home / "twin").hardlink_to(home / "serve.db")


def _open_to_all(home: Path, name: str = "serve.db", mode: int = 0o666) -> None:
    open_database(str(home / "serve.db")).dispose()
    (home / name).touch()
    (home / name).chmod(mode)


SPOILT: dict[str, Callable[[Path], object]] = {
    "its lock is a link": _link_lock,
    "its lock is a link to nowhere": lambda home: (home / "serve.db.lock").symlink_to(home / "absent"),
    "its lock is a FIFO": lambda home: os.mkfifo(home / "serve.db.lock"),
    "its lock is a folder": lambda home: (home / "serve.db.lock").mkdir(),
    "it is a link": lambda home: (home / "serve.db").symlink_to(home / "absent"),
    "it is a FIFO": lambda home: os.mkfifo(home / "serve.db"),
    "it has two names": _hard_link,
    "everybody may write it": _open_to_all,
    "its group may write it": lambda home: _open_to_all(home, mode=0o660),
    "everybody may write its log": lambda home: _open_to_all(home, "serve.db-wal"),
    "everybody may write its lock": lambda home: _open_to_all(home, "serve.db.lock"),
    "its log is a link": lambda home: (home / "serve.db-wal").symlink_to(home / "absent"),
}


@pytest.mark.parametrize("case", sorted(SPOILT))
def test_a_database_that_others_had_their_hands_on_is_not_opened(tmp_path: Path, case: str) -> None:
    SPOILT[case](tmp_path)
    with pytest.raises(OutputError) as caught:
        open_database(str(tmp_path / "serve.db"))
    assert caught.value.reason == ("database" if case.endswith("folder") else "not-private")
    assert not (tmp_path / "absent").exists()
    if (tmp_path / "precious").exists():
        assert (tmp_path / "precious").read_text() == "what somebody else wrote"


def test_a_journal_that_another_server_removes_meanwhile_is_no_twin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite removes it after every migration: between opening it and looking at it no name is left."""
    open_database(str(tmp_path / "serve.db")).dispose()
    opened, journal = os.open, tmp_path / "serve.db-journal"
    journal.touch(mode=0o600)

    def open_and_lose(path: Path, *arguments: int) -> int:
        handle = opened(path, *arguments)
        if path == journal:
            journal.unlink()
        return handle

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", open_and_lose)
        own_files(tmp_path / "serve.db")
    assert not journal.exists(), "it was looked at"


def test_a_database_of_another_user_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    open_database(str(tmp_path / "serve.db")).dispose()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(OutputError) as caught:
        open_database(str(tmp_path / "serve.db"))
    assert caught.value.reason == "not-private"


def test_a_lock_keeps_what_is_in_it_and_all_files_are_their_users_alone(tmp_path: Path) -> None:
    home = tmp_path / "made" / "here"
    before = os.umask(0)
    try:
        open_database(str(home / "serve.db")).dispose()
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in home.iterdir()}.items() >= {
        "serve.db": 0o600,
        "serve.db.lock": 0o600,
    }.items()
    assert home.stat().st_mode & 0o777 == 0o700
    (home / "serve.db.lock").write_text("kept")
    open_database(str(home / "serve.db")).dispose()
    assert (home / "serve.db.lock").read_text() == "kept"


def test_a_group_that_may_read_is_left_alone(tmp_path: Path) -> None:
    _open_to_all(tmp_path, mode=0o640)
    open_database(str(tmp_path / "serve.db")).dispose()


@pytest.mark.parametrize("address", ["sqlite:///file:x.db?uri=true", "sqlite:///file:x.db"])
def test_a_url_within_a_url_is_refused(address: str) -> None:
    with pytest.raises(RecipeError) as caught:
        open_database(address)
    assert caught.value.reason == "bad-database"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("postgresql://x/y", r"needs psycopg, which is not installed: pip install 'soupmix\[postgres\]'"),
        ("mysql://x/y", r"no driver for 'mysql' here; give a file"),
        ("nonsense://x/y", r"no driver for 'nonsense' here; give a file"),
    ],
)
def test_a_driver_that_is_missing_is_named(address: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("psycopg", "psycopg2", "MySQLdb"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(RecipeError, match=said) as caught:
        open_database(address)
    assert caught.value.reason == "bad-database"
