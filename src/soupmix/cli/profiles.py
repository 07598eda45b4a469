"""A profile in a file: weights that were learnt, and the evidence that they follow from. Hostile until checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from soupmix.errors import RecipeError
from soupmix.fields import Digest, Name, read_model
from soupmix.files import canonical_json, write_file, writing
from soupmix.sealed import read_sealed
from soupmix.weights import Weights

__all__ = ["LearntProfile", "read_profile", "write_profile"]

_MOST_BYTES: Final = 40 << 20


@dataclass(frozen=True, slots=True)
class LearntProfile:
    """What was learnt of one person.

    Attributes:
        weights: to answer with, as they were inside the policy then; every use is granted anew.
        sources: of every weight, "explicit" or "inferred".
        policy: digest of the policy that it was learnt under.
        wants: evidence, as `soupmix.preference.kept` writes it.
    """

    weights: Weights
    sources: Mapping[str, str]
    policy: str
    wants: bytes


class _ProfileDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Annotated[int, Field(ge=1, le=1)]
    weights: Annotated[dict[Name, str], Field(max_length=64)]
    sources: Annotated[dict[Name, str], Field(max_length=64)]
    policy: Digest
    wants: dict[str, Any]


def read_profile(path: Path) -> LearntProfile:
    """The profile in a file.

    Raises:
        RecipeError: there is none (reason "missing"), or it is something else ("bad-profile", or those of `soupmix.sealed`).
        WeightError: its weights are none.
    """
    raw, _ = read_sealed(path, cap=_MOST_BYTES, error=RecipeError)
    try:
        found = read_model(_ProfileDocument, raw)
    except ValueError as error:
        raise RecipeError(f"{path} is no profile of `soupmix learn`: {error}", reason="bad-profile") from None
    return LearntProfile(Weights(found.weights), found.sources, found.policy, canonical_json(found.wants))


def write_profile(path: Path, profile: LearntProfile) -> None:
    """Write it, for its owner alone; whole or not at all. Raises `OutputError`."""
    said = {
        "schema_version": 1,
        "weights": profile.weights.decimals(),
        "sources": dict(profile.sources),
        "policy": profile.policy,
        "wants": json.loads(profile.wants),
    }
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, canonical_json(said), mode=0o600)
