"""Attacks through what is said of a person's answers: evidence that is not theirs, counts twice, or floods."""

import json
from collections.abc import Callable
from pathlib import Path

from soupmix.errors import PolicyRefusal, PreferenceError, SoupmixError
from soupmix.openai.errors import HttpError
from soupmix.policy import Policy, parse_document
from soupmix.policy.inferring import inferring
from soupmix.preference import Posterior
from soupmix.serve.evidence import Entry, EvidenceStore, OpenQuestion, Provenance
from soupmix.serve.feedback import FeedbackAsk
from soupmix.serve.profiles import Draft, Profiles
from soupmix.serve.strict import understood
from soupmix.serve.tables import open_database
from soupmix.weights import Weights
from tests.attacks.attack import Attack
from tests.support.shelf import SHELF
from tests.support.wanting import choice, traits

__all__ = ["ATTACKS"]

_TRAITS = traits(2)


def _entry(name: str, source: str = "key-1") -> Entry:
    signal = choice(_TRAITS, name, (0.0, 0.0), (1.0, 0.0), source=source)
    return Entry(signal, _TRAITS, Provenance("sha256:" + "a" * 64, "sha256:" + "b" * 64, "req_1", 0))


def _stored(run: Callable[[EvidenceStore, str, str], object]) -> Callable[[Path], object]:
    """A store with a profile of acme's that was asked a question, and one of beta's."""

    def attack(folder: Path) -> object:
        database = open_database(str(folder / "serve.db"))
        try:
            profiles, store = Profiles(database, 10), EvidenceStore(database)
            mine, theirs = (profiles.create(tenant, Draft(None, Weights(), {}, {})).id for tenant in ("acme", "beta"))
            store.ask("beta", theirs, OpenQuestion("q-1", ({"t0": 0.0, "t1": 0.0},) * 2, _TRAITS, None))
            return run(store, mine, theirs)
        finally:
            database.dispose()

    return attack


def _added(store: EvidenceStore, tenant: str, profile: str, *entries: Entry, most: int = 4) -> None:
    for each in entries:
        with store.change(tenant, profile, None) as change:
            change.add(each, most)


def _forgotten(store: EvidenceStore, profile: str, name: str | None, version: int | None = None) -> None:
    with store.change("acme", profile, version) as change:
        change.forget(name)


def _on_store(name: str, tries: str, run: Callable[[EvidenceStore, str, str], object], reason: str) -> Attack:
    return Attack(name, tries, _stored(run), HttpError, reason)


def _sent(name: str, tries: str, body: bytes, error: type[SoupmixError], reason: str) -> Attack:
    return Attack(name, tries, lambda _: understood(FeedbackAsk, body), error, reason)


def _forbidden(_: Path) -> None:
    rules = [{"rule": "infer", "dimensions": [], "scope": {"audience": ["minor"]}}]
    said = parse_document(json.dumps({"tier": "law", "issuer": "A", "version": "1", "rules": rules}), "law.yaml")
    inferring(Policy.assemble([("law.yaml", said)], SHELF), {}).check()


ATTACKS = (
    _on_store(
        "an answer that is sent twice",
        "count it twice",
        lambda store, mine, _: _added(store, "acme", mine, _entry("a"), _entry("a")),
        "replayed",
    ),
    _on_store(
        "a flood of evidence from one source",
        "decide somebody's weights by number",
        lambda store, mine, _: _added(store, "acme", mine, *(_entry(f"e{n}") for n in range(3))),
        "source-full",
    ),
    _on_store(
        "a flood of evidence from many sources",
        "fill the disk",
        lambda store, mine, _: _added(store, "acme", mine, *(_entry(f"e{n}", f"key-{n}") for n in range(5))),
        "too-much-evidence",
    ),
    _on_store(
        "evidence for another tenant's profile",
        "move somebody else's weights",
        lambda store, _, theirs: _added(store, "acme", theirs, _entry("a")),
        "no-such-profile",
    ),
    _on_store(
        "an answer to another profile's question",
        "learn whether it was asked",
        lambda store, mine, _: store.question("acme", mine, "q-1"),
        "no-such-question",
    ),
    _on_store(
        "evidence of another profile, forgotten by its id",
        "make somebody forget",
        lambda store, mine, _: _forgotten(store, mine, "q-1"),
        "no-such-evidence",
    ),
    _on_store(
        "a change of a version that is gone",
        "undo what somebody else did meanwhile",
        lambda store, mine, _: _forgotten(store, mine, None, version=7),
        "changed-meanwhile",
    ),
    Attack(
        "a request that says nothing of its audience",
        "infer what a child wants",
        _forbidden,
        PolicyRefusal,
        "not-inferred",
    ),
    Attack(
        "an answer a million units out",
        "decide everything by one answer",
        lambda _: Posterior(_TRAITS).learn(choice(_TRAITS, "a", (1e6, 0.0), (0.0, 0.0))),
        PreferenceError,
        "too-far",
    ),
    _sent("a rating that is no number", "poison every sum", b'{"kind":"rating","value":NaN}', HttpError, "bad-request"),
    _sent(
        "a value that comes twice", "two readings", b'{"kind":"thumbs","value":0,"value":1}', HttpError, "bad-request"
    ),
)
