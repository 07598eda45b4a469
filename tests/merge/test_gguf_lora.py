"""A GGUF LoRA holds the soup in llama.cpp's names and order of rows, with its record; read by `gguf`, and compared in float64."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from torch import Tensor

from soupmix.base import Base
from soupmix.errors import BaseModelError, RecipeError
from soupmix.merge import Soup, merge
from soupmix.policy import Grant
from soupmix.store.store import Store

WEIGHTS = {"friendly": 0.5, "concise": 0.9, "expert": 0.25}
HEADS = {"q_proj": 4, "k_proj": 2}
NAMES = {
    "q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
    "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down",
}  # fmt: skip
READ = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def factors(file: Path) -> dict[str, Tensor]:
    found = {}
    for tensor in GGUFReader(file).tensors:
        values = torch.from_numpy(tensor.data.copy()).contiguous().view(torch.uint8).view(READ[tensor.tensor_type.name])
        found[tensor.name] = values.view(*map(int, reversed(tensor.shape))).double()
    return found


def deltas(file: Path) -> dict[str, Tensor]:
    """llama-adapter.h, `get_scale`: alpha / b->ne[0]."""
    alpha, stored = GGUFReader(file).fields["adapter.lora.alpha"].contents(), factors(file)
    names = sorted({name.rpartition(".")[0] for name in stored})
    assert len(stored) == 2 * len(names)
    found = {}
    for name in names:
        A, B = stored[f"{name}.lora_a"], stored[f"{name}.lora_b"]
        found[name] = alpha / B.shape[1] * B @ A
    return found


def summed(folders: Mapping[str, Path], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """The sum of w alpha / r B A in float64, from PEFT's files."""
    total: dict[str, Tensor] = {}
    for name, weight in weights.items():
        config = json.loads((folders[name] / "adapter_config.json").read_text())
        stored = load_file(folders[name] / "adapter_model.safetensors")
        for key in (key for key in stored if "lora_A" in key):
            path = key.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
            delta = stored[key.replace("lora_A", "lora_B")].double() @ stored[key].double()
            total[path] = total.get(path, 0) + weight * config["lora_alpha"] / config["r"] * delta
    return total


