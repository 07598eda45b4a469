"""Whether a request may have its row: asked once more, whoever sealed it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.errors import FileError, PolicyError, RecipeError, SoupmixError
from soupmix.policy import Policy
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.row import SoupRow
from soupmix.vllm_plugin.setup import read_setup

KEY, PROMPT, SALT = bytes(range(32)), (5, 6, 7), "a salt"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def document(tmp_path: Path, pico_store: Store) -> Callable[..., Path]:
    """Writes a policy whose weights are at most `most`, without and with the attribute audience=adult."""

    def write(most: str = "0.5", adults: str = "0.8") -> Path:
        approved = [{"name": each.name, "digest": each.digest} for each in pico_store]
        rules = [
            {"rule": "approve", "adapters": approved, "id": "a"},
            {"rule": "bounds", "adapter": "calm", "at_most": most, "id": "b", "scope": {"audience": ["minor"]}},
            {"rule": "bounds", "adapter": "calm", "at_most": adults, "id": "c"},
        ]
        path = tmp_path / "org.yaml"
        path.write_text(json.dumps({"tier": "organisation", "issuer": "A", "version": "1", "rules": rules}))
        return path

    return write


@pytest.fixture
def setup(tmp_path: Path, pico_store: Store, document: Callable[..., Path]) -> Path:
    document()
    (tmp_path / "key").write_bytes(KEY)
    said = {"store": str(pico_store.folder), "key": "key", "policy": ["org.yaml"]}
    (tmp_path / "setup.json").write_text(json.dumps(said))
    return tmp_path / "setup.json"


def sealed(checker: Checker, policy: Policy, salt: str = SALT, **asked: float) -> str:
    return SoupRow.of(policy.clamp(asked), checker.adapters, salt).seal(KEY, PROMPT)


def refused(checker: Checker, text: object, salt: str | None = SALT, prompt: tuple[int, ...] | None = PROMPT) -> str:
    with pytest.raises(SoupmixError) as caught:
        checker.check(text, prompt, salt)
    return caught.value.reason


def test_what_the_policy_granted_is_served(setup: Path) -> None:
    checker = Checker(read_setup(setup))
    row = checker.check(sealed(checker, checker.policy, calm=0.9, plain=0.1), PROMPT, SALT)
    assert row.weights == (500_000, 0, 100_000)
    adult = checker.policy.clamp({"calm": 0.9}, audience="adult")
    text = SoupRow.of(adult, checker.adapters, SALT).seal(KEY, PROMPT)
    assert checker.check(text, PROMPT, SALT).weights == (800_000, 0, 0)


def test_whoever_holds_the_key_still_gets_no_more_than_the_policy_grants(setup: Path) -> None:
    checker = Checker(read_setup(setup))
    row = SoupRow.of(checker.policy.clamp({"calm": 0.5}), checker.adapters, SALT)
    for weights in ((500_001, 0, 0), (-1, 0, 0), (0, 0, 2_000_000), (10**12, 0, 0)):
        forged = row.model_copy(update={"weights": weights}).seal(KEY, PROMPT)
        assert refused(checker, forged) in ("not-granted", "bad-number")
    lent = row.model_copy(update={"weights": (800_000, 0, 0)})
    assert refused(checker, lent.seal(KEY, PROMPT)) == "not-granted"
    assert checker.check(lent.model_copy(update={"attributes": {"audience": "adult"}}).seal(KEY, PROMPT), PROMPT, SALT)


def test_a_row_goes_with_its_salt_its_prompt_and_its_adapters(setup: Path) -> None:
    checker = Checker(read_setup(setup))
    text = sealed(checker, checker.policy, calm=0.5)
    assert refused(checker, text, salt="another") == refused(checker, text, salt=None) == "other-salt"
    assert refused(checker, text, prompt=(1,)) == "forged"
    assert refused(checker, text, prompt=None) == "no-tokens"
    row = SoupRow.of(checker.policy.clamp({"calm": 0.5}), checker.adapters[:2], SALT)
    assert refused(checker, row.seal(KEY, PROMPT)) == "other-adapters"
    assert refused(checker, SoupRow.nothing(checker.adapters).seal(KEY, PROMPT), salt="none") == "other-policy"


def test_a_new_policy_is_held_to_at_once_where_it_is_asked_for_and_soon_everywhere(
    setup: Path, document: Callable[..., Path], pico_store: Store
) -> None:
    clock = Clock()
    checker = Checker(read_setup(setup), clock)
    before = sealed(checker, checker.policy, calm=0.5)
    after = Policy.load(document("0.3"), adapters=pico_store)
    asked = sealed(checker, after, calm=0.5)
    assert refused(checker, asked) == "other-policy", "it was read a moment ago"
    assert checker.check(before, PROMPT, SALT)
    clock.now = 1.0
    assert checker.check(asked, PROMPT, SALT).weights == (300_000, 0, 0)
    assert refused(checker, before) == "other-policy"
    document("0.2")
    clock.now = 60.9
    assert checker.check(asked, PROMPT, SALT)
    clock.now = 61.0
    assert refused(checker, asked) == "other-policy", "not served longer than `refresh` seconds"


def test_what_is_kept_for_a_row_is_found_by_no_other_request(setup: Path) -> None:
    checker = Checker(read_setup(setup))
    row = SoupRow.of(checker.policy.clamp({"calm": 0.5}), checker.adapters, SALT)
    others = [row.model_copy(update=change) for change in ({"weights": (400_000, 0, 0)}, {"salt": "another"})]
    salts = [*(each.kept_under(KEY) for each in (row, *others)), row.kept_under(KEY[::-1]), SALT]
    assert len(set(salts)) == len(salts)
    assert row.kept_under(KEY) == SoupRow.unseal(row.seal(KEY, PROMPT), KEY, PROMPT).kept_under(KEY)


def test_bounds_are_those_of_the_policy_of_a_row(setup: Path, document: Callable[..., Path], pico_store: Store) -> None:
    clock = Clock()
    checker = Checker(read_setup(setup), clock)
    old = SoupRow.of(checker.policy.clamp({"calm": 0.5}), checker.adapters, SALT)
    assert checker.most(old) == (800_000, 1_000_000, 1_000_000)
    looser = Policy.load(document("0.5", "0.9"), adapters=pico_store)
    new = SoupRow.of(looser.clamp({"calm": 0.9}, audience="adult"), checker.adapters, SALT)
    assert checker.most(new) is None, "it was read a moment ago"
    clock.now = 1.0
    assert checker.most(new) == (900_000, 1_000_000, 1_000_000)


def test_a_policy_that_cannot_be_read_any_more_serves_nobody(setup: Path, document: Callable[..., Path]) -> None:
    clock = Clock()
    checker = Checker(read_setup(setup), clock)
    text = sealed(checker, checker.policy, calm=0.5)
    document().write_text("nonsense: [")
    clock.now = 60.0
    assert refused(checker, text) == "no-policy"


def test_without_a_policy_nothing_is_served_unless_somebody_says_so(tmp_path: Path, pico_store: Store) -> None:
    (tmp_path / "key").write_bytes(KEY)
    path = tmp_path / "setup.json"
    said: dict[str, object] = {"store": str(pico_store.folder), "key": "key"}
    path.write_text(json.dumps(said))
    with pytest.raises(PolicyError, match="no policy") as caught:
        read_setup(path)
    assert caught.value.reason == "no-policy"
    path.write_text(json.dumps({**said, "open": True, "policy": ["org.yaml"]}))
    with pytest.raises(PolicyError, match="leave one"):
        read_setup(path)
    path.write_text(json.dumps({**said, "open": True}))
    checker = Checker(read_setup(path))
    assert checker.check(sealed(checker, checker.policy, calm=0.5), PROMPT, SALT)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"key": null}', '{"key": "key", "keys": 1}', '{"open": true}'])
def test_a_setup_that_says_something_else_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "setup.json").write_text(text)
    with pytest.raises(RecipeError) as caught:
        read_setup(tmp_path / "setup.json")
    assert caught.value.reason == "bad-setup"


def test_a_setup_without_a_key_is_refused(tmp_path: Path) -> None:
    (tmp_path / "setup.json").write_text('{"key": "nowhere", "open": true}')
    with pytest.raises(FileError, match="missing"):
        read_setup(tmp_path / "setup.json")
