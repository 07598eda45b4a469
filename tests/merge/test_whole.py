"""Adapters that change more than factors of linear layers say: whole weights, rows of embeddings, biases, lengths of outputs.

PEFT's merge_and_unload in float64 is the oracle of what they are at weight 1, and its unmerged model that this is one model.
"""

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base, resolve
from soupmix.engine import Engine
from soupmix.errors import AdapterError, RecipeError
from soupmix.merge import Soup, merge, verify
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.families import make_family
from tests.support.peft_case import PeftCase

IDS = torch.tensor([[5, 9, 300, 7, 41, 600, 2, 77]])
ROWS = [5, 9, 600]

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "llama3": {
        "plain": {"target_modules": ["q_proj", "down_proj"]},
        "head": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "embed_tokens"]},
        "output": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
        "module": {"target_modules": ["v_proj"], "modules_to_save": ["mlp", "norm"]},
        "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": ROWS, "lm_head": [7]}},
        "embedding": {"target_modules": ["q_proj", "embed_tokens"], "rank_pattern": {"embed_tokens": 3}},
        "dora": {"target_modules": ["q_proj", "down_proj"], "use_dora": True, "use_rslora": True},
        "tokens-dora": {"target_modules": ["q_proj", "embed_tokens"], "use_dora": True, "modules_to_save": ["lm_head"]},
    },
    "gpt2": {
        "plain": {"target_modules": ["c_attn"]},
        "bias": {"target_modules": ["c_attn", "c_fc"], "bias": "lora_only"},
        "biases": {"target_modules": ["c_attn"], "bias": "all", "lora_bias": True},
        "dora": {"target_modules": ["c_attn", "c_proj"], "use_dora": True},
        "tokens": {"target_modules": ["c_attn"], "trainable_token_indices": ROWS},
    },
    "llama3.2-tied": {
        "plain": {"target_modules": ["q_proj"]},
        "tokens": {"target_modules": ["q_proj"], "trainable_token_indices": ROWS},
        "both": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"], "ensure_weight_tying": True},
    },
}

pytestmark = [
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to:UserWarning"),
    pytest.mark.filterwarnings("ignore:Setting `save_embedding_layers` to `True`:UserWarning"),
    pytest.mark.filterwarnings(
        "ignore:Adapter 'default'.*have invalid shape"
    ),  # PEFT takes its own lora_B.bias for cut
]


class Case(PeftCase):
    @cache  # noqa: B019
    def merged(self, kind: str) -> Mapping[str, Tensor]:
        """The parameters that PEFT merges, in float64; unmerged it computes the same."""
        with torch.inference_mode():
            adapted = PeftModel.from_pretrained(_model(self.base.folder), self.folders[kind]).double().eval()
            beside = adapted(IDS).logits
            model = adapted.merge_and_unload()
            torch.testing.assert_close(model(IDS).logits, beside, rtol=1e-9, atol=1e-9)
        return {path: parameter.data for path, parameter in model.named_parameters()}

    def deltas(self, soup: Mapping[str, float]) -> dict[str, Tensor]:
        """What a soup adds to every parameter: tuned minus base, adapter by adapter."""
        plain, found = dict(_model(self.base.folder).named_parameters()), dict[str, Tensor]()
        for kind, weight in soup.items():
            tuned = self.merged(kind)
            for path, tensor in plain.items():
                found[path] = found.get(path, torch.zeros_like(tensor.data)) + weight * (tuned[path] - tensor.data)
        return found


def _model(folder: Path, dtype: torch.dtype = torch.float64) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()


def _save(base: Base, folder: Path, seed: int, **config: Any) -> None:
    model = _model(base.folder, torch.float32)
    torch.manual_seed(seed)  # PEFT draws what is added to below
    adapted = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, task_type="CAUSAL_LM", **config))
    generator, done = torch.Generator().manual_seed(seed), set[int]()
    for parameter in adapted.parameters():
        if parameter.requires_grad and id(parameter) not in done:
            done.add(id(parameter))
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.1
    adapted.save_pretrained(folder)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory, family_base: Callable[[str], Base]) -> Callable[[str], Case]:
    return cache(lambda family: Case.made(family_base(family), tmp_path_factory.mktemp(family), KINDS[family], _save))


def _soup(made: Case, weights: Mapping[str, float]) -> Soup:
    return merge(made.store, Policy.open(made.store).clamp(weights))


EVERY = [(family, kind) for family, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("family", "kind"), EVERY)
def test_at_weight_1_a_model_is_what_peft_merges(
    case: Callable[[str], Case], family: str, kind: str, tmp_path: Path
) -> None:
    made = case(family)
    _soup(made, {kind: 1}).save_model(tmp_path / "out", base=made.base)
    ours = dict(_model(tmp_path / "out", torch.float32).named_parameters())
    for path, tensor in made.merged(kind).items():
        assert (ours[path].double() - tensor).norm() < 2e-7 * tensor.norm(), path


