"""The stage after single adapters: they are trained in mixtures, all at once or one by one, and written."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from soupmix.errors import TrainingError
from soupmix.files import canonical_json, digest_parts, new_folder, sha256_file, strict_json, write_file
from soupmix.store import Adapter, Store
from soupmix.store.importing import read_adapter
from soupmix.train.checkpoint import KeptSteps
from soupmix.train.examples import examples_digest
from soupmix.train.finished import CONFIG, RECORD, TENSORS, file_digests, is_finished, is_trained
from soupmix.train.mixtures import SoupExample, apart
from soupmix.train.plan import WORK, TrainingPlan
from soupmix.train.sample import NEUTRAL
from soupmix.train.targets import MixtureTargets, Samples, soup_examples
from soupmix.train.texts import write_texts
from soupmix.train.together import SoupRecipe, fit_soup

__all__ = ["alone_folder", "fit_mixtures", "soup_works"]


def alone_folder(plan: TrainingPlan, pole: str) -> Path:
    """Where a pole's adapter goes that is trained alone."""
    return plan.folder / pole if plan.soup is None else plan.folder / WORK / "alone" / pole


def soup_works(plan: TrainingPlan) -> list[tuple[str, ...]]:
    """What is trained at once: all poles of the plan, or each by itself while the others are frozen."""
    if plan.soup is None:
        return []
    return [(pole,) for pole in plan.poles] if plan.soup.arm == "frozen" else [plan.poles]


def fit_mixtures(plan: TrainingPlan, trained: tuple[str, ...], tell: Callable[[int, int], None]) -> None:
    """Train adapters in mixtures into their folders, unless they are there.

    Raises:
        TrainingError, AdapterError: as `soup_examples`, `fit_soup` and `read_adapter`.
    """
    recipe = _recipe(plan)
    starts = _starts(plan)
    samples = plan.sampled(plan.mixture_chunks())
    examples = _examples(plan, recipe, trained, samples)
    prose = [each.text for each in samples[NEUTRAL.name]]
    identity = _identity(plan, recipe, trained, starts, examples, prose)
    if not all(is_finished(_led_folder(plan, pole), identity) for pole in trained):
        _fit_anew(plan, recipe, trained, starts, examples, prose, identity, tell)
    for pole in trained:
        _interpolate(plan, pole, identity)
        alone = [] if recipe.arm == "apart" else [each.example for each in examples if each.weights == {pole: 1.0}]
        write_texts(plan, pole, alone, plan.folder / pole, before=starts[pole])


def _fit_anew(
    plan: TrainingPlan,
    recipe: SoupRecipe,
    trained: tuple[str, ...],
    starts: Mapping[str, Path],
    examples: Sequence[SoupExample],
    prose: Sequence[str],
    identity: str,
    tell: Callable[[int, int], None],
) -> None:
    adapters = {name: _adapter(plan, name) for name in starts}
    checkpoint = KeptSteps(plan.folder / WORK / "steps", identity)
    tensors, losses = fit_soup(plan.base, adapters, trained, examples, prose, recipe, checkpoint, tell)
    for pole in trained:
        mine = {name.split("|", 1)[1]: tensor for name, tensor in tensors.items() if name.startswith(f"{pole}|")}
        facts = {"learned": len(examples), "identity": identity, "loss": [losses[0], losses[-1]], "steps": len(losses)}
        _write(plan, pole, starts[pole], mine, facts)
    checkpoint.forget()


def _led_folder(plan: TrainingPlan, pole: str) -> Path:
    """Where a pole's adapter goes as training leaves it."""
    return plan.folder / pole if plan.interpolation == 1 else plan.folder / WORK / "led" / pole


def _interpolate(plan: TrainingPlan, pole: str, identity: str) -> None:
    """Write what lies between the adapter's start and where training led, in fp32, rounded to bf16."""
    if plan.interpolation == 1:
        return
    led, share = _led_folder(plan, pole), plan.interpolation
    wanted = digest_parts("soupmix interpolation", {"led": identity, "share": repr(share)})
    if is_finished(plan.folder / pole, wanted):
        return
    modules = _adapter(plan, pole).modules
    before = {_peft_name(f"{path}|{side}"): getattr(modules[path], side) for path in modules for side in "AB"}
    after = load_file(led / TENSORS)
    between = {name: (1 - share) * before[name].float() + share * each.float() for name, each in after.items()}
    record = strict_json((led / RECORD).read_bytes())
    soup = {**record["soup"], "interpolation": share, "led": file_digests(led)}
    _save(plan.folder / pole, led, between, {**record, "identity": wanted, "soup": soup})


