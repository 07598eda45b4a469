"""What lies beside an adapter, compared with its base: the name of the base, the chat template, the tokens of its own.

None of it goes into a store: a soup is run with the tokenizer and the template of the base. Where an adapter was trained with
others, that is said.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from soupmix.base import KNOWN, Base, hub_id
from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.store.folder import SourceFolder, source_folder

__all__ = ["beside", "named_base", "naming_bases"]

_SETTINGS, _TEMPLATE, _VOCABULARY, _ADDED = (
    "tokenizer_config.json", "chat_template.jinja", "tokenizer.json", "added_tokens.json",
)  # fmt: skip
_MOST: Mapping[str, int] = {_SETTINGS: 4 << 20, _TEMPLATE: 1 << 20, _VOCABULARY: 64 << 20, _ADDED: 4 << 20}
_LISTED = re.compile(rb'"added_tokens"\s*:\s*(?=\[)')
_MOST_LISTED = 4 << 20  # bytes; what is parsed of a vocabulary, of which each value takes some 60 times its place


_OF_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf")
_OF_BASES = frozenset({"embedding", "experts", "in-pieces", "missing-factor", "shape", "wrong-base"})


def named_base(folder: Path) -> str:
    """The name, for `soupmix.base.resolve`, of the base that an adapter's own adapter_config.json names.

    Raises:
        AdapterError: there is no such folder, or it names none, or one that is not here ("no-base"); it cannot be read, or is no
            JSON object.
    """
    if not _exists(str(folder)):
        raise AdapterError(f"{folder} is not there; name the folder of an adapter", reason="no-base")
    said = _said_base(folder)
    if said is None and not _is_adapter(folder):
        raise AdapterError(
            f"{folder} is no adapter: there is neither an adapter_config.json nor a file of weights; name the folder that was "
            "saved, or a .safetensors file",
            reason="no-base",
        )
    if said is None:
        raise AdapterError(f"{folder} does not say which base it was trained on: give it with --base", reason="no-base")
    known = [name for name, each in KNOWN.items() if said.partition("@")[0] in (name, each.hub_id)]
    if known:
        return known[0]
    if hub_id(said) is None and not _exists(said):
        raise AdapterError(
            f"{folder} says that it was trained on {said[:120]!a}, and there is no such folder here: give the base with --base",
            reason="no-base",
        )
    return said


def _exists(path: str) -> bool:
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


def _is_adapter(folder: Path) -> bool:
    """Whether anything there could be one."""
    names = [each.name for each in folder.iterdir()] if folder.is_dir() else [folder.name]
    return any(name == "adapter_config.json" or Path(name).suffix.lower() in _OF_WEIGHTS for name in names)


def _said_base(folder: Path) -> str | None:
    with source_folder(folder if folder.is_dir() else folder.parent) as opened:
        said = opened.read_object("adapter_config.json", cap=_MOST[_SETTINGS], reason="bad-config")
    named = said.get("base_model_name_or_path")
    return named if isinstance(named, str) and named else None


@contextmanager
def naming_bases(folder: Path, base: Base) -> Iterator[None]:
    """Where what does not fit is of another base by its own words, say both; the refusal goes on its way."""
    try:
        yield
    except AdapterError as error:
        said = None
        with suppress(AdapterError):
            said = _said_base(folder)
        if said is None or error.reason not in _OF_BASES or _is_named(said, base):
            raise
        raise AdapterError(
            f"the adapter in {folder} was trained on {said[:120]!a}, and you gave {base.name}: {error}; give the base that it "
            "was trained on with --base",
            reason=error.reason,
        ) from error


def _is_named(said: str, base: Base) -> bool:
    return _last(said) in {_last(name) for name in (base.name, base.label, base.source, base.hub_id or "")}


def beside(folder: SourceFolder, said: str | None, base: Base) -> Iterator[Finding]:
    """What differs between a folder and the base that its adapter is added for.

    Args:
        said: what the adapter's config calls its base.
    """
    if said is not None and not _is_named(said, base):
        yield Finding(
            "base-name",
            "adapter_config.json",
            f"adapter_config.json says that the adapter was trained on {said[:120]!a}; it is added as one of {base.name}",
        )
    with source_folder(base.folder) as own:
        for kind, find in (("template", _template), ("tokenizer", _tokens)):
            try:
                yield from _differing(kind, find(folder, own))
            except AdapterError as error:
                yield Finding(
                    kind, "tokenizer", f"the {kind} beside the adapter was not compared with the base's: {error}"
                )


def _last(name: str) -> str:
    return Path(name.rstrip("/").partition("@")[0].rpartition(":")[2]).name.casefold()


def _differing(kind: str, different: str | None) -> Iterator[Finding]:
    if different is not None:
        yield Finding(
            kind, "tokenizer", f"the {kind} beside the adapter is not the base's{different}: soupmix uses the base's"
        )


def _template(folder: SourceFolder, base: SourceFolder) -> str | None:
    theirs = _template_of(folder)
    return None if theirs is None or theirs == _template_of(base) else ""


def _template_of(folder: SourceFolder) -> str | None:
    if folder.holds(_TEMPLATE):
        return folder.read(_TEMPLATE, cap=_MOST[_TEMPLATE]).decode("utf-8", "replace").strip()
    said = _object(folder, _SETTINGS).get("chat_template")
    if isinstance(said, list):
        default = [each.get("template") for each in said if isinstance(each, dict) and each.get("name") == "default"]
        said = default[0] if default else None
    return said.strip() if isinstance(said, str) else None


def _tokens(folder: SourceFolder, base: SourceFolder) -> str | None:
    """Which added token differs, in the first place in which both keep them."""
    for keep in (_listed, _decoded, _added):
        theirs, own = keep(folder), keep(base)
        if theirs and own:
            different = [token for token in sorted({*theirs, *own}) if theirs.get(token) != own.get(token)]
            return f" (the first token that differs: {different[0][:60]!a})" if different else None
    return None


def _listed(folder: SourceFolder) -> Mapping[str, Any]:
    """The added tokens of a tokenizer.json, which stand before its vocabulary; that is not parsed."""
    if not folder.holds(_VOCABULARY):
        return {}
    content = folder.read(_VOCABULARY, cap=_MOST[_VOCABULARY])
    start = _LISTED.search(content)
    if start is None:
        return {}
    try:
        part = content[start.end() : start.end() + _MOST_LISTED].decode("utf-8", "replace")
        tokens, _ = json.JSONDecoder().raw_decode(part)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{folder.path / _VOCABULARY} is not JSON ({error})", reason="bad-json") from None
    return {str(each.get("content")): each.get("id") for each in tokens if isinstance(each, dict)}


def _decoded(folder: SourceFolder) -> Mapping[str, Any]:
    decoder = _object(folder, _SETTINGS).get("added_tokens_decoder")
    tokens = decoder if isinstance(decoder, dict) else {}
    return {str(each.get("content")): number for number, each in tokens.items() if isinstance(each, dict)}


def _added(folder: SourceFolder) -> Mapping[str, Any]:
    return _object(folder, _ADDED)


def _object(folder: SourceFolder, name: str) -> dict[str, Any]:
    return folder.read_object(name, cap=_MOST[name], reason="bad-json")
