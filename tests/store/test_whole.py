"""What an adapter holds beside factors of linear layers, as a store keeps it: tuned minus base, layer by layer."""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from soupmix.base import Base, resolve
from soupmix.errors import AdapterError
from soupmix.findings import Finding
from soupmix.store import Factors, Store
from soupmix.store.deltas import matrix_of
from tests.attacks.on_whole import ATTACKS, whole_base
from tests.support.adapter_folder import adapter
from tests.support.quantised import HIDDEN, quantised_folder

P = "base_model.model."
Q = "model.layers.0.self_attn.q_proj"
EMBEDDING, HEAD, NORM = "model.embed_tokens", "lm_head", "model.norm"


def _random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 0.1


def _pair(module: str, outputs: int, inputs: int, seed: int = 0) -> dict[str, Tensor]:
    A, B = _random(2, inputs, seed=seed), _random(outputs, 2, seed=seed + 1)
    return {f"{P}{module}.lora_A.weight": A, f"{P}{module}.lora_B.weight": B}


def _added(where: Path, base: Base, tensors: Mapping[str, Tensor], **fields: Any) -> tuple[Store, list[Finding]]:
    folder = adapter(where / "adapter", tensors=save(dict(tensors)), **{"target_modules": [Q]} | fields)
    store, notes = Store(where / "store", create=True), list[Finding]()
    store.add(folder, name=f"a{len(store)}", dimension="d", pole="p", base=base, tell=notes.append)
    return store, notes


def _dense(base: Base, path: str, factors: Factors) -> Tensor:
    """The delta as the parameter lies."""
    layer, delta = base.layers()[path], factors.scaling * factors.B.double() @ factors.A.double()
    if factors.gain is not None:
        delta += factors.gain.double()[:, None] * matrix_of(base, layer)
    return (delta.T if layer.transposed else delta).reshape(layer.stored_shape)


def _changes(store: Store, base: Base, name: str = "a0") -> dict[str, Tensor]:
    loaded = Store(store.folder).load(name)
    assert loaded.whole
    return {path: _dense(base, path, factors) for path, factors in loaded.modules.items() if path != Q}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_what_does_not_fit_is_refused_by_name(attack: Any, tmp_path: Path) -> None:
    with pytest.raises(AdapterError) as caught:
        attack.run(tmp_path)
    assert caught.value.reason == attack.reason


BASE = 0.01  # every weight of the base
SHAPES = {EMBEDDING: (4, 8), HEAD: (4, 8), NORM: (8,), "model.layers.0.mlp.up_proj": (8, 8)}


