"""The model card of a result: what was asked for, what was granted and why, how it was made, what it lost."""

import json

from soupmix.merge.result import Result
from soupmix.methods import METHODS
from soupmix.version import __version__
from soupmix.weights import decimal_text

__all__ = ["card"]

_LOSSES = {
    "truncation": "cutting the rank lost",
    "total": "rank and stored dtype together lost",
    "rounding_loss": "rounding to the dtype of the weights lost",
}
_LIBRARIES = {"adapter": "peft", "model": "transformers", "gguf-lora": "gguf", "gguf": "gguf"}
_USE = {
    "gguf-lora": [
        "## How it is used",
        "llama.cpp: `llama-server -m BASE.gguf --lora adapter.gguf`. Ollama: put BASE.gguf beside it as `base.gguf`, then "
        "`ollama create NAME -f Modelfile`. BASE.gguf is the base named above, converted by llama.cpp. The factors are what the "
        "weights below give, of scale 1.",
    ],
    "gguf": [
        "## How it is used",
        "llama.cpp: `llama-server -m model.gguf`. Ollama: `ollama create NAME -f Modelfile`. The tokenizer is inside.",
    ],
}


def card(result: Result) -> bytes:
    """README.md with the hub's metadata in front."""
    from huggingface_hub import ModelCardData

    name, export = _base_name(result), result.export
    licences = sorted({item.licence for item in result.ingredients})
    data = ModelCardData(
        base_model=result.base_on_hub or name,
        base_model_relation="merge" if export.is_model else "adapter",
        library_name=_LIBRARIES[export.kind],
        license=licences[0] if len(licences) == 1 else "other" if licences else None,
        tags=["lora", "merge", "soupmix"],
    )
    what = "A full model:" if export.is_model else "A LoRA adapter for"
    body = [
        f"# Soup of {name}",
        f"{what} {name}{' with adapters folded into its weights' if export.is_model else ''}, "
        f"merged by soupmix {__version__} for one person's weights, within a policy.",
        *_USE.get(export.kind, []),
        "## Weights",
        _weights(result),
        *_reasons(result),
        "## How it was made",
        _making(result),
        "`soupmix_recipe.yaml` repeats it, `soupmix_grant.json` is the grant, `soupmix_digests.json` names every file, "
        "`soupmix_provenance.json` says where it comes from. `soupmix verify` checks the files and repeats the merge.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n".encode() + "\n\n".join(body).encode() + b"\n"


def _base_name(result: Result) -> str:
    """The base as the adapters name it; a folder's own name, never its path, if there are none."""
    base = result.base
    if result.ingredients:
        return result.base_name
    return base.folder.name if base is not None and base.source.startswith("folder:") else base.name if base else ""


def _weights(result: Result) -> str:
    digests = {item.name: (item.digest, item.licence) for item in result.ingredients}
    rows = ["| adapter | requested | granted | licence | digest |", "|---|---|---|---|---|"]
    for name in sorted({*result.grant.requested.nonzero(), *result.grant.granted}):
        digest, licence = digests.get(name, ("", ""))
        asked, given = (
            decimal_text(weights.get(name, 0)) for weights in (result.grant.requested, result.grant.granted)
        )
        rows.append(f"| {name} | {asked} | {given} | {licence} | {f'`{digest}`' if digest else ''} |")
    return "\n".join(rows) if len(rows) > 2 else "No adapter was asked for: this is the base model."


def _reasons(result: Result) -> list[str]:
    grant = result.grant
    lines = [f"- {', '.join(each.adapters)}: {each}" for each in grant.binding]
    policy = "No policy document was applied, only the built-in defaults." if grant.is_open else "A policy was applied."
    stated = "".join(f" Stated: {key} = {value}." for key, value in grant.scope)
    found = [f"{policy}{stated} Policy digest `{grant.policy_digest}`."]
    if grant.documents:
        found.append("\n".join(f"- {each}" for each in grant.documents))
    if lines:
        found += ["What held the request back:", "\n".join(lines)]
    if grant.obligations:
        found += ["Obligations: " + "; ".join(grant.obligations) + "."]
    return found


def _making(result: Result) -> str:
    export = result.export
    lines = [f"- method {METHODS[result.method].card}{_options(result)}", f"- dtype {export.dtype or 'of the base'}"]
    if export.dequantise and (found := result.base and result.base.quantisation):
        lines.append(f"- quantised weights of the base ({found.name}) made plain first, as transformers does")
    if not export.is_model:
        lines.append(
            f"- rank {export.rank if export.rank is not None else 'exact: the sum of the ranks of the adapters'}"
        )
    lines += [
        f"- {_LOSSES[name]} {error.total:.2%} of the delta (Frobenius norm)" for name, error in result.errors.items()
    ]
    lines += [f"- warning: {warning}" for warning in result.warnings]
    lines.append(f"- merge identity `{result.identity}`")
    return "\n".join(lines)


def _options(result: Result) -> str:
    said = ", ".join(f"{name} {json.dumps(value, sort_keys=True)}" for name, value in result.options.items())
    return f" With {said}." if said else ""
