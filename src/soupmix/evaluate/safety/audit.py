"""The audit: which soups, what they are asked, and what is kept of it in a folder, so that a stopped audit goes on.

Everywhere the policy lets go: the bare base, every vertex of the feasible set, random points inside it, and each adapter alone
along its weight.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any, Literal

from soupmix.approve.sweep import read_sweeps
from soupmix.engine import Engine
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.record import EvaluationRecord, write_record
from soupmix.evaluate.safety.pressure import Pressure, pressed
from soupmix.evaluate.safety.probing import ProbedSoup, Probes, probed
from soupmix.evaluate.samples import ArmSample, Keys, open_samples
from soupmix.evaluate.sampling import Advance, Evaluation, as_begun, sample
from soupmix.evaluate.soups import BASE, Arm, people, unique, vertices
from soupmix.evaluate.sweep import sweep
from soupmix.files import canonical_json, strict_json, write_file, writing
from soupmix.policy import FeasibleSet, Policy
from soupmix.policy.policy import Sources
from soupmix.store import Store
from soupmix.weights import Weights

__all__ = ["AUDIT", "Audited", "Place", "SafetyPlan", "SafetyPoint", "Stage", "audit", "kept_samples", "points"]

AUDIT = "safety"
"""Name of the folder of the audit in that of the evaluation."""

Place = Literal["base", "vertex", "interior"]
Stage = Callable[[str, int], Advance]
"""Called with the name of a stage and how much there is to do; returns what is called as it is done."""


@dataclass(frozen=True, slots=True)
class SafetyPoint:
    """A soup of the audit, and where it is in the feasible set."""

    arm: Arm
    place: Place


@dataclass(frozen=True, slots=True)
class SafetyPlan:
    """What is audited.

    Attributes:
        feasible: where soups may be. people: how many random points of it.
        first: at most so many of each kind of prompt; None: all. length: most tokens of an answer.
        pressed: questions that are asked under pressure. turns: which turn of a conversation they are.
        attributes: what requests say of themselves, and sources: where their weights come from, so that it is this set.
    """

    feasible: FeasibleSet
    people: int = 8
    first: int | None = None
    length: int = 40
    pressed: int = 8
    turns: tuple[int, ...] = (1, 5, 20)
    attributes: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = field(default_factory=dict)


def points(plan: SafetyPlan, seed: int) -> tuple[SafetyPoint, ...]:
    """The base, the vertices and the random points, each soup once. Raises as `FeasibleSet.vertices` and `sample` do."""
    at_vertices = unique([Arm(BASE, Weights({})), *vertices(plan.feasible)])
    inside = [arm for arm in people(plan.feasible, plan.people, seed) if arm not in at_vertices]
    return (
        SafetyPoint(at_vertices[0], "base"),
        *(SafetyPoint(arm, "vertex") for arm in at_vertices[1:]),
        *(SafetyPoint(arm, "interior") for arm in unique(inside)),
    )


@dataclass(frozen=True, slots=True)
class Audited:
    """What an audit keeps: everything that its section of the report is made from.

    Attributes:
        points: name -> where it is. probes: what was asked. answers: to requests and messages, greedy.
        probed: name of the point -> what the log-probabilities say. pressures: what came of pressure.
        sweeps: as JSON. policy: digest of the policy whose set it was. attributes: for requests that say this of themselves.
        sources: of weights that come from there.
    """

    points: tuple[SafetyPoint, ...]
    probes: Probes
    answers: Sequence[ArmSample]
    probed: dict[str, ProbedSoup]
    pressures: Sequence[Pressure]
    sweeps: dict[str, Any]
    policy: str
    attributes: Mapping[str, str]
    sources: Sources


def audit(evaluation: Evaluation, plan: SafetyPlan, out: Path, *, rows: int, jobs: int, stage: Stage) -> Audited:
    """Carry out what is left of an audit.

    Args:
        evaluation: says base, store, preference prompts, seed and dtype; its arms and prompts are not asked.
        out: folder of the evaluation. rows, jobs: as of `sample`. stage: told of progress.

    Raises:
        EvaluationError, OutputError, RecipeError, BaseModelError, AdapterError, PolicyRefusal: see `sample`, `points`.
    """
    folder, where, probes = out / AUDIT, points(plan, evaluation.seed), Probes.committed(plan.first)
    asked = replace(
        evaluation,
        arms=tuple(each.arm for each in where),
        prompts=_prompts(probes),
        temperatures=(0.0,),
        length=plan.length,
    )
    answers = kept_samples(asked, folder / "requests", "requests", rows=rows, jobs=jobs, stage=stage)
    store = Store(evaluation.store)
    loaded = lru_cache(
        lambda: Engine.load(evaluation.base, store, dtype=evaluation.dtype, compiled=evaluation.compiled)
    )
    found = _probed(loaded, store, where, probes, asked.record(), folder, stage)
    names = [name for name in plan.feasible.names if plan.feasible.most(name) > 0]
    sweeps = _swept(loaded, store, names, asked.record(), folder / "sweep.json")
    pressures = pressed(
        evaluation,
        plan.feasible,
        plan.turns,
        plan.pressed,
        lambda each, name: kept_samples(
            each, folder / "pressure" / name, "pressure", rows=rows, jobs=jobs, stage=stage
        ),
    )
    of = plan.feasible.policy_digest, plan.attributes, plan.sources
    return Audited(where, probes, answers, found, pressures, sweeps, *of)


def kept_samples(
    evaluation: Evaluation, out: Path, name: str, *, rows: int, jobs: int, stage: Stage
) -> tuple[ArmSample, ...]:
    """The answers of an evaluation, those that its folder does not hold made now. Raises as `sample` and `joined` do.

    Args:
        name: of the stage.
    """
    evaluation, record = as_begun(evaluation, out)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    names, texts = [arm.name for arm in evaluation.arms], [prompt.text for prompt in evaluation.prompts]
    wanted = set(product(names, texts, evaluation.temperatures))

    def asked(each: ArmSample) -> bool:
        return (each.arm.name, each.prompt, each.temperature) in wanted

    with open_samples(out, record) as file:
        write_record(out, record)
        keys, advance = Keys(record), stage(name, len(wanted))
        others = sum(not asked(each) for each in file.samples.values())
        sample(evaluation, keys, file, rows=rows, jobs=jobs, advance=lambda kept, new: advance(kept - others, new))
        file.sort()
        return tuple(sorted(filter(asked, file.samples.values()), key=keys.place))


def _prompts(probes: Probes) -> tuple[Prompt, ...]:
    requests = [Prompt(each.prompt, f"{each.ought} {each.category}", ()) for each in probes.requests]
    return (*requests, *(Prompt(text, "companionship", ()) for text in probes.messages))


def _probed(
    loaded: Callable[[], Engine],
    store: Store,
    where: Sequence[SafetyPoint],
    probes: Probes,
    record: EvaluationRecord,
    folder: Path,
    stage: Stage,
) -> dict[str, ProbedSoup]:
    kept, policy, advance = folder / "probed", Policy.open(tuple(store)), stage("probes", len(where))
    with writing(kept):
        kept.mkdir(parents=True, exist_ok=True)
    found: dict[str, ProbedSoup] = {}
    for each in where:
        found[each.arm.name] = probed(loaded, policy.clamp(each.arm.weights), each.arm, probes, record, kept)
        advance(len(found), 0)
    return found


def _swept(
    loaded: Callable[[], Engine], store: Store, names: Sequence[str], record: EvaluationRecord, path: Path
) -> dict[str, Any]:
    """Sweeps of the adapters, kept as long as they are of these adapters on this base."""
    wanted = {"base": record.base.digest, "dtype": str(record.dtype), "adapters": {n: store[n].digest for n in names}}
    try:
        kept = strict_json(path.read_bytes())
        if kept["of"] == wanted:
            return {each.name: each.to_dict() for each in read_sweeps(kept["sweeps"])}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = {each.name: each.to_dict() for each in sweep(loaded(), store, names)}
    write_file(path, canonical_json({"of": wanted, "sweeps": found}))
    return found
