"""A profile in a file: weights that were learnt, and the evidence that they follow from. Hostile until checked."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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
        topics: weights to answer with when a topic is spoken about, of topics that depart from the others.
        policy: digest of the policy that it was learnt under.
        wants: evidence, as `soupmix.preference.kept` writes it.
    """

    weights: Weights
    sources: Mapping[str, str]
    policy: str
    wants: bytes
    topics: Mapping[str, Weights] = field(default_factory=dict)

    def about(self, topic: str | None) -> Weights:
        """The weights of a topic; those of the person where it has none of its own."""
        return self.weights if topic is None else self.topics.get(topic, self.weights)


class _ProfileDocument(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: Annotated[int, Field(ge=1, le=1)]
    weights: Annotated[dict[Name, str], Field(max_length=64)]
    sources: Annotated[dict[Name, str], Field(max_length=64)]
    policy: Digest
    wants: dict[str, Any]
    topics: Annotated[dict[Name, Annotated[dict[Name, str], Field(max_length=64)]], Field(max_length=64)] = {}


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
    topics = {name: Weights(each) for name, each in found.topics.items()}
    return LearntProfile(Weights(found.weights), found.sources, found.policy, canonical_json(found.wants), topics)


def write_profile(path: Path, profile: LearntProfile) -> None:
    """Write it, for its owner alone; whole or not at all. Raises `OutputError`."""
    said: dict[str, Any] = {
        "schema_version": 1,
        "weights": profile.weights.decimals(),
        "sources": dict(profile.sources),
        "policy": profile.policy,
        "wants": json.loads(profile.wants),
    }
    if profile.topics:
        said["topics"] = {name: each.decimals() for name, each in profile.topics.items()}
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, canonical_json(said), mode=0o600)
