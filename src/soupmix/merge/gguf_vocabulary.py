"""A tokenizer as llama.cpp has it: tokens with their kinds, merges or scores, and by what name it splits text before merging.

llama.cpp knows ways to split text by name only, and converters find the name by trying the tokenizer. Here it is found by what
the tokenizer says of itself: the same rule, or a refusal.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from soupmix.base import Base, load_tokenizer
from soupmix.errors import BaseModelError
from soupmix.files import strict_json

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["describe_vocabulary"]

_SPACE: Final = "\N{LOWER ONE EIGHTH BLOCK}"
_BYTE: Final = re.compile(r"<0x[0-9A-F]{2}>")
_WORDS: Final = r"[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_ENDINGS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_SPLITS: Final = {
    ("level",): "gpt-2",
    ("digits", "level"): "smollm",
    (rf"{_ENDINGS}|\p{{N}}{{1,3}}| ?{_WORDS}", "bytes"): "llama-bpe",
    (rf"{_ENDINGS}|\p{{N}}| ?{_WORDS}", "bytes"): "qwen2",
}
"""Steps of splitting -> name in llama.cpp. "level" is GPT-2's rule, "bytes" none, "digits" every digit alone."""
_ASSUMED: Final = {"ignore_merges": {"llama-bpe"}, "nfc": {"qwen2"}}
"""What llama.cpp takes for granted, or leaves out, under a name."""


def describe_vocabulary(writer: "GGUFWriter", base: Base, size: int) -> None:
    """Write the tokenizer of a base, as its engine has it.

    Args:
        size: number of rows of the embedding; ids that no token has are filled up as unused.

    Raises:
        BaseModelError: llama.cpp has no such tokenizer ("no-gguf-tokenizer"), or as `load_tokenizer` does.
    """
    tokenizer = load_tokenizer(base.folder, base.chat_template)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise _refusal(base, "is not of the kind that tokenizer.json holds")
    said = strict_json(backend.to_str())
    model, added = said["model"], said["added_tokens"]
    if model.get("type") != "BPE" or model.get("dropout") or any(model.get(key) for key in _AFFIXES):
        raise _refusal(base, f"merges by {str(model.get('type'))[:40]!a}, or with affixes")
    names = {**model["vocab"], **{each["content"]: each["id"] for each in added}}
    if max(names.values(), default=0) >= size:
        raise _refusal(base, f"has more tokens than the model, which has {size}")
    tokens = [f"[PAD{number}]" for number in range(size)]
    for text, number in names.items():
        tokens[number] = text
    writer.add_tokenizer_model("llama" if model.get("byte_fallback") else "gpt2")
    if model.get("byte_fallback"):
        _pieces(writer, base, said, tokens)
    else:
        writer.add_tokenizer_pre(_split(base, said))
        writer.add_token_merges([_merge(each) for each in model["merges"]])
    writer.add_token_list(tokens)
    writer.add_token_types(_kinds(model, added, names, size))
    _specials(writer, tokenizer, base)


_AFFIXES: Final = ("continuing_subword_prefix", "end_of_word_suffix")


def _refusal(base: Base, why: str) -> BaseModelError:
    return BaseModelError(
        f"the tokenizer of base {base.name} {why}, and what llama.cpp calls such a one is not known here; write a model "
        "(--as model) and convert it with llama.cpp's own convert_hf_to_gguf.py",
        reason="no-gguf-tokenizer",
    )


def _split(base: Base, said: Mapping[str, Any]) -> str:
    """llama.cpp's name of how text is split."""
    normalizer, steps = said.get("normalizer"), said.get("pre_tokenizer") or {}
    inner = steps.get("pretokenizers", [steps])
    name = _SPLITS.get(tuple(map(_step, inner)))
    normal = None if normalizer is None else normalizer.get("type")
    ignores = bool(said["model"].get("ignore_merges"))
    if name is None:
        raise _refusal(base, f"splits text by {', '.join(map(_step, inner))[:200]!a}")
    if normal not in (None, "NFC") or (normal == "NFC" and name not in _ASSUMED["nfc"]):
        raise _refusal(base, f"changes text ({str(normal)[:40]!a}) before it is split")
    if ignores != (name in _ASSUMED["ignore_merges"]):
        raise _refusal(base, f"splits text as {name} does, with ignore_merges {str(ignores).lower()}")
    return name


