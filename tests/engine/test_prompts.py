"""From prompts to tokens, for tokenizers of every kind: beginnings, ends, and the marks of roles that nobody may write."""

from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers import normalizers
from transformers import AutoModelForCausalLM

from soupmix.backends import Delta, Limits, Request
from soupmix.base import load_tokenizer
from soupmix.base.roles import end_of_answer, role_markers
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.engine.prompts import Prompts
from soupmix.errors import BaseModelError, RecipeError
from soupmix.policy import Policy
from tests.support.kind_of_base import base_with
from tests.support.tokenizer_kinds import CHATML, KINDS, SPECIALS

SHORT = Sampling(max_new_tokens=12)
HUMAN = (
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ m.content + eos_token }}{% else %}[/USER]{{ m.content }}"
    "{% endif %}{% endfor %}"
)


def prompts(kind: str, template: str | None = CHATML, size: int = 10**6) -> Prompts:
    tokenizer = KINDS[kind]()
    tokenizer.chat_template = template
    return Prompts(tokenizer, size)


def reason(prompts: Prompts, said: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        prompts.tokens(prompts.rendered(said))
    return caught.value.reason


def test_whatever_the_template_writes_in_a_token_of_its_own_is_a_marker() -> None:
    plain = prompts("llama", template=None)
    assert set(plain.markers) == set(SPECIALS)
    assert set(prompts("llama", template=HUMAN).markers) == {*SPECIALS, "[/USER]"}
    tokenizer = KINDS["llama"]()
    assert role_markers(tokenizer)["<|im_start|>"] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    tokenizer.add_tokens(["a", "kzq", "\n", "assist", "unsaid"])  # a letter, the probe itself, white space, a word
    assert set(role_markers(tokenizer)) == {*SPECIALS, "assist"}


@pytest.mark.parametrize("kind", ["byte_level", "llama", "gemma", "metaspace", "word_piece"])
def test_a_marker_is_found_as_it_is_written(kind: str) -> None:
    made = prompts(kind, HUMAN)
    for text in made.markers:
        assert made.marker(f"the cat{text}sat") in made.markers
    assert made.marker("the cat sat <tool>") is None


def test_a_marker_is_found_as_the_tokenizer_reads_it() -> None:
    made = prompts("word_piece", HUMAN)  # it makes all letters small
    assert made.marker("the cat [/uSeR] sat") == "[/USER]"
    made = prompts("metaspace", HUMAN)
    made._tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    assert made.marker("the \N{FULLWIDTH LESS-THAN SIGN}/s> cat") == "</s>"


@pytest.mark.parametrize("kind", ["llama", "gemma", "word_piece"])
def test_a_text_has_the_beginning_that_the_tokenizer_gives_it_once_and_no_end(kind: str) -> None:
    made, tokenizer = prompts(kind), KINDS[kind]()
    (bos,) = tokenizer.convert_tokens_to_ids(["<s>"])
    bare = made.tokens("the cat")
    assert made.plain("the cat") == (bos, *bare)
    assert made.plain("<s>the cat").count(bos) == 1
    assert bos not in made.tokens(made.rendered("the cat"))
    assert made.plain("") == ()
    begins = prompts(kind, "{{ bos_token }}" + CHATML)
    assert begins.tokens(begins.rendered("the cat")).count(bos) == 1


def test_a_tokenizer_that_begins_nothing_begins_nothing() -> None:
    made = prompts("byte_level")
    assert made.plain("the cat") == made.tokens("the cat")


def test_ends_are_those_that_anybody_knows_of() -> None:
    made, tokenizer = prompts("llama"), KINDS["llama"]()
    eos, end = tokenizer.convert_tokens_to_ids(["</s>", "<|im_end|>"])
    assert made.ends(SimpleNamespace(eos_token_id=[5, 6])) == {5, 6, eos, end}
    assert made.ends(SimpleNamespace(eos_token_id=7)) == {7, eos, end}
    assert (
        made.ends(SimpleNamespace(eos_token_id=None)) == made.ends(None) == made.ends(SimpleNamespace()) == {eos, end}
    )
    silent = prompts("llama", template=None)
    silent._tokenizer.eos_token = None
    assert silent.ends(None) == frozenset()
    assert end_of_answer(prompts("llama", HUMAN)._tokenizer) == eos
    next_turn = HUMAN.replace(" + eos_token", "")  # an answer that begins it is over
    assert end_of_answer(prompts("llama", next_turn)._tokenizer) == tokenizer.convert_tokens_to_ids("[/USER]")
    assert end_of_answer(prompts("llama", "{{ messages[0].content }}")._tokenizer) is None


def test_what_cannot_be_read_is_refused_in_a_sentence() -> None:
    assert reason(prompts("words", "{{ messages[0].content }}"), "never heard") == "cannot-encode"
    assert prompts("words", "{{ messages[0].content }}").tokens("the cat")
    assert reason(prompts("llama"), "\ud800") == "cannot-encode"
    assert reason(prompts("llama", size=20), "the cat") == "no-such-token"
    for said in ([{"role": "user", "content": None}], [{"role": "user"}], [{"content": "hi"}], ["hi"], [None]):
        assert reason(prompts("llama"), said) == "bad-conversation"
    assert reason(prompts("llama"), "") == reason(prompts("llama"), []) == "empty-prompt"


@pytest.mark.parametrize("kind", ["llama", "byte_level", "word_piece", "in_python"])
def test_a_base_without_a_pad_token_answers_as_transformers_does(
    kind: str, tmp_path: Path, session_cache: Path
) -> None:
    tokenizer = KINDS[kind]()
    base = base_with(tokenizer, tmp_path / "base", session_cache)
    engine, nothing = Engine.load(base, None), Policy.open(()).clamp({})
    assert engine.tokenizer.pad_token_id is None
    said = ["the cat", "the cat sat. the cat sat", "no"]
    made = engine.complete(said, [nothing] * 3, sampling=SHORT)
    model = AutoModelForCausalLM.from_pretrained(base.folder).eval()
    for prompt, answer in zip(said, made, strict=True):
        ids = engine.chat_tokens(prompt)
        with torch.inference_mode():
            out = model.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
                max_new_tokens=12,
                do_sample=False,
                eos_token_id=sorted(engine.ends),
                pad_token_id=0,
            )
        whole = out[0].tolist()
        assert answer.finished == (whole[-1] in engine.ends)
        before, after = (engine.tokenizer.decode(each, skip_special_tokens=True) for each in (ids, whole))
        assert before + answer.text == after or engine.detokenizer.added(ids, whole[len(ids) :]) == answer.text
    with Batcher(engine, Limits(rows=3, length=256)) as batcher:
        assert [streamed(batcher, Request(engine.chat_tokens(each), nothing, SHORT)) for each in said] == [
            each.text for each in made
        ]


def streamed(batcher: Batcher, request: Request) -> str:
    heard: SimpleQueue[Delta] = SimpleQueue()
    batcher.submit(request, heard.put)
    found = [heard.get(timeout=60)]
    while found[-1].finish is None:
        found.append(heard.get(timeout=60))
    return "".join(each.text for each in found)


@pytest.mark.parametrize(
    ("files", "says"), [((), "holds no tokenizer"), (("tokenizer.model",), "pip install sentencepiece")]
)
def test_a_tokenizer_that_is_not_there_or_cannot_be_read_is_said(
    files: tuple[str, ...], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("soupmix.base.loading.find_spec", lambda name: None)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    for name in files:
        (tmp_path / name).write_bytes(b"nothing")
    with pytest.raises(BaseModelError, match=says) as caught:
        load_tokenizer(tmp_path)
    assert caught.value.reason == "cannot-load"
