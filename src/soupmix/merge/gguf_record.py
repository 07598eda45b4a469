"""The record of a result inside its GGUF file, so that a file that is found alone says what it is and can be made again."""

from typing import TYPE_CHECKING, Final

from soupmix.files import canonical_json
from soupmix.merge.result import Result
from soupmix.version import __version__

if TYPE_CHECKING:
    from gguf import GGUFWriter

__all__ = ["PREFIX", "describe_result", "modelfile", "quiet"]

PREFIX: Final = "soupmix."


def describe_result(writer: "GGUFWriter", result: Result) -> None:
    """Write what people look for, and the record: what was granted, of what it was made, and how it was written."""
    export = result.export
    said = {"as": export.kind, "dtype": export.dtype, "rank": export.rank, "dequantise": export.dequantise}
    writer.add_name(f"Soup of {result.base_name or result.base_on_hub or 'a base'}")
    if result.ingredients:
        writer.add_license(", ".join(sorted({item.licence for item in result.ingredients})))
    writer.add_string(f"{PREFIX}version", __version__)
    writer.add_string(f"{PREFIX}identity", result.identity)
    writer.add_string(f"{PREFIX}method", result.method)
    writer.add_string(f"{PREFIX}options", canonical_json(dict(result.options)).decode())
    writer.add_string(f"{PREFIX}export", canonical_json(said).decode())
    writer.add_string(f"{PREFIX}inputs", canonical_json(result.inputs).decode())
    writer.add_string(f"{PREFIX}grant", canonical_json(result.grant.to_dict()).decode())


def modelfile(result: Result, lines: list[str]) -> bytes:
    """Ollama's recipe: these lines, and the licences. The template is that of the base's own GGUF, so none is said."""
    licences = "\n".join(f"{quiet(item.name)}: {quiet(item.licence)}" for item in result.ingredients)
    return "\n".join([*lines, *([f'LICENSE """{licences}"""'] if licences else [])]).encode() + b"\n"


def quiet(text: str) -> str:
    """Text of others on one line and without quotes, so that it cannot end the word that it stands in."""
    return ascii(text)[1:-1].replace('"', "'")
