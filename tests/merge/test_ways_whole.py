"""Methods of load time from a store to a folder: what is written, told, verified, bounded and refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from soupmix.base import Base
from soupmix.cli.merge import command
from soupmix.engine import Engine
from soupmix.errors import PolicyRefusal, RecipeError
from soupmix.merge import Saved, Soup, merge, verify
from soupmix.merge.entries import Entries, Merged
from soupmix.methods import DEFAULT, METHODS, options_of, served
from soupmix.options import spelled
from soupmix.policy import Policy
from soupmix.store.store import Store
from tests.support.tuned import tuned

Run = Callable[..., tuple[int, str, str]]
LATER = [name for name in METHODS if name not in served()]
PAIR = {"friendly": 0.5, "expert": 0.25}
NORM = "tier: law\nissuer: Example\nversion: '1'\nrules:\n- {id: small, rule: norm, at_most: '0.02'}\n"
TURNING = ("slerp", "karcher")


def matrix(merged: Merged) -> torch.Tensor:
    return merged.matrix().double() if isinstance(merged, Entries) else merged.scaled() @ merged.A.double()


def factors(saved: Saved) -> Mapping[str, torch.Tensor]:
    held = load_file(saved.folder / "adapter_model.safetensors")
    named = {name.removeprefix("base_model.model.").removesuffix(".lora_A.weight") for name in held if "lora_A" in name}
    parts = {path: [held[f"base_model.model.{path}.lora_{side}.weight"].double() for side in "BA"] for path in named}
    return {path: B @ A for path, (B, A) in parts.items()}


def norm(soup: Soup) -> float:
    return float(torch.cat([matrix(each).flatten() for each in soup.modules.values()]).norm())


@pytest.fixture
def pair(three: Store) -> Callable[..., Soup]:
    def make(method: str, **options: object) -> Soup:
        return merge(three, Policy.open(three).clamp(PAIR), method=method, options=options)

    return make


@pytest.mark.parametrize("method", LATER)
def test_a_model_holds_what_was_merged_and_an_adapter_its_best_approximation(
    method: str, pair: Callable[..., Soup], tiny_base: Base, tmp_path: Path
) -> None:
    soup = pair(method)
    exact = {path: matrix(merged) for path, merged in soup.modules.items()}
    model = soup.save_model(tmp_path / "model", base=tiny_base, dtype="fp32")
    written, before = load_file(model.folder / "model.safetensors"), load_file(tiny_base.folder / "model.safetensors")
    for path, delta in exact.items():
        change = written[f"{path}.weight"].double() - before[f"{path}.weight"].double()
        torch.testing.assert_close(change, delta, rtol=0, atol=1e-6)
    adapter = soup.save_adapter(tmp_path / "adapter")
    missed = {path: float((made - exact[path]).norm()) for path, made in factors(adapter).items()}
    total = float(torch.cat([delta.flatten() for delta in exact.values()]).norm())
    assert adapter.errors["total"].total == pytest.approx(sum(e**2 for e in missed.values()) ** 0.5 / total, abs=1e-6)
    for path, delta in exact.items():
        rank = 6 if METHODS[method].form == "entries" else 64
        best = torch.linalg.svdvals(delta)[min(rank, soup.modules[path].rank) :].norm().item()
        assert missed[path] == pytest.approx(best, rel=1e-4, abs=1e-5)
    told = any("leaves out" in warning for warning in adapter.warnings)
    assert told == (METHODS[method].form == "entries")


def test_verify_repeats_method_and_options_and_misses_no_change_of_either(
    pair: Callable[..., Soup], tiny_base: Base, tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))
    rules = {"friendly": [{"filter": "q_proj", "value": [0.25, 1]}]}
    saved = pair("dare_ties", seed=5, density=0.7, layers=rules).save_model(tmp_path / "m", base=tiny_base)
    recipe = tmp_path / "m/soupmix_recipe.yaml"
    said = yaml.safe_load(recipe.read_text())["options"]
    assert said == options_of("dare_ties", {"seed": 5, "density": 0.7, "layers": rules})
    assert "drawn by chance" in (card := (tmp_path / "m/README.md").read_text())
    assert "density 0.7" in card
    assert verify(tmp_path / "m", base=tiny_base.folder).ok
    others = [pair("dare_ties", seed=5, density=0.7), pair("dare_ties", seed=6, density=0.7, layers=rules)]
    names = {soup.identity(base_digest=tiny_base.digest, dtype="base") for soup in others}
    assert len({*names, saved.identity}) == 3
    recipe.write_text(recipe.read_text().replace("seed: 5", "seed: 6"))
    assert not verify(tmp_path / "m", base=tiny_base.folder).ok


def test_a_method_without_options_is_spelled_as_it_always_was() -> None:
    for name in served():
        assert spelled(name, options_of(name, {})) == name


@pytest.mark.parametrize("method", LATER)
def test_a_rule_on_the_norm_binds_what_comes_out(
    method: str, make_store: Callable[..., Store], folders: Mapping[str, Path], tmp_path: Path
) -> None:
    store = make_store({name: folders[name] for name in PAIR})
    (tmp_path / "law.yaml").write_text(NORM)
    grant = Policy.load(tmp_path / "law.yaml", adapters=store).clamp(PAIR)
    assert grant.clamped
    free = Policy.open(store).clamp(grant.granted)
    made = merge(store, grant, method=method)
    allowed, asked, found = map(norm, (merge(store, free), merge(store, free, method=method), made))
    assert found <= allowed * (1 + 1e-5)
    bound = any("law.yaml (law) small" in warning for warning in made.warnings)
    if method in TURNING:  # shortened before, layer by layer, where an adapter would act above its own weight
        assert 0.9 * min(asked, allowed) < found <= min(asked, allowed) * (1 + 1e-5)
        assert bound or any("above its granted weight" in warning for warning in made.warnings)
    else:
        assert found == pytest.approx(min(asked, allowed), rel=1e-5)
        assert bound == (asked > allowed)


def test_layers_under_a_rule_on_the_norm_are_bounded_too(
    make_store: Callable[..., Store], tiny_adapter: Callable[..., Path], tmp_path: Path
) -> None:
    """Two opposite adapters are nothing together, and much where the layers of one are taken away."""
    one, other = tiny_adapter(rank=4, alpha=8, seed=1), tiny_adapter(rank=4, alpha=8, seed=1)
    tensors = load_file(other / "adapter_model.safetensors")
    opposite = {name: -each if "lora_B" in name else each for name, each in tensors.items()}
    save_file(opposite, other / "adapter_model.safetensors", metadata={"format": "pt"})
    store = make_store({"friendly": one, "concise": other})
    (tmp_path / "law.yaml").write_text(NORM.replace("0.02", "0.0001"))
    grant = Policy.load(tmp_path / "law.yaml", adapters=store).clamp({"friendly": 1, "concise": 1})
    assert not grant.clamped
    soup = merge(store, grant, options={"layers": {"concise": [{"value": 0}]}})
    assert norm(soup) < 1e-4
    assert soup.warnings


def test_layers_of_a_dora_are_refused_under_a_rule_on_the_norm(
    make_store: Callable[..., Store], folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path
) -> None:
    """What its gains make of the base's weights is in no factors, so that nothing here could hold it to the rule."""
    dora = tuned("dora", tiny_base.folder, tmp_path / "dora").folder
    store = make_store({"friendly": dora, "concise": folders["concise"]})
    (tmp_path / "law.yaml").write_text(NORM)
    policy = Policy.load(tmp_path / "law.yaml", adapters=store)
    asked, layers = {"friendly": 0.5, "concise": 0.25}, {"layers": {"concise": [{"value": 0}]}}
    grant = policy.clamp(asked)
    assert grant.clamped
    merge(store, grant)
    merge(store, Policy.open(store).clamp(asked), options=layers)
    with pytest.raises(
        PolicyRefusal, match=r"friendly .* gains .* law\.yaml \(law\) small .* leave layers out"
    ) as caught:
        merge(store, grant, options=layers)
    assert caught.value.reason == "norm-not-linear"