@pytest.mark.parametrize("family", KINDS)
def test_a_soup_adds_tuned_minus_base_by_weight(case: Callable[[str], Case], family: str, tmp_path: Path) -> None:
    """Each at a weight of its own, several on one weight of the base, DoRA too."""
    made = case(family)
    weights = dict(zip(KINDS[family], (0.4, 0.9, 0.5, 0.25, 0.7, 0.55, 0.3, 0.8), strict=False))
    _soup(made, weights).save_model(tmp_path / "out", base=made.base)
    ours, plain = (dict(_model(folder).named_parameters()) for folder in (tmp_path / "out", made.base.folder))
    for path, delta in made.deltas(weights).items():
        exact = plain[path].data + delta
        assert (ours[path].data - exact).norm() < 3e-7 * exact.norm(), path


@pytest.mark.parametrize("family", KINDS)
def test_norms_count_all_that_an_adapter_changes(case: Callable[[str], Case], family: str) -> None:
    made, store = case(family), case(family).store
    deltas = {kind: made.deltas({kind: 1.0}) for kind in KINDS[family]}
    for one, ours in deltas.items():
        size = sum(float(delta.square().sum()) for delta in ours.values())
        assert store[one].delta_norm == pytest.approx(size**0.5, rel=1e-6)
        for other, theirs in deltas.items():
            exact = sum(float((ours[path] * theirs[path]).sum()) for path in ours)
            assert abs(store.inner_product(one, other) - exact) < 2e-6 * size
    changed = {path for ours in deltas.values() for path, delta in ours.items() if delta.any()}
    plain = _model(made.base.folder).requires_grad_(False).state_dict()
    norm = sum(float(plain[path].square().sum()) for path in changed) ** 0.5
    assert store.base_norm == pytest.approx(norm, rel=1e-6)
    named = {layer.path: layer.parameter for layer in made.base.layers().values()}
    assert {named[module] for module in store.manifest.gram.modules} == changed


@pytest.mark.parametrize("kind", ["output", "module", "tokens-dora"])
def test_a_rule_on_the_norm_holds_for_what_is_written(case: Callable[[str], Case], kind: str, tmp_path: Path) -> None:
    made, document = case("llama3"), tmp_path / "law.yaml"
    document.write_text(
        "tier: law\nissuer: Example\nversion: '1'\nrules:\n- {id: small, rule: norm, at_most: '0.01'}\n"
    )
    grant = Policy.load(document, adapters=made.store).clamp({kind: 1})
    merge(made.store, grant).save_model(tmp_path / "out", base=made.base)
    ours, plain = (_model(folder).requires_grad_(False).state_dict() for folder in (tmp_path / "out", made.base.folder))
    norm = sum(float((ours[path] - plain[path]).square().sum()) for path in plain) ** 0.5
    bound = 0.01 * (made.store.base_norm or 0)
    assert 0.99 * bound < norm < (1 + 1e-5) * bound


@pytest.mark.parametrize(("dtype", "shard"), [(torch.float16, None), (torch.bfloat16, 100_000)])
def test_half_precision_rounds_once_and_shards_are_found(tmp_path: Path, dtype: torch.dtype, shard: int | None) -> None:
    base = resolve(make_family("llama3", tmp_path / "base", dtype=dtype, shard=shard), cache=tmp_path / "cache")
    more = {"modules_to_save": ["lm_head"], "trainable_token_indices": ROWS, "use_dora": True}
    made = Case.made(base, tmp_path, {"a": {"target_modules": ["q_proj", "down_proj"], **more}}, _save)
    _soup(made, {"a": 1}).save_model(tmp_path / "out", base=base)
    ours = dict(_model(tmp_path / "out", dtype).named_parameters())
    for path, tensor in made.merged("a").items():
        rounded = tensor.to(dtype).double()
        apart = (ours[path].double() - rounded).norm()
        assert apart <= 0.1 * (rounded - tensor).norm(), path  # where fp32 fell on the other side of a half


