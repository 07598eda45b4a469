"""Adapters as implicit rewards: against PEFT's own arithmetic, inside the policy, and named by what measured."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import PreferenceError
from soupmix.evaluate import Arm, Prompt, rewarding
from soupmix.evaluate.judging import Judging
from soupmix.evaluate.measures import TEXT_MEASURES
from soupmix.evaluate.measures.measure import steered_by
from soupmix.evaluate.measuring import MeasuredSamples
from soupmix.evaluate.rewarding import RewardMeasuring, rewarded, values_of
from soupmix.evaluate.samples import ArmSample, Keys
from soupmix.evaluate.sampling import Evaluation
from soupmix.evaluate.surface import surface_of
from soupmix.policy import Policy
from soupmix.preference import Trait, Traits
from soupmix.preference.rewards import Reward, granted_rewards, rewards
from soupmix.store import Store
from soupmix.weights import Weights

ADAPTERS = {"friendly": "style", "unfriendly": "style", "funny": "humour", "calm": "mood", "loud": "mood"}
ASKED, TEXTS = "Why does iron rust?", ["It meets water, and air.", "You!"]


@pytest.fixture(scope="module")
def folders(tiny_adapter: Callable[..., Path]) -> dict[str, Path]:
    return {name: tiny_adapter(seed=20 + number, scale=0.3) for number, name in enumerate(ADAPTERS)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, folders: dict[str, Path]) -> Store:
    made = Store(tmp_path_factory.mktemp("rewards") / "store", create=True)
    for name, folder in folders.items():
        made.add(folder, name=name, dimension=ADAPTERS[name], pole=name, base=tiny_base)
    return made


@pytest.fixture(scope="module")
def engine(tiny_base: Base, store: Store) -> Engine:
    return Engine.load(tiny_base, store)


def every(store: Store) -> tuple[Reward, ...]:
    entries = {each.name: each for each in store}
    return rewards(entries["funny"].base_digest, entries)


def of(store: Store, dimension: str) -> Reward:
    (found,) = [each for each in every(store) if each.dimension == dimension]
    return found


def by_peft(engine: Engine, base: Base, folder: Path | None, text: str) -> float:
    """Mean log-probability of the tokens of a text, by PEFT and transformers alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base.folder)
    model = model if folder is None else PeftModel.from_pretrained(model, str(folder))
    before, after = list(engine.chat_tokens(ASKED)), list(engine.prompts.tokens(text))
    with torch.no_grad():
        logits = model(torch.tensor([before + after])).logits[0, len(before) - 1 : -1]
    return float(logits.log_softmax(-1).gather(-1, torch.tensor(after)[:, None]).mean())


def test_a_reward_is_how_much_likelier_peft_finds_the_text(
    engine: Engine, store: Store, tiny_base: Base, folders: dict[str, Path]
) -> None:
    allow = Policy.open(tuple(store)).clamp
    found = values_of(engine, allow, [(ASKED, text) for text in TEXTS], every(store))
    for text, row in zip(TEXTS, found, strict=True):
        base = by_peft(engine, tiny_base, None, text)
        gain = {name: by_peft(engine, tiny_base, folder, text) - base for name, folder in folders.items()}
        assert row == {
            of(store, "humour").name: pytest.approx(gain["funny"], abs=1e-4),
            of(store, "style").name: pytest.approx(gain["friendly"] - gain["unfriendly"], abs=1e-4),
            of(store, "mood").name: pytest.approx(gain["calm"] - gain["loud"], abs=1e-4),
        }
    (alone,) = values_of(engine, allow, [(ASKED, TEXTS[1])], every(store))
    assert alone == pytest.approx(found[1], abs=1e-5)


def test_the_name_of_a_reward_is_that_of_what_measures(store: Store) -> None:
    entries = {each.name: each for each in store}
    base = entries["funny"].base_digest
    named = {each.name for each in every(store)}
    assert named == {each.name for each in rewards(base, dict(reversed(entries.items())))}
    assert named.isdisjoint({each.name for each in rewards("sha256:" + "0" * 64, entries)})
    renamed = rewards(base, {f"x-{name}": each for name, each in entries.items()})
    assert {each.name for each in renamed} == named, "what a store calls an adapter says nothing of it"
    three = rewards(base, {"a": entries["calm"], "b": entries["loud"], "c": entries["calm"]})
    assert [each.against for each in three] == ["", "", ""]


RULES = """tier: organisation
issuer: House
version: '1'
rules:
- {rule: deny, adapter: loud}
- {rule: bounds, adapter: funny, at_most: '0.5'}
- {rule: bounds, adapter: friendly, at_most: '0.1'}
"""


