"""Many ways to answer the same prompts, measured in worker processes; each finished arm is a file and is not measured again."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from soupmix.base import Base
from soupmix.evaluate.effect import Contrast, answer_prompts, margin, perplexity, summary
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.soups import Arm
from soupmix.evaluate.workers import Progress, as_finished, loaded_engine, workers
from soupmix.files import digest_parts, write_file
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from soupmix.weights import Weights

__all__ = ["measure_arms", "measure_margins", "open_grant"]


def open_grant(store: Store, weights: Weights) -> Grant:
    """A grant under nothing but the built-in bounds: measuring needs the weights that the budget is later set from."""
    return Policy.open(tuple(store)).clamp(weights)


def measure_arms(
    base: Base,
    store: Path,
    arms: Sequence[Arm],
    prompts: Sequence[Prompt],
    folder: Path,
    *,
    jobs: int = 2,
    progress: Progress = lambda stage, done, total: None,
) -> dict[str, dict[str, Any]]:
    """Measure every arm on every prompt.

    Args:
        store: folder of the store whose adapters the arms name. folder: where finished arms are kept.
        jobs: worker processes. progress: called with ("measuring", arms done, arms in all).

    Returns:
        Arm name -> {"arm", "metrics": {metric: {mean, low, high}}, "perplexity", "answers": [...]}.

    Raises:
        TrainingError: a worker process was ended from outside (reason "worker-lost").
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = {arm.name: folder / f"{_identity(base, store, arm, prompts)}.json" for arm in arms}
    todo = [arm for arm in arms if not files[arm.name].exists()]
    done = len(arms) - len(todo)
    progress("measuring", done, len(arms))
    calls = [(base, store, arm, prompts, files[arm.name]) for arm in todo]
    if calls:
        with workers(jobs) as pool:
            for _ in as_finished(pool, _measure, calls):
                progress("measuring", done := done + 1, len(arms))
    return {name: json.loads(path.read_bytes()) for name, path in files.items()}


def measure_margins(
    base: Base, store: Path, contrasts: dict[str, list[Contrast]], *, jobs: int = 2
) -> dict[str, dict[str, float]]:
    """Teacher-forced margin of every adapter on contrasts of its own, see `soupmix.evaluate.effect.margin`.

    Args:
        store: folder of the store that holds the adapters. contrasts: by adapter name. jobs: worker processes.

    Returns:
        Adapter name -> {"base", "adapter"}: margin of the bare base, and with the adapter at weight 1; nats per token.

    Raises:
        TrainingError: a worker process was ended from outside (reason "worker-lost").
    """
    with workers(jobs) as pool:
        calls = [(base, store, name, found) for name, found in contrasts.items()]
        return {calls[number][2]: margins for number, margins in as_finished(pool, _margins, calls)}


def _margins(base: Base, store: Path, adapter: str, contrasts: list[Contrast]) -> dict[str, float]:
    engine = loaded_engine(base, store)
    grants = {"base": Weights({}), "adapter": Weights({adapter: 1})}
    return {name: round(margin(engine, open_grant(Store(store), w), contrasts), 4) for name, w in grants.items()}


def _measure(base: Base, store: Path, arm: Arm, prompts: Sequence[Prompt], path: Path) -> None:
    engine = loaded_engine(base, store)
    grant = open_grant(Store(store), arm.weights)
    found = answer_prompts(engine, grant, prompts, method=arm.method, system=arm.system)
    result = {
        "arm": {"name": arm.name, "weights": arm.weights.decimals(), "method": arm.method, "system": arm.system},
        "metrics": summary(found),
        "perplexity": round(perplexity(engine, grant, method=arm.method), 3),
        "answers": [asdict(answer) for answer in found],
    }
    write_file(path, json.dumps(result).encode())


def _identity(base: Base, store: Path, arm: Arm, prompts: Sequence[Prompt]) -> str:
    parts = {
        "adapters": json.dumps({entry.name: entry.digest for entry in Store(store) if entry.name in arm.weights}),
        "arm": json.dumps([arm.weights.decimals(), arm.method, arm.system]),
        "base": base.digest,
        "files": base.files_digest(),
        "prompts": json.dumps([p.text for p in prompts]),
    }
    return digest_parts("soupmix arm", parts)[:24]
