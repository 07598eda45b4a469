"""Text as it comes: together it is the whole text up to the first stop, whatever the tokens are."""

from hypothesis import given, settings
from hypothesis import strategies as st

from soupmix.base import Base
from soupmix.batching.answer import Writer
from soupmix.engine.engine import Engine

letters = st.text(alphabet="abcé\N{SNOWMAN}\N{GRINNING FACE} ", max_size=30)


def test_pieces_make_the_text_up_to_the_first_stop(engine: Engine) -> None:
    @settings(max_examples=200, deadline=None)
    @given(letters, st.lists(st.text(alphabet="abcé ", min_size=1, max_size=4), max_size=3))
    def law(text: str, stops: list[str]) -> None:
        writer, shown = Writer(engine.tokenizer, stops), ""
        for token in engine.plain_tokens(text):
            shown += writer.add(token)
            if writer.stopped:
                break
        else:
            shown += writer.rest()
        ends = [text.find(stop) for stop in stops if stop in text]
        assert writer.stopped == bool(ends)
        # a stop is seen when its last character comes, so an overlapping one that began earlier may come second
        assert shown == text[: min(ends, default=len(text))] or (ends and text.startswith(shown))
        assert not any(stop in shown for stop in stops)

    law()


def test_nothing_is_shown_that_could_still_become_a_stop(engine: Engine, tiny_base: Base) -> None:
    writer = Writer(engine.tokenizer, ["END"])
    shown = [writer.add(token) for token in engine.plain_tokens("an EN an END")]
    assert "".join(shown) == "an EN an "
    assert shown[engine.plain_tokens("an EN").index(engine.plain_tokens("N")[0])] == ""
