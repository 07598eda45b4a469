"""An evaluation made up by a formula: two dimensions of two poles, whose effects are known."""

from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256

from soupmix.evaluate.measures import Measure
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.promptset import Prompt
from soupmix.evaluate.record import AdapterFacts, BaseFacts, EvaluationRecord, arm_fields, prompt_fields
from soupmix.evaluate.samples import ArmSample, Keys
from soupmix.evaluate.soups import Arm, pairs, singles
from soupmix.weights import MILLION, Weights

DIMENSIONS = {"length": ("long", "short"), "mood": ("calm", "loud")}
SIGNS = {"long": 1, "short": -1, "calm": 1, "loud": -1}
MEASURES = {
    "words": Measure("words", "length", "words", "words", 0, "counted", (), "long"),
    "peace": Measure("peace", "mood", "peace of mind", "", 0, "made up", (), "calm"),
    "loops": Measure("loops", "", "loops", "", -1, "made up"),
}
STRENGTHS = ("0.5", "1")
SAID = {"calm": "Be calm.", "long": "Say much."}


def digest(text: str) -> str:
    return f"sha256:{sha256(text.encode()).hexdigest()}"


def arms() -> tuple[Arm, ...]:
    prompts = [Arm(f"{pole} by prompt", Weights({}), system=text) for pole, text in SAID.items()]
    return (Arm("base", Weights({})), *prompts, *singles(DIMENSIONS, STRENGTHS), *pairs(DIMENSIONS, STRENGTHS))


def record(prompts: int = 12, *, of: Sequence[Arm] | None = None) -> EvaluationRecord:
    return EvaluationRecord(
        base=BaseFacts(name="tiny", digest=digest("base"), files=digest("files"), parameters=10_000),
        adapters={
            name: AdapterFacts(digest=digest(name), dimension=dimension, pole=name)
            for dimension, names in DIMENSIONS.items()
            for name in names
        },
        preferences=SAID,
        seed=0,
        length=8,
        top_k=40,
        dtype=None,
        temperatures=(0.0, 0.7),
        arms=tuple(map(arm_fields, arms() if of is None else of)),
        prompts=tuple(prompt_fields(Prompt(f"Question {number}?", "question", ("x",))) for number in range(prompts)),
        made_by=({"soupmix": "0"},),
    )


def value(arm: Arm, measure: str, prompt: int) -> float:
    """Effects are products of weights and signs; `loud` halves what `long` and `short` do; a prompt moves all arms alike."""
    floats = arm.weights.floats()
    moved = sum(SIGNS[name] * weight for name, weight in floats.items() if name in DIMENSIONS["length"])
    mood = sum(SIGNS[name] * weight for name, weight in floats.items() if name in DIMENSIONS["mood"])
    if measure == "words":
        return (
            100 + 3 * (prompt % 5) + 40 * moved * (1 - floats.get("loud", 0.0) / 2) + 25 * (arm.system == SAID["long"])
        )
    if measure == "peace":
        return prompt % 3 + 2 * mood + 5 * (arm.system == SAID["calm"])
    return float(sum(arm.weights.values()) > MILLION and prompt % 4 == 0)


def measured(
    of: EvaluationRecord, value: Callable[[Arm, str, int], float] = value, measures: Mapping[str, Measure] = MEASURES
) -> MeasuredSamples:
    table = {
        (arm.name, each.prompt): {name: value(arm, name, number) for name in measures}
        for arm in of.all_arms()
        for number, each in enumerate(of.prompts)
    }
    return MeasuredSamples(dict.fromkeys(of.temperatures, table), measures)


def samples(of: EvaluationRecord) -> list[ArmSample]:
    keys = Keys(of)
    return [
        ArmSample(
            arm,
            each.prompt,
            each.kind,
            temperature,
            of.seed,
            "So it is.",
            4,
            True,
            keys.key(arm.name, each.prompt, temperature),
        )
        for each in of.prompts
        for arm in of.all_arms()
        for temperature in of.temperatures
    ]