@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_a_second_copy_of_a_tied_weight_on_disk_is_no_second_weight(tmp_path: Path, apart: float) -> None:
    """transformers ties the two only where they are equal."""
    folder = make_family("llama3.2-tied", tmp_path / "base")
    tensors = load_file(folder / "model.safetensors")
    copy = tensors["model.embed_tokens.weight"] + apart
    save_file(tensors | {"lm_head.weight": copy}, folder / "model.safetensors", metadata={"format": "pt"})
    base = resolve(folder, cache=tmp_path / "cache")
    one = {"a": {"target_modules": ["q_proj"], "trainable_token_indices": ROWS}}
    if apart:
        with pytest.raises(AdapterError, match=r"lm_head.*other values") as refused:
            Case.made(base, tmp_path, one, _save)
        assert refused.value.reason == "embedding"
        return
    made = Case.made(base, tmp_path, one, _save)
    _soup(made, {"a": 1}).save_model(tmp_path / "out", base=base)
    tuned = _model(tmp_path / "out")
    assert tuned.lm_head.weight is tuned.model.embed_tokens.weight
    exact = made.merged("a")["model.embed_tokens.weight"]
    assert (tuned.lm_head.weight - exact).norm() < 2e-7 * exact.norm()


def test_what_is_told_and_what_a_plain_adapter_cannot_carry(case: Callable[[str], Case], tmp_path: Path) -> None:
    made = case("llama3")
    told = {kind: [note.kind for note in notes] for kind, notes in made.notes.items()}
    saved = {kind: ["unchanged", "whole"] for kind in ("embedding", "tokens-dora")}  # PEFT saves the embedding beside
    assert told == {kind: ["whole"] for kind in KINDS["llama3"]} | {"plain": []} | saved
    for kind, path in {"head": "model.embed_tokens", "module": "input_layernorm", "dora": "mlp.down_proj"}.items():
        with pytest.raises(RecipeError, match=rf"{path}.*--as model") as refused:
            _soup(made, {"plain": 0.5, kind: 0.5}).save_adapter(tmp_path / "out")
        assert refused.value.reason == "whole"
    with pytest.raises(AdapterError, match=r"method factor.*use method delta") as kept:
        merge(made.store, Policy.open(made.store).clamp({"module": 1}), method="factor")
    assert kept.value.reason == "whole"


def test_a_whole_linear_layer_is_a_plain_adapter_of_full_rank(case: Callable[[str], Case], tmp_path: Path) -> None:
    made, soup = case("llama3"), {"output": 1}
    saved = _soup(made, soup).save_adapter(tmp_path / "out")
    assert saved.errors["total"].total < 1e-6
    model = PeftModel.from_pretrained(_model(made.base.folder), tmp_path / "out").double().merge_and_unload()
    exact = made.merged("output")
    for path, parameter in model.named_parameters():
        assert (parameter.data - exact[path]).norm() < 2e-7 * exact[path].norm(), path
    assert _soup(made, soup).save_adapter(tmp_path / "cut", rank=8).errors["truncation"].total > 0.1


def test_a_row_without_it_is_served_and_one_with_it_refused(case: Callable[[str], Case]) -> None:
    made = case("llama3")
    engine, clamp = Engine.load(made.base, made.store, dtype="fp32"), Policy.open(made.store).clamp
    assert engine.adapters.names == ("plain",)
    with pytest.raises(RecipeError, match=r"'dora' changes whole weights.*soupmix merge --as model") as refused:
        engine.logits(IDS, [clamp({"plain": 0.5, "dora": 0.1})])
    assert refused.value.reason == "whole"
    model = _model(made.base.folder)
    model.load_state_dict(
        {name: each.data + made.deltas({"plain": 0.5})[name] for name, each in model.named_parameters()}
    )
    with torch.inference_mode():
        exact = model(IDS).logits.float()
    torch.testing.assert_close(engine.logits(IDS, [clamp({"plain": 0.5, "dora": 0})]), exact, rtol=1e-4, atol=1e-4)


def test_what_a_store_holds_can_be_added_again_to_its_base_and_peft_refuses_it(
    case: Callable[[str], Case], tmp_path: Path
) -> None:
    made, again = case("llama3"), Store(tmp_path / "again", create=True)
    for kind in KINDS["llama3"]:
        again.add(made.store.path(kind), name=kind, dimension=kind, pole=kind, base=made.base)
    assert again.manifest.gram == made.store.manifest.gram
    assert [entry.digest for entry in again] == [entry.digest for entry in made.store]
    other = case("llama3.2-tied")
    with pytest.raises(AdapterError, match="add the adapter that was trained") as refused:
        Store(tmp_path / "other", create=True).add(made.store.path("dora"), dimension="a", pole="a", base=other.base)
    assert refused.value.reason == "wrong-base"
    with pytest.raises(KeyError, match="SOUPMIX"):
        PeftModel.from_pretrained(_model(made.base.folder), made.store.path("dora"))


def test_a_merge_is_verified(case: Callable[[str], Case], tmp_path: Path) -> None:
    made = case("gpt2")
    _soup(made, {"biases": 1, "dora": 0.5}).save_model(tmp_path / "out", base=made.base)
    assert not verify(tmp_path / "out").findings
