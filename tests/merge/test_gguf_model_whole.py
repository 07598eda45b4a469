"""llama.cpp says of a GGUF model what the engine says of the soup at request time, and splits texts as its tokenizer does."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from soupmix.base import Base, load_tokenizer, resolve
from soupmix.engine import Engine
from soupmix.merge import merge
from soupmix.policy import Grant
from soupmix.store.store import Store
from tests.support.families import make_family
from tests.support.llama_cpp_real import llama_logits, llama_tokens, needs_llama_cpp

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
    engine = Engine.load(base, store, fused=False)
    ours, bare = (engine.logits(torch.tensor([IDS]), [each])[0].float() for each in (granted, None))
    moved = float((ours - bare).norm())
    assert moved > 0.1 * float(bare.norm())
    assert float((theirs - ours).norm()) < 0.02 * moved
    assert torch.equal(theirs.argmax(-1), ours.argmax(-1))


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


def test_llama_cpp_falls_back_to_bytes_as_the_tokenizer_does(
    soup_of: Callable[[Base], tuple[Store, Grant]], tmp_path: Path
) -> None:
    folder = make_family("mistral-v0.3", tmp_path / "base")
    _pieces().save_pretrained(folder)
    base = resolve(folder, cache=tmp_path / "cache")
    merge(*soup_of(base)).save_gguf(tmp_path / "out", base=base)
    _agree(base, tmp_path / "out/model.gguf")


def test_the_shipped_base_and_its_tokenizer(shipped_soup: tuple[Store, Grant], smollm2: Base, tmp_path: Path) -> None:
    store, granted = shipped_soup
    merge(store, granted).save_gguf(tmp_path / "out", base=smollm2, dtype="fp32")
    _agree(smollm2, tmp_path / "out/model.gguf")
    ids = load_tokenizer(smollm2.folder)(TEXTS[0])["input_ids"]
    theirs = llama_logits(tmp_path / "out/model.gguf", None, ids)
    engine = Engine.load(smollm2, store, dtype="float32", fused=False)
    ours, bare = (engine.logits(torch.tensor([ids]), [each])[0].float() for each in (granted, None))
    assert float((theirs - ours).norm()) < 0.02 * float((ours - bare).norm())


@pytest.fixture
def shipped_soup() -> tuple[Store, Grant]:
    from soupmix.policy import Policy

    store = Store.shipped()
    return store, Policy.open(store).clamp({"elementary": 0.7, "friendly": 0.3})


def _agree(base: Base, model: Path) -> None:
    tokenizer = load_tokenizer(base.folder)
    said = {"split_special_tokens": True}
    assert llama_tokens(model, TEXTS) == [tokenizer(text, **said)["input_ids"] for text in TEXTS]


def _pieces() -> PreTrainedTokenizerFast:
    """A tokenizer of SentencePiece's kind, as Llama 2 and Mistral have it: a space before the text, bytes for what is missing."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    specials = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1000, special_tokens=specials, show_progress=False)
    text = (Path(__file__).parents[2] / "LICENSE").read_text("utf-8")
    tokenizer.train_from_iterator(text.split("\n"), trainer)
    said = json.loads(tokenizer.to_str())
    said["added_tokens"] = said["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(said))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    parts = [decoders.Replace("\N{LOWER ONE EIGHTH BLOCK}", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*parts, decoders.Strip(" ", 1, 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>"
    )
