"""What a request carries: it says the same at both ends, and nobody without the key can make or change it."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.errors import AdapterError, PolicyError, PolicyRefusal, RecipeError
from soupmix.policy import Grant
from soupmix.store import Store
from soupmix.vllm_plugin.row import SoupRow, adapters_digest, read_key, reason_in

KEY, PROMPT, SALT = bytes(range(32)), (5, 6, 7), "a salt"
Granter = Callable[..., Grant]


@pytest.fixture(scope="module")
def held(pico_store: Store) -> tuple[tuple[str, str], ...]:
    return tuple((each.name, each.digest) for each in pico_store)


@pytest.fixture
def row(grant: Granter, held: tuple[tuple[str, str], ...]) -> SoupRow:
    return SoupRow.of(grant(calm=0.25, plain=0.5), held, SALT)


def test_a_row_comes_out_as_it_went_in(row: SoupRow, held: tuple[tuple[str, str], ...]) -> None:
    text = row.seal(KEY, PROMPT)
    assert SoupRow.unseal(text, KEY, PROMPT) == row
    assert dict(zip([name for name, _ in held], row.weights, strict=True)) == {
        "calm": 250_000,
        "loud": 0,
        "plain": 500_000,
    }
    assert row.adapters == adapters_digest(held)
    assert text.isascii()
    assert len(text) < 1000


def test_a_row_is_for_one_key_and_one_prompt(row: SoupRow) -> None:
    text = row.seal(KEY, PROMPT)
    for key, prompt in ((KEY[::-1], PROMPT), (KEY, PROMPT[:-1]), (KEY, (*PROMPT, 8)), (KEY, (7, 6, 5)), (KEY, ())):
        with pytest.raises(PolicyRefusal) as caught:
            SoupRow.unseal(text, key, prompt)
        assert caught.value.reason == "forged"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", [1_000_000, 0, 0]),
        ("salt", "another"),
        ("policy", f"sha256:{'0' * 64}"),
        ("adapters", f"sha256:{'0' * 64}"),
        ("attributes", {"audience": "adult"}),
        ("sources", "inferred"),
    ],
)
def test_nothing_of_a_row_can_be_changed(row: SoupRow, name: str, value: object) -> None:
    body, tag = row.seal(KEY, PROMPT).split(".")
    said = json.loads(urlsafe_b64decode(body + "=="))
    assert said[name] != value
    changed = urlsafe_b64encode(json.dumps({**said, name: value}).encode()).decode().rstrip("=")
    with pytest.raises(PolicyRefusal) as caught:
        SoupRow.unseal(f"{changed}.{tag}", KEY, PROMPT)
    assert caught.value.reason == "forged"


@pytest.mark.parametrize("text", [None, 3, "", "a", "a.b.c", "\N{SNOWMAN}.b", "x" * 70_000, ["a"]])
def test_what_is_no_row_is_refused(text: object) -> None:
    with pytest.raises(RecipeError) as caught:
        SoupRow.unseal(text, KEY, PROMPT)
    assert caught.value.reason == "bad-row"


@pytest.mark.parametrize("body", [b"{}", b"[]", b"null", b'{"v":1}', b'{"v":1,"v":1}', b"\xff", b"[" * 5000])
def test_what_a_holder_of_the_key_seals_is_still_read_with_care(
    body: bytes, monkeypatch: pytest.MonkeyPatch, row: SoupRow
) -> None:
    monkeypatch.setattr("soupmix.vllm_plugin.row.canonical_json", lambda _: body)
    text = row.seal(KEY, PROMPT)
    with pytest.raises(RecipeError) as caught:
        SoupRow.unseal(text, KEY, PROMPT)
    assert caught.value.reason == "bad-row"


def test_a_row_is_of_adapters_that_are_held(grant: Granter, held: tuple[tuple[str, str], ...]) -> None:
    with pytest.raises(AdapterError) as caught:
        SoupRow.of(grant(calm=0.5), held[1:], SALT)
    assert caught.value.reason == "digest-mismatch"
    assert SoupRow.of(grant(plain=0.5), held[1:], SALT).weights == (0, 500_000)


def test_a_row_is_of_a_grant(grant: Granter, held: tuple[tuple[str, str], ...]) -> None:
    from soupmix.policy.recorded import read_record

    with pytest.raises(PolicyError, match="record"):
        SoupRow.of(read_record(grant(calm=0.5).to_dict()), held, SALT)  # type: ignore[arg-type]


def test_order_is_part_of_which_adapters_these_are(held: tuple[tuple[str, str], ...]) -> None:
    assert adapters_digest(held) != adapters_digest(held[::-1])


def test_a_key_has_a_length(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(KEY[:31])
    (tmp_path / "key").write_bytes(KEY)
    assert read_key(tmp_path / "key") == KEY
    with pytest.raises(RecipeError, match="31 bytes") as caught:
        read_key(tmp_path / "short")
    assert caught.value.reason == "short-key"


def test_a_reason_is_found_at_the_end_of_a_message() -> None:
    assert reason_in("no such thing [other-policy]") == "other-policy"
    assert reason_in("[forged] was said") == reason_in("no") == ""
