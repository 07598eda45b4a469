"""Where tokens stand in a streamed completion: told of each delta by itself, however long the answer is."""

from soupmix.backends import Delta, Token
from soupmix.openai.forms import AnswerSoFar, CompletionForm


def test_offsets_of_a_stream_are_those_of_the_whole_and_need_no_token_again() -> None:
    data = [b"a", b"\xc3", b"\xa9b", b"", b"\xf0\x9f", b"\x98\x80", b"\xff", b"!"]
    tokens = [Token(number, each.decode("utf-8", "replace"), each, -1.0) for number, each in enumerate(data)]
    whole = AnswerSoFar()
    whole.add(Delta("", tuple(tokens), "length", 1, 0, len(tokens)))
    expected = CompletionForm().choice(0, whole)["logprobs"]["text_offset"]
    made, found = AnswerSoFar(), list[int]()
    for number, token in enumerate(tokens):
        delta = Delta("", (token,), None, 1, 0, number)
        made.tokens.clear()  # they are not read again
        found += CompletionForm().delta(0, made, delta)["logprobs"]["text_offset"]
        made.add(delta)
    assert found == expected == [0, 1, 1, 3, 3, 3, 4, 5]
