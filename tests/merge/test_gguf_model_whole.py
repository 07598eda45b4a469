"""llama.cpp says of a GGUF model what the engine says of the soup at request time, and splits texts as its tokenizer does."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from soupmix.base import Base, load_tokenizer, resolve
from soupmix.engine import Engine, Sampling
from soupmix.merge import merge
from soupmix.policy import Grant, Policy
from soupmix.store.store import Store
from tests.support.families import make_family
from tests.support.llama_cpp_real import llama_greedy, llama_logits, llama_tokens, needs_llama_cpp

pytestmark = [pytest.mark.slow, needs_llama_cpp]
IDS = [7, 99, 23, 150, 41, 5, 88, 61, 12, 200, 33, 17]
_WORDS = r"[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
TEXTS = [
    "Hello, world!  It's 12345 o'clock;\n\n  we'll see.\t x=1.5e10 ...",
    "  Zwei Wörter, naïve café, ΑΒΓ, 日本語 and 🙂🙃.\r\nNew line 007",
    "a",
    " ",
    "I'M 3.14159's <|im_start|> user",
]


def _rope(kind: str, **more: Any) -> Mapping[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, "factor": 4.0, **more}}


@pytest.fixture
def soup_of(
    make_store: Callable[..., Store], grant: Callable[..., Grant], tiny_adapter: Callable[..., Path]
) -> Callable[[Base], tuple[Store, Grant]]:
    def make(base: Base) -> tuple[Store, Grant]:
        folders = {name: tiny_adapter(rank=4, seed=n, base=base) for n, name in enumerate(("one", "two"))}
        store = make_store(folders, base)
        return store, grant(store, one=0.5, two=0.75)

    return make


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("llama3", {}),
        ("llama3.2-tied", {}),
        ("llama-bias", {}),
        ("falcon3", {}),
        ("mistral-v0.3", {}),
        ("qwen2.5", {}),
        ("qwen3", {}),
        ("llama-bias", _rope("linear")),
        ("llama3.2-tied", _rope("yarn", original_max_position_embeddings=128)),
    ],
)
def test_llama_cpp_computes_what_the_engine_computes(
    family: str,
    settings: Mapping[str, Any],
    soup_of: Callable[[Base], tuple[Store, Grant]],
    tmp_path: Path,
) -> None:
    base = resolve(make_family(family, tmp_path / "base", **settings), cache=tmp_path / "cache")
    store, granted = soup_of(base)
    merge(store, granted).save_gguf(tmp_path / "out", base=base, dtype="fp32")
    theirs = llama_logits(tmp_path / "out/model.gguf", None, IDS)
    _same(Engine.load(base, store, dtype="fp32", fused=False), store, granted, IDS, theirs)


def _level(**more: Any) -> Mapping[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True, **more}


def _split(expression: str) -> Mapping[str, Any]:
    split = {"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, _level(use_regex=False)]}


@pytest.mark.parametrize(
    ("name", "splits", "more"),
    [
        ("gpt-2", _level(), {}),
        (
            "smollm",
            {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, _level()]},
            {},
        ),
        ("llama-bpe", _split(rf"{_ENDINGS}|\p{{N}}{{1,3}}| ?{_WORDS}"), {"ignore_merges": True}),
        ("qwen2", _split(rf"{_ENDINGS}|\p{{N}}| ?{_WORDS}"), {}),
    ],
)
def test_llama_cpp_splits_texts_as_the_tokenizer_does(
    name: str,
    splits: Mapping[str, Any],
    more: Mapping[str, Any],
    soup_of: Callable[[Base], tuple[Store, Grant]],
    tmp_path: Path,
) -> None:
    folder = make_family("llama-bias", tmp_path / "base")
    said = json.loads((folder / "tokenizer.json").read_text())
    said |= {"pre_tokenizer": splits, "model": said["model"] | more}
    (folder / "tokenizer.json").write_text(json.dumps(said))
    base = resolve(folder, cache=tmp_path / "cache")
    merge(*soup_of(base)).save_gguf(tmp_path / "out", base=base)
    _agree(base, tmp_path / "out/model.gguf")
    from gguf import GGUFReader

    assert GGUFReader(tmp_path / "out/model.gguf").fields["tokenizer.ggml.pre"].contents() == name


@pytest.mark.parametrize("prepends", [True, False])
def test_llama_cpp_falls_back_to_bytes_as_the_tokenizer_does(
    prepends: bool, soup_of: Callable[[Base], tuple[Store, Grant]], tmp_path: Path
) -> None:
    """Metaspace puts no space before a text that begins with one; llama.cpp always does, as Llama 2's first tokenizer did."""
    folder = make_family("mistral-v0.3", tmp_path / "base")
    _pieces(prepends=prepends).save_pretrained(folder)
    base = resolve(folder, cache=tmp_path / "cache")
    merge(*soup_of(base)).save_gguf(tmp_path / "out", base=base)
    _agree(base, tmp_path / "out/model.gguf", [text for text in TEXTS if prepends or not text.startswith(" ")])


