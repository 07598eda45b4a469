"""Text and tokens as they come: together they are the whole up to the first stop, whatever the tokens are."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.backends import Token
from soupmix.batching.answer import Writer
from soupmix.engine.detokenizer import Continuation, Detokenizer
from soupmix.engine.engine import Engine
from tests.support.tokenizer_kinds import KINDS

MARK = "\N{REPLACEMENT CHARACTER}"
letters = st.text(alphabet="abcé\N{SNOWMAN}\N{GRINNING FACE} ", max_size=30)


def writer(engine: Engine, stops: list[str]) -> Writer:
    return Writer(Continuation(engine.detokenizer, ()), stops)


def test_pieces_make_the_text_up_to_the_first_stop(engine: Engine) -> None:
    @settings(max_examples=200, deadline=None)
    @given(letters, st.lists(st.text(alphabet="abcé ", min_size=1, max_size=4), max_size=3))
    def law(text: str, stops: list[str]) -> None:
        made, shown = writer(engine, stops), ""
        for token in engine.plain_tokens(text):
            shown += made.add(token)[0]
            if made.stopped:
                break
        else:
            shown += made.rest()[0]
        ends = [text.find(stop) for stop in stops if stop in text]
        assert made.stopped == bool(ends)
        # a stop is seen when its last character comes, so an overlapping one that began earlier may come second
        assert shown == text[: min(ends, default=len(text))] or (ends and text.startswith(shown))
        assert not any(stop in shown for stop in stops)

    law()


def test_nothing_is_shown_that_could_still_become_a_stop(engine: Engine) -> None:
    made = writer(engine, ["END"])
    shown = [made.add(token)[0] for token in engine.plain_tokens("an EN an END")]
    assert "".join(shown) == "an EN an "
    assert shown[engine.plain_tokens("an EN").index(engine.plain_tokens("N")[0])] == ""


@pytest.mark.parametrize("kind", sorted(KINDS.keys() - {"suffixes", "in_python"}))
def test_tokens_are_told_with_their_text_and_end_where_it_ends(kind: str) -> None:
    tokenizer = KINDS[kind]()
    detokenizer = Detokenizer(tokenizer)
    prompt = [tokenizer.convert_tokens_to_ids("<tool>")]
    if prompt[0] in (None, tokenizer.unk_token_id):
        prompt = [detokenizer._before[0]]
    some = st.integers(5, len(tokenizer) - 1)

    @settings(max_examples=100, deadline=None)
    @given(st.data(), st.lists(some, max_size=30), st.booleans())
    def law(data: Any, answer: list[int], ends: bool) -> None:
        whole = detokenizer.added(prompt, answer)
        if MARK in whole or MARK in detokenizer.text(prompt):
            return
        stop = whole
        if whole:
            begin = data.draw(st.integers(0, len(whole) - 1))
            stop = whole[begin : begin + data.draw(st.integers(1, 4))]
        made = Writer(Continuation(detokenizer, prompt), [stop] if ends and stop else [])
        shown, told = "", b""
        ids: list[int] = []
        for token in answer:
            text, tokens = made.add(token, Token(token, detokenizer.name(token), detokenizer.data(token), 0.0))
            shown, told, ids = shown + text, told + b"".join(each.data for each in tokens), ids + [t.id for t in tokens]
            assert shown.encode().startswith(told)
            if made.stopped:
                break
        else:
            text, tokens = made.rest()
            shown, told, ids = shown + text, told + b"".join(each.data for each in tokens), ids + [t.id for t in tokens]
        assert made.stopped == (ends and bool(stop))
        assert told.decode() == shown
        assert shown == (whole[: whole.index(stop)] if made.stopped else whole)
        assert ids == answer[: len(ids)]
        assert made.stopped or ids == answer

    law()


def test_a_token_that_reaches_into_the_stop_text_is_told_as_far_as_it_is_shown(engine: Engine) -> None:
    tokenizer = KINDS["llama"]()
    detokenizer = Detokenizer(tokenizer)
    numbers = tokenizer.convert_tokens_to_ids(["▁the", "▁cat", "▁sat"])
    made = Writer(Continuation(detokenizer, numbers), ["at s"])
    told = [made.add(each, Token(each, detokenizer.name(each), detokenizer.data(each), 0.0)) for each in numbers]
    assert [text for text, _ in told] == [" the", " c", ""]
    assert [[(each.text, each.data) for each in tokens] for _, tokens in told] == [
        [(" the", b" the")],
        [],
        [(" c", b" c")],
    ]
    assert made.stopped


def test_a_stop_text_in_what_was_held_to_the_end_is_found() -> None:
    tokenizer = KINDS["llama"]()
    detokenizer = Detokenizer(tokenizer)
    made = Writer(Continuation(detokenizer, tokenizer.convert_tokens_to_ids(["▁the"])), ["b"])
    for byte in b"abc":  # a run of bytes is not text before it ends
        token = tokenizer.convert_tokens_to_ids(f"<0x{byte:02X}>")
        assert made.add(token, Token(token, "", bytes([byte]), 0.0)) == ("", ())
    text, tokens = made.rest()
    assert (text, b"".join(each.data for each in tokens), made.stopped) == ("a", b"a", True)