def _adapter(plan: TrainingPlan, name: str) -> Adapter:
    """Where it begins; of a store the files that its manifest means."""
    if (store := _store_of(plan, name)) is not None:
        return store.load(name)
    folder = alone_folder(plan, name)
    modules = read_adapter(folder, plan.base.layers().shapes())
    return Adapter(name, f"sha256:{sha256_file(folder / TENSORS)}", plan.base.digest, modules)


def _store_of(plan: TrainingPlan, name: str) -> Store | None:
    store = Store(plan.beside) if plan.beside else None
    return store if store is not None and name in store else None


def _recipe(plan: TrainingPlan) -> SoupRecipe:
    if plan.soup is None:
        raise TrainingError("this plan trains no mixtures; give it a recipe for them", reason="method")
    return plan.soup


def _starts(plan: TrainingPlan) -> dict[str, Path]:
    """Where each adapter of the mixtures is before."""
    stores = {name: _store_of(plan, name) for name in plan.mixed}
    return {name: store.path(name) if store else alone_folder(plan, name) for name, store in stores.items()}


def _examples(plan: TrainingPlan, recipe: SoupRecipe, trained: Sequence[str], samples: Samples) -> list[SoupExample]:
    """The same for all arms, but for what each of them does with them."""
    poles = {name: plan.known[name] for name in plan.mixed}
    targets = MixtureTargets.of(poles, plan.prompts, samples)
    found = soup_examples(
        targets,
        recipe.examples,
        recipe.seed,
        must=plan.poles,
        more=recipe.more,
        skip=recipe.skip,
        skip_poles=recipe.skip_poles,
    )
    if recipe.arm == "apart":
        return [each for each in apart(found) if not each.weights.keys().isdisjoint(trained)]
    return [each for each in found if not each.weights.keys().isdisjoint(trained)]


def _identity(
    plan: TrainingPlan,
    recipe: SoupRecipe,
    trained: Sequence[str],
    starts: Mapping[str, Path],
    examples: Sequence[SoupExample],
    prose: Sequence[str],
) -> str:
    parts = {
        "base": plan.base.digest,
        "examples": examples_digest(each.example for each in examples),
        "files": plan.base.files_digest(),
        "mixtures": json.dumps([[dict(each.weights), each.skip] for each in examples]),
        "prose": json.dumps(prose),
        "recipe": json.dumps(asdict(recipe)),
        "starts": json.dumps({name: file_digests(folder) for name, folder in starts.items()}),
        "trained": json.dumps(sorted(trained)),
    }
    return digest_parts("soupmix soup training", parts)


def _write(
    plan: TrainingPlan, pole: str, start: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, object]
) -> None:
    """PEFT's format: the config of the start, the factors in bf16, and how both came about."""
    store = _store_of(plan, pole)
    recorded = strict_json((start / RECORD).read_bytes()) if store is None else {"before": store[pole].training}
    soup = {**asdict(_recipe(plan)), **facts, "beside": list(plan.mixed), "start": file_digests(start)}
    record = {**recorded, "base": plan.base.digest, "identity": facts["identity"], "pole": pole, "soup": soup}
    named = {_peft_name(name): each for name, each in tensors.items()}
    _save(_led_folder(plan, pole), start, named, record)


def _save(folder: Path, like: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object]) -> None:
    """An adapter with the config of another, in bf16."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(folder, force=True, own=is_trained) as made:
        shutil.copyfile(like / CONFIG, made / CONFIG)
        rounded = {name: each.to(torch.bfloat16).contiguous() for name, each in tensors.items()}
        save_file(rounded, made / TENSORS, metadata={"format": "pt"})
        write_file(made / RECORD, canonical_json({**record, **file_digests(made)}))


def _peft_name(name: str) -> str:
    path, _, side = name.rpartition("|")
    return f"base_model.model.{path}.lora_{side}.weight"