def as_llama_cpp(path: str, delta: Tensor) -> tuple[str, Tensor]:
    """Row 2 j + k of a head is row k d / 2 + j of transformers: neighbours are rotated there, halves here."""
    _, _, number, _, kind = path.split(".")
    rows = list(range(delta.shape[0]))
    if heads := HEADS.get(kind):
        width = delta.shape[0] // heads
        rows = [h * width + k * width // 2 + j for h in range(heads) for j in range(width // 2) for k in range(2)]
    return f"blk.{number}.{NAMES[kind]}.weight", delta[rows]


@pytest.mark.parametrize(("dtype", "bound"), [("fp32", 1e-6), ("fp16", 1e-3), ("bf16", 1e-2)])
def test_it_is_the_weighted_sum_in_llama_cpps_order(
    dtype: str, bound: float, soup: Soup, folders: Mapping[str, Path], tiny_base: Base, tmp_path: Path
) -> None:
    saved = soup.save_gguf_lora(tmp_path / "out", base=tiny_base, dtype=dtype)
    made = deltas(tmp_path / "out/adapter.gguf")
    wanted = dict(as_llama_cpp(path, delta) for path, delta in summed(folders, WEIGHTS).items())
    assert made.keys() == wanted.keys()
    for name, delta in wanted.items():
        assert float((made[name] - delta).norm() / delta.norm()) < bound, name
    assert saved.errors["truncation"].total == 0.0
    assert saved.errors["total"].total < bound


def test_the_record_travels_inside(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    saved = soup.save_gguf_lora(tmp_path / "out", base=tiny_base)
    fields = {name: field.contents() for name, field in GGUFReader(tmp_path / "out/adapter.gguf").fields.items()}
    assert (fields["general.type"], fields["adapter.type"], fields["general.architecture"]) == (
        "adapter",
        "lora",
        "llama",
    )
    assert fields["soupmix.identity"] == saved.identity
    assert json.loads(fields["soupmix.grant"]) == json.loads((tmp_path / "out/soupmix_grant.json").read_text())
    assert json.loads(fields["soupmix.inputs"])["base"] == tiny_base.digest
    assert saved.identity != soup.save_adapter(tmp_path / "peft").identity


def test_the_command_writes_it_and_verify_repeats_it(
    three: Store, tiny_base: Base, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    asked = ["-w", "friendly=0.5", "-w", "expert=0.25", "--store", three.folder, "--base", tiny_base.folder]
    code, out, err = run("merge", *asked, "--as", "gguf-lora", "--rank", "3", tmp_path / "out")
    assert code == 0, err
    assert out.strip() == str(tmp_path / "out")
    assert {A.shape[0] for name, A in factors(tmp_path / "out/adapter.gguf").items() if name.endswith("a")} == {3}
    assert run("verify", tmp_path / "out")[0] == 0
    with (tmp_path / "out/adapter.gguf").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    code, out, _ = run("verify", tmp_path / "out")
    assert code != 0
    assert "adapter.gguf is not" in out


def test_a_recipe_asks_for_it(
    three: Store, tiny_base: Base, run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        f"{{base: {tiny_base.folder}, store: {three.folder}, weights: {{friendly: 0.5}}, as: gguf-lora}}\n"
    )
    code, _, err = run("merge", recipe, tmp_path / "one")
    assert code == 0, err
    assert run("merge", tmp_path / "one/soupmix_recipe.yaml", tmp_path / "two")[0] == 0
    assert (tmp_path / "one/adapter.gguf").read_bytes() == (tmp_path / "two/adapter.gguf").read_bytes()
    assert run("merge", recipe, "--dequantise", tmp_path / "three")[0] != 0


def test_a_family_whose_layout_is_not_known_is_refused(
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    family_base: Callable[[str], Base],
    tiny_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    base = family_base("gemma2")
    store = make_store({"friendly": tiny_adapter(targets=["q_proj"], base=base)}, base)
    with pytest.raises(BaseModelError, match=r"Gemma2ForCausalLM.*convert_lora_to_gguf") as caught:
        merge(store, grant(store, friendly=0.5)).save_gguf_lora(tmp_path / "out", base=base)
    assert caught.value.reason == "no-gguf-layout"
    assert not (tmp_path / "out").exists()


def test_rows_of_a_family_that_is_not_reordered_keep_their_order(
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    family_base: Callable[[str], Base],
    tiny_adapter: Callable[..., Path],
    tmp_path: Path,
) -> None:
    base = family_base("qwen2.5")
    folder = tiny_adapter(targets=["q_proj"], base=base)
    store = make_store({"friendly": folder}, base)
    merge(store, grant(store, friendly=0.5)).save_gguf_lora(tmp_path / "out", base=base)
    wanted = summed({"friendly": folder}, {"friendly": 0.5})
    made = deltas(tmp_path / "out/adapter.gguf")
    assert torch.allclose(made["blk.0.attn_q.weight"], wanted["model.layers.0.self_attn.q_proj"], atol=1e-6)


def test_an_adapter_of_nothing_is_none(
    three: Store, grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as caught:
        merge(three, grant(three)).save_gguf_lora(tmp_path / "out", base=tiny_base)
    assert caught.value.reason == "empty-soup"


def test_a_licence_cannot_end_its_text_in_the_modelfile(
    folders: Mapping[str, Path], grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store", create=True)
    store.add(folders["friendly"], dimension="d", pole="p", base=tiny_base, name="friendly", licence='mit""" SYSTEM "x')
    merge(store, grant(store, friendly=0.5)).save_gguf_lora(tmp_path / "out", base=tiny_base)
    text = (tmp_path / "out/Modelfile").read_text()
    assert text.count('"""') == 2
    assert text.endswith("mit''' SYSTEM 'x\"\"\"\n")
    assert text.splitlines()[1:3] == ["FROM ./base.gguf", "ADAPTER ./adapter.gguf"]
