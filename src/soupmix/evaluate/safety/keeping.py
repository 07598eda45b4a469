"""The section of the audit, kept beside the samples, so that a report can be made again without the model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from soupmix.engine import Engine
from soupmix.errors import EvaluationError
from soupmix.evaluate.measuring import measure_samples
from soupmix.evaluate.preferred import accuracies
from soupmix.evaluate.record import EvaluationRecord, held_record
from soupmix.evaluate.safety.audit import AUDIT, SafetyPlan, Stage, audit
from soupmix.evaluate.safety.section import safety_section
from soupmix.evaluate.samples import read_samples
from soupmix.evaluate.sampling import Evaluation
from soupmix.files import canonical_json, strict_json, told, write_file
from soupmix.policy import Policy
from soupmix.policy.policy import Sources
from soupmix.sealed import read_sealed
from soupmix.store import Store

__all__ = ["audit_in", "audited_for", "held_section"]

_NAME = "section.json"
_CAP = 64 << 20


def audit_in(out: Path, evaluation: Evaluation, plan: SafetyPlan, *, rows: int, jobs: int, stage: Stage) -> None:
    """Audit, and how well soups agree with people of their weights; keep the section in the folder of the evaluation.

    Args:
        evaluation: has answered in that folder. rows, jobs, stage: as of `audit`, whose errors these are.
    """
    record = held_record(out) or evaluation.record()
    section = safety_section(audit(evaluation, plan, out, rows=rows, jobs=jobs, stage=stage))
    samples = read_samples(out, record)
    store = Store(evaluation.store)
    engine = Engine.load(evaluation.base, store, dtype=evaluation.dtype, compiled=evaluation.compiled)
    measured = measure_samples(record, samples, jobs=jobs)
    section["policy_accuracy"] = accuracies(engine, Policy.open(tuple(store)), record, samples, measured)
    of = {"adapters": {name: each.digest for name, each in record.adapters.items()}, "base": record.base.digest}
    write_file(out / AUDIT / _NAME, canonical_json({"of": of, "section": section}))


def held_section(out: Path, record: EvaluationRecord) -> dict[str, Any] | None:
    """The section that a folder holds; None if there is none.

    Raises:
        EvaluationError: it is damaged (reason "bad-record", or those of `soupmix.sealed`), or of another base or other adapters
            than the evaluation ("evaluation-changed").
    """
    path = out / AUDIT / _NAME
    if not path.exists():
        return None
    raw, _ = read_sealed(path, cap=_CAP, error=EvaluationError)
    try:
        kept = strict_json(raw)
        of, section = kept["of"], kept["section"]
        same = of["base"] == record.base.digest and all(
            record.adapters[name].digest == digest for name, digest in of["adapters"].items() if name in record.adapters
        )
        if not isinstance(section, dict):
            raise TypeError("its section is no object")
    except (AttributeError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise EvaluationError(f"{path} is damaged: {told(error)}; run --safety again", reason="bad-record") from None
    if not same:
        raise EvaluationError(
            f"{path} is of another base or other adapters than the answers beside it; run --safety again",
            reason="evaluation-changed",
        )
    return section


def audited_for(section: Mapping[str, Any], policy: str, attributes: Mapping[str, str], sources: Sources) -> str:
    """Why a section says nothing of what a policy lets through: it is of another one, or of other requests; "" if it does.

    Args:
        policy: digest. attributes: what requests say of themselves. sources: where their weights come from.
    """
    said = section.get("policy"), section.get("attributes", {}), section.get("sources", {})
    if said == (policy, dict(attributes), sources or {}):
        return ""
    of = ", ".join(f"{key}={value}" for key, value in sorted(attributes.items())) or "requests that say nothing"
    stated = {"weights": sources} if isinstance(sources, str) else sources
    of += "".join(f", {name} from {source}" for name, source in sorted(stated.items()) if source)
    return f"the audit beside the answers is of another policy than {policy}, or of other requests than {of}; run --safety again"