def test_the_shipped_base_and_its_tokenizer(shipped_soup: tuple[Store, Grant], smollm2: Base, tmp_path: Path) -> None:
    """As a whole model, and as a LoRA over the bare base, which is a soup of nothing."""
    store, granted = shipped_soup
    merge(store, granted).save_gguf(tmp_path / "whole", base=smollm2, dtype="fp32")
    merge(store, granted).save_gguf_lora(tmp_path / "lora", base=smollm2)
    merge(store, Policy.open(store).clamp({})).save_gguf(tmp_path / "bare", base=smollm2, dtype="fp32")
    _agree(smollm2, tmp_path / "whole/model.gguf")
    files = (tmp_path / "whole/model.gguf", None), (tmp_path / "bare/model.gguf", tmp_path / "lora/adapter.gguf")
    engine = Engine.load(smollm2, store, dtype="fp32", fused=False)
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    tokenizer = load_tokenizer(smollm2.folder)
    ids = tokenizer(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))["input_ids"]
    said = engine.complete([messages], [granted], sampling=Sampling(max_new_tokens=24, temperature=0.0))[0]
    for file, lora in files:
        _same(engine, store, granted, ids, llama_logits(file, lora, ids))
        assert tokenizer.decode(llama_greedy(file, lora, ids, said.tokens)) == said.text


@pytest.fixture
def shipped_soup() -> tuple[Store, Grant]:
    store = Store.shipped()
    return store, Policy.open(store).clamp({"elementary": 0.7, "friendly": 0.3})


def _same(engine: Engine, store: Store, granted: Grant, ids: Sequence[int], theirs: torch.Tensor) -> None:
    """llama.cpp's logits are the engine's at request time, but for little of what the soup changes; the likeliest tokens too."""
    ours, bare = (
        engine.logits(torch.tensor([ids]), [each])[0].float() for each in (granted, Policy.open(store).clamp({}))
    )
    moved = float((ours - bare).norm())
    assert moved > 0.02 * float(bare.norm())
    assert float((theirs - ours).norm()) < 0.02 * moved
    assert torch.equal(theirs.argmax(-1), ours.argmax(-1))


def _agree(base: Base, model: Path, texts: Sequence[str] = TEXTS) -> None:
    tokenizer = load_tokenizer(base.folder)
    said = {"split_special_tokens": True}
    assert llama_tokens(model, texts) == [tokenizer(text, **said)["input_ids"] for text in texts]


def _pieces(*, prepends: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind, as Llama 2 and Mistral have it: a space before the text, bytes for what is missing."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=specials, show_progress=False)
    text = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    tokenizer.train_from_iterator(text.split("\n"), trainer)
    said = json.loads(tokenizer.to_str())
    said["added_tokens"] = said["added_tokens"][:3]
    if prepends:
        space = "\N{LOWER ONE EIGHTH BLOCK}"
        steps = [
            {"type": "Prepend", "prepend": space},
            {"type": "Replace", "pattern": {"String": " "}, "content": space},
        ]
        said |= {"normalizer": {"type": "Sequence", "normalizers": steps}, "pre_tokenizer": None}
    tokenizer = Tokenizer.from_str(json.dumps(said))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    parts = [decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