def _step(step: Mapping[str, Any]) -> str:
    """One step of splitting, in one word or by its expression."""
    match step:
        case {"type": "ByteLevel", "add_prefix_space": False}:
            return "level" if step.get("use_regex", True) else "bytes"
        case {"type": "Digits", "individual_digits": True}:
            return "digits"
        case {"type": "Split", "pattern": {"Regex": str(found)}, "behavior": "Isolated", "invert": False}:
            return found
    return str(dict(step))


def _merge(pair: Sequence[str] | str) -> str:
    """Two pieces with a space between them; a space inside of one is the letter that byte-level tokenizers write for it."""
    return pair if isinstance(pair, str) else " ".join(part.replace(" ", "\u0120") for part in pair)


def _pieces(writer: "GGUFWriter", base: Base, said: Mapping[str, Any], tokens: Sequence[str]) -> None:
    """SentencePiece's kind: what merges first has the highest score."""
    steps = said.get("pre_tokenizer"), said.get("normalizer")
    match steps:
        case ({"type": "Metaspace", "replacement": str(found), "prepend_scheme": str(scheme), "split": False}, None):
            is_known, is_first = found == _SPACE, scheme != "never"
        case (None, {"type": "Sequence", "normalizers": [*begin, {"type": "Replace"} as last]}):
            replaced = last.get("pattern") == {"String": " "} and last.get("content") == _SPACE
            is_known = replaced and begin in ([], [{"type": "Prepend", "prepend": _SPACE}])
            is_first = bool(begin)
        case _:
            is_known = is_first = False
    if not is_known:
        raise _refusal(base, f"falls back to bytes and splits text by {str(steps)[:200]!a}")
    first: dict[str, float] = {}
    for place, merge in enumerate(said["model"]["merges"]):
        first.setdefault("".join(merge.split(" ", 1) if isinstance(merge, str) else merge), -float(place))
    least = -float(len(said["model"]["merges"]))
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix(is_first)
    writer.add_token_scores([first.get(token, least) for token in tokens])


def _kinds(
    model: Mapping[str, Any], added: Sequence[Mapping[str, Any]], names: Mapping[str, int], size: int
) -> list[int]:
    from gguf import TokenType

    kinds = [TokenType.UNUSED] * size
    for text, number in names.items():
        is_byte = model.get("byte_fallback") and _BYTE.fullmatch(text)
        kinds[number] = TokenType.BYTE if is_byte else TokenType.NORMAL
    for each in added:
        kinds[each["id"]] = TokenType.CONTROL if each["special"] else TokenType.USER_DEFINED
    if model.get("byte_fallback") and model.get("unk_token") in names:
        kinds[names[model["unk_token"]]] = TokenType.UNKNOWN
    return list(map(int, kinds))


def _specials(writer: "GGUFWriter", tokenizer: Any, base: Base) -> None:
    """Ids with a meaning, which of them every text begins and ends with, and the chat template."""
    plain, whole = (tokenizer("a", add_special_tokens=adds)["input_ids"] for adds in (False, True))
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    begins = whole[: len(whole) - len(plain)] == [begin] or (len(whole) == len(plain) + 2 and whole[0] == begin)
    ends = len(whole) == len(plain) + 1 + begins and whole[-1] == end
    if whole != [begin] * begins + plain + [end] * ends:
        raise _refusal(base, "puts other tokens around a text than the one that begins and the one that ends it")
    for add, number in (
        (writer.add_bos_token_id, begin),
        (writer.add_eos_token_id, end),
        (writer.add_unk_token_id, tokenizer.unk_token_id),
        (writer.add_pad_token_id, tokenizer.pad_token_id),
    ):
        if number is not None:
            add(number)
    writer.add_add_bos_token(begins)
    writer.add_add_eos_token(ends)
    template = tokenizer.chat_template
    if isinstance(template, dict):
        writer.add_chat_template([{"name": name, "template": text} for name, text in sorted(template.items())])
    elif template:
        writer.add_chat_template(template)
