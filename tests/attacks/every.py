"""All attacks, by what they attack, and the document that lists them.

python -m tests.attacks.every > docs/attacks.md
"""

import sys

from tests.attacks import (
    on_adapter_files,
    on_adapter_headers,
    on_bases,
    on_configs,
    on_engines,
    on_evaluations,
    on_evidence,
    on_extractions,
    on_grants,
    on_policies,
    on_prompts,
    on_recipes,
    on_results,
    on_rows,
    on_stores,
    on_surfaces,
    on_tensors,
    on_training,
    on_wants,
    on_weights,
    on_whole,
)
from tests.attacks.attack import Attack

__all__ = ["ATTACKS", "ROOMS", "document"]

ROOMS: dict[str, tuple[Attack, ...]] = {
    "Files of an adapter folder": on_adapter_files.ATTACKS,
    "Headers of safetensors files": on_adapter_headers.ATTACKS,
    "Names, types, shapes and values of tensors": on_tensors.ATTACKS,
    "adapter_config.json": on_configs.ATTACKS,
    "Whole weights, rows, biases and lengths": on_whole.ATTACKS,
    "Base models and their chat templates": on_bases.ATTACKS,
    "Sources of an extraction": on_extractions.ATTACKS,
    "What is said of a person's answers": on_evidence.ATTACKS,
    "Files of what somebody wants": on_wants.ATTACKS,
    "Stores and manifests": on_stores.ATTACKS,
    "Surfaces": on_surfaces.ATTACKS,
    "Weights and attributes": on_weights.ATTACKS,
    "Policy documents": on_policies.ATTACKS,
    "Grants": on_grants.ATTACKS,
    "Rows of weights on their way to vLLM": on_rows.ATTACKS,
    "Recipes": on_recipes.ATTACKS,
    "Prompts, and chat templates that are given": on_prompts.ATTACKS,
    "Engines: grants and layers": on_engines.ATTACKS,
    "Results and places to write to": on_results.ATTACKS,
    "Preference data and poles to train from": on_training.ATTACKS,
    "Evaluations, their answers and reports": on_evaluations.ATTACKS,
}
ATTACKS = tuple(attack for room in ROOMS.values() for attack in room)

_HEADING = """\
# Attacks

{count} hostile folders, files and requests, each made by a few lines in `tests/attacks/`, and how soupmix refuses it. `make test`
runs every one in a forked process with at most 256 MB of memory beyond what it had before, and fails on another error, another
reason code, a message of more than one line or 1,000 characters, or more than 10 CPU-seconds. This file is made by
`python -m tests.attacks.every`, and the tests compare it.

What is not here: an adapter that is well-formed and says harmful things. Bounds on weights and approval by digest are for that.
"""


def document() -> str:
    """The text of docs/attacks.md."""
    parts = [_HEADING.format(count=len(ATTACKS))]
    for room, attacks in ROOMS.items():
        rows = [f"| {each.name} | {each.tries} | {each.error.__name__} | `{each.reason}` |" for each in attacks]
        parts.append(
            "\n".join([f"## {room}\n", "| attack | what it tries | error | reason |", "|---|---|---|---|", *rows])
        )
    return "\n".join(part + "\n" if not part.endswith("\n") else part for part in parts)


if __name__ == "__main__":
    sys.stdout.write(document())
