"""`soupmix learn`: keys and words become evidence, what was learnt is kept at once, and `merge` takes what comes out."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from soupmix.backends import Delta, Request, Sampling
from soupmix.cli.learning import LearningSession, ask_questions, drawn, listen
from soupmix.cli.profiles import LearntProfile, read_profile, write_profile
from soupmix.errors import RecipeError
from soupmix.evaluate.measures.here import TextMeasuring, measures_here
from soupmix.policy import Policy
from soupmix.preference import Learner
from soupmix.preference.reach import Reach, traits_of
from soupmix.store import read_manifest, shipped_root
from soupmix.surface import Surface
from soupmix.weights import Weights
from tests.support.planted_soups import ENTRIES, document

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def reach() -> Reach:
    surface = Surface.of(document(noise=0.2), ENTRIES)
    return Reach.of(surface, traits_of(surface), Policy.open(ENTRIES).feasible(sources="inferred"))


class Ticket:
    def cancel(self) -> None:
        """Nothing runs."""


class Foretold:
    """A backend whose answers say, as JSON, what is expected of the soup that they were asked of."""

    def __init__(self, reach: Reach) -> None:
        self.reach = reach
        self.asked: list[Sequence[Mapping[str, str]]] = []

    def tokens(self, said: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        self.asked.append(said)
        return (1,)

    def submit(self, request: Request, put: Callable[[Delta], None]) -> Ticket:
        (point,) = self.reach.expected([request.grant.granted])
        text = json.dumps(self.reach.traits.values(point))
        put(Delta(text[:5], (), None, 1, 0, 1))
        put(Delta(text[5:], (), "stop", 1, 0, 2))
        return Ticket()


def read(_: str, texts: Sequence[str]) -> list[Mapping[str, float] | None]:
    return [json.loads(text) if text.startswith("{") else None for text in texts]


@pytest.fixture
def session(reach: Reach) -> LearningSession:
    policy = Policy.open(ENTRIES)
    return LearningSession(
        Foretold(reach),  # type: ignore[arg-type]
        lambda weights: policy.clamp(weights),
        Learner(reach, read),
        lambda: None,
        Sampling(),
        "delta",
        Console(file=StringIO(), width=100),
    )


def said(session: LearningSession) -> str:
    file: Any = session.console.file
    return str(file.getvalue())


def test_keys_become_evidence_that_is_kept_at_once(session: LearningSession) -> None:
    kept: list[int] = []
    session.keep = lambda: kept.append(len(session.learner.signals))
    ask_questions(session, ["Why?", "How?"], iter("1x20nsu"), 6)
    assert kept == [1, 2, 3, 4, 3]
    assert [each.kind for each in session.learner.signals] == ["choice", "choice", "tie"]  # the "neither" was undone
    assert "what you want" in said(session)
    assert all(each.source == "terminal" for each in session.learner.signals)


def test_every_prompt_has_its_turn(session: LearningSession) -> None:
    prompts = ["Why?", "How?", "When?", "Who?"]
    ask_questions(session, prompts, iter("1s2n"), 4)
    backend: Any = session.backend
    assert [said[-1]["content"] for said in backend.asked] == prompts


def test_it_ends_when_nothing_is_worth_a_question(session: LearningSession) -> None:
    session.enough = 0.9
    ask_questions(session, ["Why?"], iter(()), 5)
    assert "nothing is worth a question" in said(session)
    assert session.learner.signals == ()


def test_what_interrupts_a_question_loses_nothing_of_those_before(session: LearningSession) -> None:
    def keys() -> Iterator[str]:
        yield "1"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ask_questions(session, ["Why?"], keys(), 5)
    assert len(session.learner.signals) == 1


def test_what_is_said_of_an_answer_moves_the_next_one(session: LearningSession) -> None:
    listen(
        session, iter(["Why is the sky blue?", "shorter please", "too long", "Why is grass green?", "/why", "/quit"])
    )
    assert [(each.kind, each.toward) for each in session.learner.signals] == [
        ("cue", {"length": -1.0}),
        ("cue", {"length": -1.0}),
        ("silence", {}),
    ]
    backend: Any = session.backend
    assert [each[-1]["content"] for each in backend.asked] == [*["Why is the sky blue?"] * 3, "Why is grass green?"]
    assert len(backend.asked[1]) == 1  # a cue is no turn: the same is answered again
    assert len(backend.asked[3]) == 3
    assert session.learner.weights().get("short", 0) > 0
    assert "how far wants would be without it" in said(session)


@pytest.mark.parametrize("again", ["shorter please", "/again"])
def test_a_conversation_is_what_was_answered_though_an_answer_fails(
    session: LearningSession, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    backend: Any = session.backend
    tokens = backend.tokens

    def fails_twice(messages: Sequence[Mapping[str, str]]) -> tuple[int, ...]:
        found: tuple[int, ...] = tokens(messages)
        if len(backend.asked) in (3, 4):
            raise RecipeError("the prompt is too long", reason="too-long")
        return found

    monkeypatch.setattr(backend, "tokens", fails_twice)
    listen(session, iter(["Why?", "And how?", again, again, "When?", "/quit"]))
    asked = [[each["content"] for each in messages if each["role"] == "user"] for messages in backend.asked]
    assert asked == [["Why?"], *[["Why?", "And how?"]] * 3, ["Why?", "And how?", "When?"]]


def test_commands_are_signals_of_their_kinds(session: LearningSession) -> None:
    better = json.dumps(session.learner.traits.values(session.learner.reach.points[3]))
    lines = [
        "/up",
        "Why?",
        "/up",
        "/down",
        "/copy",
        f"/edit {better}",
        "/edit ...",
        "/nonsense",
        "/again",
        "/quit",
        "How?",
    ]
    listen(session, iter(lines))
    assert sorted(each.kind for each in session.learner.signals) == ["copy", "edit", "regenerate", "thumbs", "thumbs"]
    text = said(session)
    assert "nothing was answered yet" in text
    assert "no /nonsense" in text
    assert "without words has no traits" in text


# --- profiles ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learner() -> Learner:
    """Of the shipped adapters: somebody who wants short answers."""
    adapters = read_manifest(shipped_root())
    surface = Surface.beside(shipped_root(), adapters)
    feasible = Policy.open(adapters).feasible(sources="inferred")
    reach = Reach.of(surface, traits_of(surface, measures_here()), feasible)
    found = Learner(reach, TextMeasuring(reach.traits))
    values = found.measured("Why?", ["It is so, as light scatters, and air is thick and old and cold.", "It is so."])
    for number in range(6):
        found.learn(found.signal("choice", *values, id=f"q{number}", source="test", value=1.0, at=float(number)))
    return found


@pytest.fixture
def profile(tmp_path: Path, learner: Learner) -> Path:
    path, weights = tmp_path / "me.json", learner.weights()
    write_profile(
        path, LearntProfile(weights, dict.fromkeys(weights, "inferred"), "sha256:" + "0" * 64, learner.export())
    )
    return path


def test_a_profile_comes_back(profile: Path, learner: Learner) -> None:
    found = read_profile(profile)
    assert found.weights == learner.weights() != Weights()
    assert found.wants == learner.export()
    assert profile.stat().st_mode & 0o777 == 0o600


def test_merge_asks_for_the_weights_of_a_profile_as_inferred(run: Run, profile: Path, tmp_path: Path) -> None:
    code, out, _ = run("merge", "--profile", profile, "--dry-run", "--json")
    granted = json.loads(out)
    assert code == 0
    assert set(granted["granted"]) == set(read_profile(profile).weights)
    house = tmp_path / "house.yaml"
    rule = "  - {rule: source, adapter: concise, allow: [explicit]}\n"
    house.write_text(f"tier: organisation\nissuer: House\nversion: 1\nrules:\n{rule}", "utf-8")
    code, out, _ = run("merge", "--profile", profile, "--policy", house, "--dry-run", "--json")
    assert code == 0
    assert "concise" not in json.loads(out)["granted"]
    code, out, _ = run("merge", "--profile", profile, "-w", "concise=0.125", "--dry-run", "--json")
    assert json.loads(out)["granted"]["concise"] == "0.125"  # what is said goes before what was learnt


def test_what_was_learnt_is_shown_exported_and_forgotten(run: Run, profile: Path, learner: Learner) -> None:
    code, out, _ = run("learn", "show", "--profile", profile, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["weights"] == learner.weights().decimals()
    assert len(told["evidence"]) == 6
    assert run("learn", "export", "--profile", profile)[1].encode() == learner.export()
    assert run("learn", "forget", "q0", "q1", "--profile", profile)[0] == 0
    assert len(json.loads(run("learn", "show", "--profile", profile, "--json")[1])["evidence"]) == 4
    code, _, err = run("learn", "forget", "q0", "--profile", profile)
    assert code == 1
    assert "there is no signal 'q0' to forget" in err
    assert run("learn", "forget", "--profile", profile)[0] == 2
    assert run("learn", "forget", "--all", "--profile", profile)[0] == 0
    assert not profile.exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"weights": {"concise": "nan"}},
        {"weights": {"../x": "0.5"}},
        {"weights": None},
        {"wants": None},
        {"wants": []},
        {"policy": "sha256:1"},
        {"schema_version": 2},
        {"more": 1},
    ],
)
def test_a_file_of_something_else_is_refused(run: Run, profile: Path, changed: dict[str, object]) -> None:
    profile.write_text(json.dumps({**json.loads(profile.read_text("utf-8")), **changed}), "utf-8")
    code, _, err = run("merge", "--profile", profile, "--dry-run")
    assert code in (1, 2)
    assert "Traceback" not in err
    with pytest.raises((RecipeError, ValueError)):
        read_profile(profile)


def test_nothing_that_was_learnt_is_not_said_to_be_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soupmix.cli.learn._backend", lambda *_: StringIO())
    monkeypatch.setattr("soupmix.cli.learn._session", lambda *_: None)
    monkeypatch.setattr("soupmix.cli.learning.ask_questions", lambda *_: None)
    code, _, said = run("learn", "--profile", str(tmp_path / "me.json"))
    assert (code, said) == (0, "soupmix: nothing was learnt, so nothing is kept\n")
    assert not list(tmp_path.iterdir())


def test_a_link_is_no_profile(run: Run, profile: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(profile)
    assert run("merge", "--profile", link, "--dry-run")[0] in (1, 2)


def test_what_is_drawn_holds_intervals_around_means(learner: Learner) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(drawn(learner))
    file: Any = console.file
    lines = [line for line in file.getvalue().splitlines() if "●" in line]
    assert len(lines) == len(learner.traits.axes)
