"""The texts that an adapter was trained on, kept beside it: how much of its pole there was to learn.

`soupmix evaluate --trained OUT` takes them for the ceiling, so what is written is what `soupmix.evaluate.trained` reads.
"""

from collections.abc import Iterable
from pathlib import Path

from soupmix.evaluate.trained import TEXTS, TrainedText
from soupmix.files import write_file
from soupmix.train.examples import Example, messages
from soupmix.train.plan import TrainingPlan
from soupmix.train.sample import NEUTRAL

__all__ = ["write_texts"]


def write_texts(
    plan: TrainingPlan, pole: str, examples: Iterable[Example], folder: Path, before: Path | None = None
) -> None:
    """Write what a pole learns from into a folder, each with the plain answer to the same prompt; nothing if there is nothing.

    Examples that somebody gave have no plain answers, and are in that somebody's file already.

    Args:
        before: folder whose texts the pole was trained on earlier.

    Raises:
        TrainingError: samples are missing (reason "samples-missing").
        OutputError: the file cannot be written.
    """
    texts = [] if pole in plan.given else [(messages(each.asked)[-1]["content"], each.chosen) for each in examples]
    lines = _texts_of(before) if before is not None else b""
    if texts:
        samples = plan.sampled([each for each in plan.chunks([pole]) if each.pool == NEUTRAL])
        plain = {plan.prompts[each.prompt].text: each.text for each in reversed(samples[NEUTRAL.name])}
        made = (TrainedText(pole=pole, prompt=prompt, text=text, plain=plain[prompt]) for prompt, text in texts)
        lines += b"".join(each.model_dump_json().encode() + b"\n" for each in made)
    if lines and lines != _texts_of(folder):
        write_file(folder / TEXTS, lines)


def _texts_of(folder: Path) -> bytes:
    path = folder / TEXTS
    return path.read_bytes() if path.is_file() else b""
