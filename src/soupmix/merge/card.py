"""The model card of a result: what was asked for, what was granted and why, how it was made, what it lost."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from soupmix.base import Base
from soupmix.merge.stack import Errors
from soupmix.version import __version__
from soupmix.weights import decimal_text

if TYPE_CHECKING:
    from soupmix.merge.export import Export
    from soupmix.merge.soup import Soup

__all__ = ["card"]

_METHODS = {
    "delta": "`delta`: the exact weighted sum of the adapters' deltas.",
    "factor": "`factor`: A and B averaged separately, as the code of Personalized Soups (arXiv 2310.11564) does."
    " Cross terms remain.",
}
_LOSSES = {
    "truncation": "cutting the rank lost",
    "total": "rank and stored dtype together lost",
    "rounding_loss": "rounding to the dtype of the weights lost",
}


def card(soup: "Soup", export: "Export", base: Base | None, identity: str, errors: Mapping[str, Errors]) -> bytes:
    """README.md with the hub's metadata in front."""
    from huggingface_hub import ModelCardData

    name = _base_name(soup, base)
    licences = sorted({item.licence for item in soup.ingredients})
    data = ModelCardData(
        base_model=name,
        base_model_relation="adapter" if export.kind == "adapter" else "merge",
        library_name="peft" if export.kind == "adapter" else "transformers",
        license=licences[0] if len(licences) == 1 else "other" if licences else None,
        tags=["lora", "merge", "soupmix"],
    )
    what = "A LoRA adapter for" if export.kind == "adapter" else "A full model:"
    body = [
        f"# Soup of {name}",
        f"{what} {name}{'' if export.kind == 'adapter' else ' with adapters folded into its weights'}, "
        f"merged by soupmix {__version__} for one person's weights, within a policy.",
        "## Weights",
        _weights(soup),
        *_reasons(soup),
        "## How it was made",
        _making(soup, export, identity, errors),
        "`soupmix_recipe.yaml` repeats it, `soupmix_grant.json` is the grant, `soupmix_digests.json` names every file, "
        "`soupmix_provenance.json` says where it comes from. `soupmix verify` checks the files and repeats the merge.",
    ]
    return f"---\n{data.to_yaml()}\n---\n\n".encode() + "\n\n".join(body).encode() + b"\n"


def _base_name(soup: "Soup", base: Base | None) -> str:
    """The base as the adapters name it; a folder's own name, never its path, if there are none."""
    if soup.ingredients:
        return soup.ingredients[0].base_name
    return base.folder.name if base is not None and base.source.startswith("folder:") else base.name if base else ""


def _weights(soup: "Soup") -> str:
    digests = {item.name: (item.digest, item.licence) for item in soup.ingredients}
    rows = ["| adapter | requested | granted | licence | digest |", "|---|---|---|---|---|"]
    for name in sorted({*soup.grant.requested.nonzero(), *soup.grant.granted}):
        digest, licence = digests.get(name, ("", ""))
        asked, given = (decimal_text(weights.get(name, 0)) for weights in (soup.grant.requested, soup.grant.granted))
        rows.append(f"| {name} | {asked} | {given} | {licence} | {f'`{digest}`' if digest else ''} |")
    return "\n".join(rows) if len(rows) > 2 else "No adapter was asked for: this is the base model."


def _reasons(soup: "Soup") -> list[str]:
    grant = soup.grant
    lines = [f"- {', '.join(each.adapters)}: {each}" for each in grant.binding]
    policy = "No policy document was applied, only the built-in defaults." if grant.is_open else "A policy was applied."
    stated = "".join(f" Stated: {key} = {value}." for key, value in grant.scope)
    found = [f"{policy}{stated} Policy digest `{grant.policy_digest}`."]
    if lines:
        found += ["What held the request back:", "\n".join(lines)]
    if grant.obligations:
        found += ["Obligations: " + "; ".join(grant.obligations) + "."]
    return found


def _making(soup: "Soup", export: "Export", identity: str, errors: Mapping[str, Errors]) -> str:
    lines = [f"- method {_METHODS[soup.method]}", f"- dtype {export.dtype or 'of the base'}"]
    if export.kind == "adapter":
        lines.append(
            f"- rank {export.rank if export.rank is not None else 'exact: the sum of the ranks of the adapters'}"
        )
    lines += [f"- {_LOSSES[name]} {error.total:.2%} of the delta (Frobenius norm)" for name, error in errors.items()]
    lines += [f"- warning: {warning}" for warning in soup.warnings]
    lines.append(f"- merge identity `{identity}`")
    return "\n".join(lines)