def test_only_what_the_policy_lets_somebody_have_measures(engine: Engine, store: Store, tmp_path: Path) -> None:
    (tmp_path / "house.yaml").write_text(RULES)
    policy = Policy.load(tmp_path / "house.yaml", adapters=store)
    here = granted_rewards(every(store), policy.clamp)
    humour = of(store, "humour")
    assert set(here) == {humour.name}
    (found,) = values_of(engine, policy.clamp, [(ASKED, TEXTS[0])], [humour])
    half = Policy.open(tuple(store)).clamp({"funny": 0.5})
    (whole,) = values_of(
        engine, lambda weights: half if weights.nonzero() else policy.clamp({}), [(ASKED, TEXTS[0])], [humour]
    )
    assert found == whole, "half of an adapter counts twice"


def test_traits_are_measured_by_text_and_by_adapters_together(engine: Engine, store: Store) -> None:
    humour = of(store, "humour")
    traits = Traits((Trait("humour", humour.name), Trait("length", "words")), "sha256:" + "0" * 64)
    allow = Policy.open(tuple(store)).clamp
    measure = RewardMeasuring(traits, {humour.name: humour}, lambda: engine, allow)
    texts = [TEXTS[0], "", "  ", TEXTS[1]]
    found = measure(ASKED, texts)
    assert [each is None for each in found] == [False, True, True, False]
    assert found[0] is not None
    assert found[0]["length"] == 5
    assert found[0]["humour"] == values_of(engine, allow, [(ASKED, TEXTS[0])], [humour])[0][humour.name]
    only = RewardMeasuring(Traits(traits.axes[:1], traits.of), {humour.name: humour}, lambda: engine, allow)
    assert [each is None for each in only(ASKED, texts)] == [False, True, True, False]
    for prompt in (" ".join(map(str, range(3000))), next(iter(engine.prompts.markers))):
        with pytest.raises(PreferenceError) as caught:
            measure(prompt, TEXTS)
        assert caught.value.reason == "not-measured"


# --- of an evaluation -------------------------------------------------------------------------------------------------

ARMS = (Arm("base", Weights()), *(Arm(f"{name}@1", Weights({name: 1})) for name in ADAPTERS))
PROMPTS = (Prompt(ASKED, "question", ("rust",)), Prompt("Name a tree.", "list", ("tree",)))


@pytest.fixture(scope="module")
def judging(store: Store, tiny_base: Base) -> Judging:
    return Judging(tiny_base, store.folder, Evaluation(tiny_base, store.folder, ARMS, PROMPTS, {}, (0.0,)).record())


@pytest.fixture(scope="module")
def samples(judging: Judging, engine: Engine, store: Store) -> list[ArmSample]:
    """What the soups really answer."""
    keys, policy, found = Keys(judging.record), Policy.open(tuple(store)), []
    for each in PROMPTS:
        grants, texts = [policy.clamp(arm.weights) for arm in ARMS], [""]
        for seed in range(50):  # so small a model may say nothing
            if all(text.strip() for text in texts):
                break
            texts = engine.generate([each.text] * len(ARMS), grants, max_new_tokens=32, temperature=1.0, seed=seed)
        for arm, text in zip(ARMS, texts, strict=True):
            key = keys.key(arm.name, each.text, 0.0)
            found.append(ArmSample(arm, each.text, each.kind, 0.0, 0, text, 4, True, key))
    return found


def test_dimensions_without_a_measure_are_told_by_their_adapters_and_mapped(
    judging: Judging, samples: list[ArmSample], store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = steered_by(judging.record.adapters.values(), TEXT_MEASURES)
    measured = MeasuredSamples({0.0: {(e.arm.name, e.prompt): {"vader": 0.0} for e in samples}}, known)
    found = rewarded(judging, measured, samples, tmp_path)
    humour, mood = of(store, "humour"), of(store, "mood")
    assert set(found.measures) - set(known) == {humour.name, mood.name}, "style has measures of its own"
    rows = found.tables[0.0]
    for prompt in (each.text for each in PROMPTS):
        assert rows["funny@1", prompt][humour.name] > rows["base", prompt][humour.name]
        assert rows["calm@1", prompt][mood.name] > rows["loud@1", prompt][mood.name]
    monkeypatch.setattr(rewarding, "_work", lambda *_: pytest.fail("it is kept"))
    assert rewarded(judging, measured, samples, tmp_path).tables == found.tables
    document = surface_of(judging.record, found, "sha256:" + "e" * 64)
    assert document.measures[humour.name].dimension == "humour"