@pytest.mark.parametrize("path", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("rows", ["one", "all"])
def test_a_whole_weight_is_tuned_minus_base(tmp_path: Path, path: str, dtype: torch.dtype, rows: str) -> None:
    base, tuned = whole_base(tied=False), torch.full(SHAPES[path], BASE)
    at = slice(1, 2) if rows == "one" else slice(None)
    tuned[at] += _random(*SHAPES[path])[at]
    tuned = tuned.to(dtype)
    store, notes = _added(tmp_path, base, _pair(Q, 8, 8) | {f"{P}{path}.weight": tuned}, modules_to_save=[path])
    exact = tuned.double() - torch.full(SHAPES[path], BASE).double()
    assert [note.kind for note in notes] == ["whole"]
    torch.testing.assert_close(_changes(store, base), {path: exact}, rtol=1e-7, atol=1e-9)
    if dtype != torch.bfloat16 and rows == "one" and path != NORM:
        assert store.load("a0").modules[path].rank == 1
    assert store["a0"].delta_norm > float(exact.norm())


def test_rows_are_set_to_what_was_trained(tmp_path: Path) -> None:
    base, rows = whole_base(tied=True), _random(2, 8)
    tensors = _pair(Q, 8, 8) | {f"{P}{EMBEDDING}.token_adapter.trainable_tokens_delta": rows}
    store, _ = _added(tmp_path, base, tensors, trainable_token_indices={"embed_tokens": [3, 1], "lm_head": [0]})
    exact = torch.zeros(4, 8).double().index_copy_(0, torch.tensor([3, 1]), rows.double() - torch.tensor(BASE).double())
    torch.testing.assert_close(_changes(store, base), {EMBEDDING: exact}, rtol=1e-7, atol=1e-9)


def test_a_tied_weight_that_is_saved_under_both_names_is_one(tmp_path: Path) -> None:
    base, tuned = whole_base(tied=True), _random(4, 8)
    tensors = _pair(Q, 8, 8) | {f"{P}{EMBEDDING}.weight": tuned, f"{P}{HEAD}.weight": tuned.clone()}
    store, _ = _added(tmp_path, base, tensors, modules_to_save=["embed_tokens"], ensure_weight_tying=True)
    assert list(_changes(store, base)) == [EMBEDDING]


def test_factors_of_an_embedding_are_its_factors(tmp_path: Path) -> None:
    base, A, B = whole_base(tied=False), _random(2, 4), _random(8, 2, seed=1)
    tensors = _pair(Q, 8, 8) | {f"{P}{EMBEDDING}.lora_embedding_A": A, f"{P}{EMBEDDING}.lora_embedding_B": B}
    store, _ = _added(tmp_path, base, tensors, alpha_pattern={"embed_tokens": 6})
    torch.testing.assert_close(
        _changes(store, base), {EMBEDDING: 3 * (B.double() @ A.double()).T}, rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("rslora", [False, True])
def test_lengths_scale_the_whole_output(tmp_path: Path, rslora: bool) -> None:
    base, lengths, tensors = whole_base(tied=False), _random(8, seed=5) + 1, _pair(Q, 8, 8)
    more = {f"{P}{Q}.lora_magnitude_vector": lengths}
    store, _ = _added(tmp_path, base, tensors | more, use_dora=True, use_rslora=rslora)
    W, scaling = torch.full((8, 8), BASE).double(), 4 / 2**0.5 if rslora else 2
    tuned = W + scaling * tensors[f"{P}{Q}.lora_B.weight"].double() @ tensors[f"{P}{Q}.lora_A.weight"].double()
    exact = lengths.double()[:, None] * tuned / tuned.norm(dim=1, keepdim=True) - W
    torch.testing.assert_close(_dense(base, Q, store.load("a0").modules[Q]), exact, rtol=1e-6, atol=1e-7)
    plain = _pair(Q, 8, 8, seed=7)
    store, _ = _added(tmp_path, base, plain)
    other = 2 * plain[f"{P}{Q}.lora_B.weight"].double() @ plain[f"{P}{Q}.lora_A.weight"].double()
    assert store["a0"].delta_norm == pytest.approx(float(exact.norm()), rel=1e-6)
    assert store.inner_product("a0", "a1") == pytest.approx(float((exact * other).sum()), rel=1e-5, abs=1e-7)


@pytest.fixture(scope="module")
def gpt2(family_base: Callable[[str], Base]) -> Base:
    return family_base("gpt2")


def test_biases_add_up(gpt2: Base, tmp_path: Path) -> None:
    path = "transformer.h.0.attn.c_attn"
    own = load_file(gpt2.folder / "model.safetensors")[f"{path}.bias"]
    tuned, more = own + _random(192), _random(192, seed=3)
    tensors = _pair(path, 192, 64) | {f"{P}{path}.base_layer.bias": tuned, f"{P}{path}.lora_B.bias": more}
    store, notes = _added(tmp_path, gpt2, tensors, bias="lora_only", lora_bias=True, target_modules=[path])
    exact = tuned.double() - own.double() + 2 * more.double()
    changes = _changes(store, gpt2)
    torch.testing.assert_close(changes[f"{path}.bias"], exact, rtol=1e-6, atol=1e-7)
    assert [note.kind for note in notes] == ["whole"]


def test_a_matrix_that_changed_everywhere_is_the_identity_beside_it(gpt2: Base, tmp_path: Path) -> None:
    path, name = "transformer.h.0.attn.c_attn", "transformer.wpe"
    own = load_file(gpt2.folder / "model.safetensors")[f"{name}.weight"]
    tuned = own + _random(*own.shape)
    store, _ = _added(tmp_path, gpt2, _pair(path, 192, 64) | {f"{P}{name}.weight": tuned}, target_modules=[path])
    torch.testing.assert_close(_changes(store, gpt2)[name], tuned.double() - own.double(), rtol=1e-7, atol=1e-9)
    assert store.load("a0").modules[name].rank == 64


def test_a_bias_of_factors_that_the_config_denies_is_refused(gpt2: Base, tmp_path: Path) -> None:
    path = "transformer.h.0.attn.c_attn"
    with pytest.raises(AdapterError, match="lora_bias = False") as caught:
        _added(tmp_path, gpt2, _pair(path, 192, 64) | {f"{P}{path}.lora_B.bias": _random(192)})
    assert caught.value.reason == "bad-config"


def test_rows_of_a_tied_head_are_refused(tmp_path: Path) -> None:
    tensors = _pair(Q, 8, 8) | {f"{P}{HEAD}.token_adapter.trainable_tokens_delta": _random(1, 8)}
    with pytest.raises(AdapterError, match="tie_word_embeddings") as caught:
        _added(tmp_path, whole_base(tied=True), tensors, trainable_token_indices={"lm_head": [1]})
    assert caught.value.reason == "embedding"


def test_two_values_on_disk_for_a_tied_weight_are_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(whole_base(tied=True).folder, tmp_path / "base")
    held = load_file(folder / "model.safetensors")
    save_file(held | {"lm_head.weight": _random(4, 8)}, folder / "model.safetensors")
    base = resolve(folder, cache=tmp_path / "cache")
    tensors = _pair(Q, 8, 8) | {f"{P}{EMBEDDING}.token_adapter.trainable_tokens_delta": _random(1, 8)}
    with pytest.raises(AdapterError, match=r"lm_head.*other values") as caught:
        _added(tmp_path, base, tensors, trainable_token_indices=[1])
    assert caught.value.reason == "embedding"


def test_experts_are_refused_as_wholes(family_base: Callable[[str], Base], tmp_path: Path) -> None:
    base = family_base("mixtral")
    path = "model.layers.0.mlp.experts.down_proj"
    tensors = _pair(Q, 64, 64) | {f"{P}{path}": torch.zeros(base.layers()[path].stored_shape)}
    with pytest.raises(AdapterError, match="merge_and_unload") as caught:
        _added(tmp_path, base, tensors)
    assert caught.value.reason == "in-pieces"


def test_what_is_equal_to_the_base_is_left_out(tmp_path: Path) -> None:
    base = whole_base(tied=False)
    tensors = _pair(Q, 8, 8) | {f"{P}{NORM}.weight": torch.full((8,), BASE)}
    store, notes = _added(tmp_path, base, tensors, modules_to_save=["norm", "lm_head"])
    assert (list(store.load("a0").modules), store.load("a0").whole) == ([Q], False)
    assert [note.kind for note in notes] == ["unchanged", "no-factors"]
    assert "'lm_head'" in notes[1].message


def test_a_matrix_for_a_vector_of_the_base_is_refused(tmp_path: Path) -> None:
    tensors = _pair(Q, 8, 8) | {f"{P}{NORM}.weight": _random(2, 8)}
    with pytest.raises(AdapterError, match="of the base it must be") as caught:
        _added(tmp_path, whole_base(tied=False), tensors, modules_to_save=["norm"])
    assert caught.value.reason == "wrong-base"


def test_a_quantised_base_has_no_weights_to_differ_from(tmp_path: Path) -> None:
    base = resolve(quantised_folder(tmp_path / "base", "fp8"), cache=tmp_path / "cache")
    tensors = _pair(Q, HIDDEN, HIDDEN) | {f"{P}{NORM}.weight": torch.ones(HIDDEN)}
    with pytest.raises(AdapterError, match="as it was before it was quantised") as caught:
        _added(tmp_path, base, tensors)
    assert caught.value.reason == "quantised"


def _own(base: Base, where: Path, tensors: Mapping[str, Tensor], module: str, outputs: int) -> str:
    """The reason why a store does not believe that another has written this."""
    held = {**tensors, f"{P}{module}.gain": _random(outputs)}
    with pytest.raises(AdapterError) as caught:
        _added(where, base, held, peft_type="SOUPMIX", base_digest=base.digest, kinds={})
    return caught.value.reason


def test_gains_in_the_form_of_a_store_are_of_weights_that_the_base_has(
    family_base: Callable[[str], Base], tmp_path: Path
) -> None:
    base = family_base("mixtral")
    expert = "model.layers.0.mlp.experts.down_proj"
    outputs, inputs = base.layers()[expert].shape
    tensors = _pair(f"{expert}[0]", outputs, inputs)
    assert _own(base, tmp_path, tensors, f"{expert}[0]", outputs) == "wrong-base"
    base = resolve(quantised_folder(tmp_path / "fp8", "fp8"), cache=tmp_path / "cache")
    assert _own(base, tmp_path, _pair(Q, HIDDEN, HIDDEN), Q, HIDDEN) == "wrong-base"


def test_what_is_larger_than_a_store_reads_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("soupmix.store.foreign.MAX_BYTES", (1 << 22) + 100)
    with pytest.raises(AdapterError, match="adapters extract") as caught:
        _added(tmp_path, whole_base(tied=False), _pair(Q, 8, 8) | {f"{P}{NORM}.weight": _random(8)})
    assert caught.value.reason == "too-large"
