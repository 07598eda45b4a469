"""Small real tokenizers, one of each kind that language models come with."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import CTRLTokenizer, PreTrainedTokenizerFast

SPECIALS = ("<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>")
PLAIN_ADDED = ("<tool>", "[/USER]")  # added tokens that are not flagged as special
WORDS = ("the", "cat", "sat", "END", "ing", "no", "é", "😀", "a", "t", "E", "N", "D", ".", "!", "'s", "kzq")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


def _fast(made: Tokenizer, **settings: Any) -> PreTrainedTokenizerFast:
    made.add_tokens(list(PLAIN_ADDED))
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | settings
    others = [each for each in SPECIALS if each not in names.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        additional_special_tokens=others,
        chat_template=CHATML,
        clean_up_tokenization_spaces=True,
        **names,
    )


def _numbered(*tokens: str) -> dict[str, int]:
    return {token: number for number, token in enumerate(dict.fromkeys((*SPECIALS, *tokens)))}


def _begins(made: Tokenizer, vocabulary: Mapping[str, int], after: str = "") -> None:
    """Every text begins with <s>, and ends with `after`."""
    made.post_processor = processors.TemplateProcessing(
        single=f"<s> $A {after}".strip(), special_tokens=[(each, vocabulary[each]) for each in ("<s>", "</s>")]
    )


def byte_level() -> Any:
    """GPT-2, Llama 3, Qwen."""
    spelt = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pieces = [spelt.pre_tokenize_str(f"{space}{word}")[0][0] for word in WORDS for space in ("", " ")]
    pieces += [piece[cut:] for piece in pieces for cut in (1, 2)] + [piece[:-1] for piece in pieces]
    vocabulary = _numbered(*sorted(pre_tokenizers.ByteLevel.alphabet()), *filter(None, pieces))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    made.pre_tokenizer, made.decoder = spelt, decoders.ByteLevel()
    return _fast(made)


def metaspace() -> Any:
    """T5-like pieces: XGLM, and others with SentencePiece's unigram model."""
    pieces = [(each, 0.0) for each in SPECIALS]
    pieces += [(f"{space}{word}", -1.0 - len(pieces)) for word in WORDS for space in ("▁", "")] + [("▁", -9.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    return _fast(made)


def _fallback() -> tuple[Tokenizer, dict[str, int]]:
    vocabulary = _numbered(*_BYTES, "▁", "▁▁", *(f"{space}{word}" for word in WORDS for space in ("", "▁")))
    return Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", byte_fallback=True)), vocabulary


def llama() -> Any:
    """Llama 2, Mistral: a space before every text, which the decoder takes away."""
    made, vocabulary = _fallback()
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    _begins(made, vocabulary)
    return _fast(made)


def gemma() -> Any:
    """Gemma: nothing is put before a text or taken away."""
    made, vocabulary = _fallback()
    made.normalizer = normalizers.Replace(" ", "▁")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    _begins(made, vocabulary)
    return _fast(made)


def word_piece() -> Any:
    """BERT, as decoders of its family have it; small letters, and an end behind every text."""
    vocabulary = _numbered(*map(str.lower, WORDS), *(f"##{word.lower()}" for word in WORDS))
    made = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    _begins(made, vocabulary, "</s>")
    return _fast(made)


def words() -> Any:
    """A word a token and no decoder at all; it fails on others."""
    made = Tokenizer(models.WordLevel(_numbered(*WORDS), unk_token="<none>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return _fast(made, unk_token=None)


def suffixes() -> Any:
    """The first GPT: the end of a word is a part of its last token."""
    vocabulary = _numbered(*(f"{word}{end}" for word in WORDS for end in ("", "</w>")))
    made = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", end_of_word_suffix="</w>"))
    made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.BPEDecoder()
    return _fast(made)


def in_python() -> Any:
    """CTRL: written in Python, without a tokenizer of the library behind it."""
    vocabulary = _numbered(*(f"{word}{end}" for word in WORDS for end in ("", "@@")))
    with TemporaryDirectory() as folder:
        vocab, merges = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        vocab.write_text(json.dumps(vocabulary))
        merges.write_text("#version: 0.2\nt h\n")
        made = CTRLTokenizer(str(vocab), str(merges), unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    made.chat_template = CHATML
    return made


KINDS: Mapping[str, Callable[[], Any]] = {
    each.__name__: each for each in (byte_level, metaspace, llama, gemma, word_piece, words, suffixes, in_python)
}