def test_layers_of_an_adapter_that_is_none_are_a_mistake(pair: Callable[..., Soup]) -> None:
    rules = [{"value": 0.25}]
    with pytest.raises(RecipeError, match=r"'freindly'.*did you mean friendly") as caught:
        pair(DEFAULT, layers={"freindly": rules, "concise": rules})
    assert caught.value.reason == "bad-option"
    assert norm(pair(DEFAULT, layers={"*": rules, "expert": rules})) > 0  # one of the store that is not asked for


def test_no_row_can_have_a_method_of_load_time(tiny_base: Base, three: Store) -> None:
    grant = Policy.open(three).clamp(PAIR)
    engine = Engine.load(tiny_base, three)
    for method in LATER:
        with pytest.raises(RecipeError, match=f"method '{method}' makes adapters and models at load time") as caught:
            engine.weights([grant], method)
        assert caught.value.reason == "method"


def test_options_come_from_the_command_line_and_from_recipes(run: Run, three: Store, tmp_path: Path) -> None:
    asked = ["--store", three.folder, "-w", "friendly=0.5,expert=0.25"]
    code, out, err = run(
        "merge", *asked, "--method", "ties", "--density", 0.3, "--normalize", "--json", tmp_path / "one"
    )
    assert code == 0, err
    assert json.loads(out)["options"] == {"density": 0.3, "elect": "mass", "normalize": True}
    assert "leaves out" in err
    again = tmp_path / "one/soupmix_recipe.yaml"
    assert run("merge", again, tmp_path / "two")[0] == 0
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert run("verify", tmp_path / "two")[0] == 0
    code, out, _ = run("merge", again, "--density", 0.6, "--json", tmp_path / "three")
    assert json.loads(out)["options"] == {"density": 0.6, "elect": "mass", "normalize": True}
    code, out, _ = run("merge", again, "--method", DEFAULT, "--json", tmp_path / "four")
    assert "options" not in json.loads(out)
    code, out, err = run("merge", *asked, "--density", 0.3, tmp_path / "five")
    assert (code, out) == (2, "")
    assert f"method {DEFAULT} has no option 'density'; it has layers" in err


def test_help_tells_of_which_methods_an_option_is() -> None:
    text = " ".join(CliRunner().invoke(command, ["--help"], terminal_width=200).output.split())
    assert "--epsilon FLOAT Of method della, della_linear: how far" in text
    for method in METHODS.values():
        for option in method.options:
            assert f"--{option.name.replace('_', '-')}" in text
