"""`report.json`: what an evaluation found, in one canonical document that carries its own digest.

The digest is SHA-256 over the canonical JSON of everything else in the document. Policies cite it as evidence.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from soupmix.errors import EvaluationError
from soupmix.evaluate.cost import costs
from soupmix.evaluate.figures import figures
from soupmix.evaluate.measuring import MeasuredSamples, NotMeasured
from soupmix.evaluate.record import EvaluationRecord, bounded_json, check_readable, here
from soupmix.evaluate.samples import ArmSample, sample_line
from soupmix.evaluate.trained import TRAINED, TrainedEffects
from soupmix.files import canonical_json, write_file
from soupmix.sealed import read_sealed

__all__ = ["MOST_REPORT_BYTES", "REPORT", "read_report", "report", "write_report"]

REPORT = "report.json"
MOST_REPORT_BYTES = 32 << 20
_SCHEMA = 1
_LIBRARIES = ("moocore", "numpy", "scikit-learn", "vaderSentiment", "wordfreq")
_SMALL = 1_000_000_000  # parameters
_FEW = 10  # prompts


def report(
    record: EvaluationRecord,
    samples: Sequence[ArmSample],
    measured: MeasuredSamples,
    safety: Mapping[str, Any] | None = None,
    trained: TrainedEffects | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The report of an evaluation, with its digest.

    Args:
        samples: all that there are, in order. safety: the section of the audit, if there was one. trained: of the texts that
            the adapters were trained on, if they are there. more: sections of `soupmix.evaluate.fidelity`, if they were made.
    """
    texts = trained or TrainedEffects()
    found = figures(record, measured.tables, measured.measures, texts)
    left_out = (*measured.left_out, *found.left_out, *_missing(record, samples), *_unasked(record, texts))
    content = {
        "schema_version": _SCHEMA,
        "base": record.base.model_dump(mode="json"),
        "adapters": {name: facts.model_dump(mode="json") for name, facts in record.adapters.items()},
        "preferences": dict(record.preferences),
        "prompts": _prompts(record),
        "limits": {name: getattr(record, name) for name in ("length", "seed", "top_k", "dtype", "compiled")}
        | {"temperatures": list(record.temperatures)},
        "samples": {"count": len(samples), "digest": _digest(b"".join(map(sample_line, samples)))},
        "made_by": [dict(each) for each in record.made_by],
        "measured_by": here() | _versions(),
        "measures": [asdict(measure) for measure in measured.measures.values()],
        "arms": [arm.to_dict() for arm in record.all_arms()],
        "results": found.arms,
        "spans": found.spans,
        "composition": found.composition,
        "cost": costs(samples),
        "decides": found.decides,
        "fronts": found.fronts,
        "groups": found.groups,
        "not_measured": [{"what": each.what, "why": each.why} for each in left_out],
        "cannot_show": list(_cannot_show(record)),
    }
    content |= more or {}
    content |= {} if safety is None else {"safety": dict(safety)}
    content |= {"trained": {"digest": texts.digest, "texts": dict(texts.counts)}} if texts.digest else {}
    return {**content, "digest": _digest(canonical_json(content))}


def write_report(out: Path, found: Mapping[str, Any]) -> None:
    """Write it, whole or not at all. Raises `OutputError`, and `EvaluationError` as `check_readable` does."""
    raw = canonical_json(found)
    check_readable(raw, out / REPORT, MOST_REPORT_BYTES)
    write_file(out / REPORT, raw)


def read_report(path: Path) -> dict[str, Any]:
    """Read a report, and check that it says what its digest says.

    Raises:
        EvaluationError: it cannot be read or is none (reason "not-a-report", or those of `soupmix.sealed`), or it was changed
            after it was written ("report-changed").
    """
    raw, _ = read_sealed(path, cap=MOST_REPORT_BYTES, error=EvaluationError)
    try:
        found = bounded_json(raw)
        if not isinstance(found, dict) or found.get("schema_version") != _SCHEMA or "digest" not in found:
            raise ValueError(f"no object of schema_version {_SCHEMA} with a digest")
        content = {name: value for name, value in found.items() if name != "digest"}
        digest = _digest(canonical_json(content))
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not a report of `soupmix evaluate`: {error}", reason="not-a-report") from None
    if found["digest"] != digest:
        raise EvaluationError(
            f"{path} was changed after it was written: it says digest {str(found['digest'])[:80]!a} and has {digest}; take "
            "the original, or evaluate again",
            reason="report-changed",
        )
    return found


def _digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


def _prompts(record: EvaluationRecord) -> dict[str, Any]:
    kinds: dict[str, int] = {}
    for each in record.prompts:
        kinds[each.kind] = kinds.get(each.kind, 0) + 1
    texts = [each.model_dump(mode="json") for each in record.prompts]
    return {"count": len(texts), "digest": _digest(canonical_json(texts)), "kinds": kinds}


def _missing(record: EvaluationRecord, samples: Sequence[ArmSample]) -> list[NotMeasured]:
    asked = len(record.arms) * len(record.prompts) * len(record.temperatures)
    if len(samples) == asked:
        return []
    return [NotMeasured(f"{asked - len(samples)} of {asked} answers", "the run was stopped before it made them")]


def _unasked(record: EvaluationRecord, trained: TrainedEffects) -> list[NotMeasured]:
    poles = {facts.pole for facts in record.adapters.values()}
    asked = sorted(poles - set(record.preferences))
    found = [NotMeasured(f"{pole} by a prompt", "no preference prompt was given for it") for pole in asked]
    found += [
        NotMeasured(f"trained texts of {pole}", "no adapter has it") for pole in trained.counts if pole not in poles
    ]
    unread = sorted(poles - set(trained.counts))
    if unread:
        told = f"no store keeps it, and --trained gave no texts of {', '.join(unread)}; ceilings are without it"
        found.append(NotMeasured(TRAINED, told))
    return found


def _cannot_show(record: EvaluationRecord) -> list[str]:
    found = [
        "Measures of style are counts over words and probabilities; none of them says whether an answer is true or useful.",
        "Intervals are over prompts of this set: other prompts, other languages and longer conversations may differ.",
    ]
    if any(each.contrasts for each in record.arms):
        found.append(
            "Arms by contrast and by best-of-n choose by the contrast of preference prompts: what the base, as a judge, says of "
            "them by the same contrast is no finding."
        )
    if len(record.prompts) < _FEW:
        found.append(
            f"There are only {len(record.prompts)} prompts: intervals over so few are too narrow, and what seems to be told from "
            "nothing may be chance."
        )
    count = record.base.parameters
    if count is not None and count < _SMALL:
        found.append(
            f"The base has {count:,} parameters. Answers of a model this small are often wrong, drift and repeat "
            "themselves; what is found here about safety, truth, reasoning and long answers says little about larger models."
        )
    return found


def _versions() -> dict[str, str]:
    """Of the libraries that measure, as far as they are installed."""
    found = {}
    for name in _LIBRARIES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
