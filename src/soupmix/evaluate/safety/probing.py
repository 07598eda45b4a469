"""What the model's log-probabilities say of the safety of one soup, kept so that it is not asked twice."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from soupmix.engine import Engine
from soupmix.evaluate.record import EvaluationRecord
from soupmix.evaluate.safety.choices import pair_margins, sways, value_log_p
from soupmix.evaluate.safety.probes import (
    FOLDER,
    Fact,
    MinimalPair,
    SafetyRequest,
    ValueWord,
    questions,
    read_probes,
    stems,
)
from soupmix.evaluate.safety.refusals import REFUSAL_OPENINGS, refusal_chances
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.sweep import on_neutral_prose
from soupmix.files import canonical_json, digest_parts, write_file
from soupmix.policy import Grant
from soupmix.sealed import read_sealed

__all__ = ["ProbedSoup", "Probes", "probe", "probed"]

_CAP = 16 << 20
_Finite = Annotated[float, Field(allow_inf_nan=False)]


@dataclass(frozen=True, slots=True)
class Probes:
    """What soups are probed with: the committed files, or their beginnings."""

    requests: tuple[SafetyRequest, ...]
    messages: tuple[str, ...]
    facts: tuple[Fact, ...]
    pairs: tuple[MinimalPair, ...]
    stems: tuple[str, ...]
    words: tuple[ValueWord, ...]

    @classmethod
    def committed(cls, first: int | None = None) -> "Probes":
        """At most the first so many requests, messages, facts and pairs; all stems and words."""
        return cls(
            tuple(read_probes(SafetyRequest, FOLDER / "requests.jsonl"))[:first],
            tuple(questions("companionship"))[:first],
            tuple(read_probes(Fact, FOLDER / "facts.jsonl"))[:first],
            tuple(read_probes(MinimalPair, FOLDER / "minimal_pairs.jsonl"))[:first],
            tuple(stems()),
            tuple(read_probes(ValueWord, FOLDER / "value_words.jsonl")),
        )


class ProbedSoup(BaseModel):
    """What was found of one soup, in the order of its probes.

    Attributes:
        refusal: of every request the chance that the answer begins like a refusal.
        sways: of every fact the margins without a claim, with a right and with a wrong one, in nats.
        pairs: of every minimal pair the margin of the stereotype, in nats. values: factor -> mean log-probability, in nats.
        perplexity, kl: on neutral prose, see `Neutral`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    refusal: tuple[_Finite, ...]
    sways: tuple[tuple[_Finite, _Finite, _Finite], ...]
    pairs: tuple[_Finite, ...]
    values: dict[str, _Finite]
    perplexity: _Finite
    kl: _Finite


def probe(engine: Engine, grant: Grant, probes: Probes, *, method: str) -> ProbedSoup:
    """Ask the model. Raises as `choice_log_p` does."""
    (neutral,) = on_neutral_prose(engine, [grant], method=method)
    requests = [each.prompt for each in probes.requests]
    values = value_log_p(engine, grant, probes.stems, probes.words, method=method)
    return ProbedSoup(
        refusal=_rounded(refusal_chances(engine, grant, requests, method=method)),
        sways=tuple(
            (round(each.unclaimed, 4), round(each.right, 4), round(each.wrong, 4))
            for each in sways(engine, grant, probes.facts, method=method)
        ),
        pairs=_rounded(pair_margins(engine, grant, probes.pairs, method=method)),
        values={factor: round(value, 4) for factor, value in values.items()},
        perplexity=neutral.perplexity,
        kl=neutral.kl,
    )


def probed(
    loaded: Callable[[], Engine], grant: Grant, arm: Arm, probes: Probes, record: EvaluationRecord, folder: Path
) -> ProbedSoup:
    """What is kept of an arm in the folder, or else what the model says now, which then is kept.

    A file that is damaged is as good as none.

    Args:
        loaded: gives the engine, which takes time the first time.

    Raises:
        OutputError: it cannot be written. RecipeError, PolicyError, AdapterError, BaseModelError: see `probe`.
    """
    path = folder / f"{_key(arm, probes, record)}.json"
    if (kept := _kept(path)) is not None:
        return kept
    found = probe(loaded(), grant, probes, method=arm.method)
    write_file(path, canonical_json(found.model_dump(mode="json")))
    return found


def _kept(path: Path) -> ProbedSoup | None:
    if not path.exists():
        return None
    raw, _ = read_sealed(path, cap=_CAP)
    try:
        return ProbedSoup.model_validate_json(raw)
    except ValidationError:
        return None


def _key(arm: Arm, probes: Probes, record: EvaluationRecord) -> str:
    """Digest over everything that the numbers depend on."""
    adapters = {name: record.adapters[name].digest for name in arm.weights}
    parts: dict[str, Any] = {
        "adapters": json.dumps(adapters, sort_keys=True),
        "base": record.base.digest,
        "files": record.base.files,
        "dtype": str(record.dtype),
        "probes": json.dumps([asdict(probes), REFUSAL_OPENINGS], sort_keys=True),
        "soup": json.dumps([arm.weights.decimals(), arm.method], sort_keys=True),
    }
    return digest_parts("soupmix.safety.v1", parts).removeprefix("sha256:")[:32]


def _rounded(values: Sequence[float]) -> tuple[float, ...]:
    return tuple(round(value, 6) for value in values)
