"""Text of tokens, whole and in parts: it is what transformers decodes, whatever the tokenizer and the tokens are."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.engine.detokenizer import Continuation, Detokenizer
from soupmix.errors import BaseModelError
from tests.support.tokenizer_kinds import KINDS, PLAIN_ADDED

MARK = "\N{REPLACEMENT CHARACTER}"


@pytest.fixture(scope="module", params=sorted(KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[str, Any, Detokenizer]:
    tokenizer = KINDS[request.param]()
    return request.param, tokenizer, Detokenizer(tokenizer)


def decoded(tokenizer: Any, ids: Sequence[int]) -> str:
    return tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)


def added(tokenizer: Any, prompt: Sequence[int], answer: Sequence[int]) -> str:
    before, whole = decoded(tokenizer, prompt), decoded(tokenizer, [*prompt, *answer])
    alike = [one == other for one, other in zip(before, whole, strict=False)]
    return whole[[*alike, False].index(False) :]


def parts(detokenizer: Detokenizer, prompt: Sequence[int], answer: Sequence[int]) -> Iterator[str]:
    made = Continuation(detokenizer, prompt)
    yield from map(made.add, answer)
    yield made.rest()


def ids(tokenizer: Any, most: int) -> st.SearchStrategy[list[int]]:
    number = st.integers(0, len(tokenizer) - 1)
    return st.lists(number, max_size=most) | st.lists(st.sampled_from(range(5, min(30, len(tokenizer)))), max_size=most)


def test_parts_are_the_whole_and_the_whole_is_what_the_tokenizer_decodes(kind: tuple[str, Any, Detokenizer]) -> None:
    _, tokenizer, detokenizer = kind

    @settings(max_examples=120, deadline=None)
    @given(ids(tokenizer, 24), ids(tokenizer, 60))
    def law(prompt: list[int], answer: list[int]) -> None:
        expected = added(tokenizer, prompt, answer)
        assert detokenizer.added(prompt, answer) == expected
        assert "".join(parts(detokenizer, prompt, answer)) == expected

    law()


def test_the_bytes_of_tokens_make_the_text(kind: tuple[str, Any, Detokenizer]) -> None:
    name, tokenizer, detokenizer = kind
    if name in ("suffixes", "in_python"):
        pytest.skip("a token's space depends on the next token")

    @settings(max_examples=120, deadline=None)
    @given(ids(tokenizer, 12), ids(tokenizer, 30))
    def law(prompt: list[int], answer: list[int]) -> None:
        text = added(tokenizer, prompt, answer)
        if MARK in decoded(tokenizer, prompt) + decoded(tokenizer, [*prompt, *answer]):
            return
        data = b"".join(map(detokenizer.data, answer))
        first = (
            decoded(tokenizer, prompt) == ""
        )  # of the first token of a text a decoder takes the space, or leaves a "##"
        assert data == text.encode() or (first and data.lstrip() == text.encode().replace(b"##", b"", 1))

    law()


def test_a_character_begun_in_the_prompt_is_completed(kind: tuple[str, Any, Detokenizer]) -> None:
    name, tokenizer, detokenizer = kind
    if name not in ("byte_level", "llama", "gemma"):
        pytest.skip("it has no parts of characters")
    spelt = {detokenizer.data(token): token for token in range(len(tokenizer)) if len(detokenizer.data(token)) == 1}
    smile = [spelt[bytes([each])] for each in "a😀".encode()]
    for cut in range(1, len(smile)):
        assert "".join(parts(detokenizer, smile[:cut], smile[cut:])) == "a😀"[1:]


def test_text_comes_at_once_where_no_later_token_can_change_it(kind: tuple[str, Any, Detokenizer]) -> None:
    _, tokenizer, detokenizer = kind
    if detokenizer.is_python:
        pytest.skip("of a tokenizer in Python nothing is known of the last token")
    said = [tokenizer.convert_tokens_to_ids("<tool>")] * 40
    made = Continuation(detokenizer, said[:1])
    assert [made.add(each).strip() for each in said] == ["<tool>"] * 40


def test_special_tokens_have_a_name_and_no_bytes(kind: tuple[str, Any, Detokenizer]) -> None:
    _, tokenizer, detokenizer = kind
    end = tokenizer.eos_token_id
    assert (detokenizer.name(end), detokenizer.data(end)) == ("</s>", b"")
    if detokenizer.is_python:
        return  # it has no such tokens, and an unknown one is "<unk>"
    for text in PLAIN_ADDED:
        name = detokenizer.name(tokenizer.convert_tokens_to_ids(text)).strip()
        assert name.casefold() == text.casefold()
    for unknown in (len(tokenizer) + 3, 10**9):
        assert (detokenizer.name(unknown), detokenizer.data(unknown)) == ("", b"")


def test_a_token_that_cannot_be_read_is_told_as_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = KINDS["in_python"]()
    odd, honest = len(tokenizer) - 1, tokenizer.decode

    def decode(ids: Sequence[int], **options: Any) -> str:
        if odd in ids and options["skip_special_tokens"]:
            raise KeyError("no such piece")
        return str(honest(ids, **options))

    monkeypatch.setattr(tokenizer, "decode", decode)
    detokenizer = Detokenizer(tokenizer)
    with pytest.raises(BaseModelError):
        detokenizer.text([odd])
    assert detokenizer.data(odd) == tokenizer.convert_ids_to_tokens(odd).encode()
