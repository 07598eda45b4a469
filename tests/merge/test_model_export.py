"""Full models: bit for bit where nothing changes, rounded once where something does."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from soupmix.base import Base, resolve
from soupmix.errors import BaseModelError, OutputError, RecipeError
from soupmix.merge import Soup, merge, read_recipe
from soupmix.policy import Grant
from soupmix.store.store import Store

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def all_tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


def recast(base: Base, folder: Path, dtype: torch.dtype) -> Base:
    """A base in another dtype; the tensors are written by safetensors itself."""
    shutil.copytree(base.folder, folder)
    tensors = {name: tensor.to(dtype) for name, tensor in all_tensors(base.folder).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"dtype": str(dtype).removeprefix("torch.")}))
    return resolve(folder, cache=folder.parent / "cache")


def exact(soup: Soup, base: Base) -> dict[str, Tensor]:
    """W + delta in float64 for the touched tensors."""
    tensors = all_tensors(base.folder)
    return {
        f"{path}.weight": tensors[f"{path}.weight"].double() + stack.scaled() @ stack.A.double()
        for path, stack in soup.modules.items()
    }


def test_nothing_granted_is_the_base_bit_for_bit(
    three: Store, grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    merge(three, grant(three, friendly=0)).save_model(tmp_path / "out", base=tiny_base)
    made, before = all_tensors(tmp_path / "out"), all_tensors(tiny_base.folder)
    assert made.keys() == before.keys()
    assert all(torch.equal(made[name].view(torch.uint8), before[name].view(torch.uint8)) for name in before)
    for name in (
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ):
        assert (tmp_path / "out" / name).read_bytes() == (tiny_base.folder / name).read_bytes()


@pytest.mark.parametrize("written", [None, *DTYPES])
@pytest.mark.parametrize("held", DTYPES)
def test_every_touched_tensor_is_rounded_once(
    held: str,
    written: str | None,
    tiny_base: Base,
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    folders: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    base = recast(tiny_base, tmp_path / "base", DTYPES[held])
    store = make_store(folders, base)
    soup = merge(store, grant(store, friendly=0.5, concise=0.9))
    saved = soup.save_model(tmp_path / "out", base=base, dtype=written)
    dtype = DTYPES[written or held]
    made, before = all_tensors(tmp_path / "out"), all_tensors(base.folder)
    targets = exact(soup, base)
    apart, whole = 0.0, 0.0
    for name, tensor in made.items():
        assert tensor.dtype == dtype
        if name not in targets:
            assert torch.equal(tensor, before[name].to(dtype))
            continue
        target, delta = targets[name], targets[name] - before[name].double()
        # fp32 accumulation may cross a rounding boundary: then it is the neighbour, hardly further away.
        nearest = (target.to(dtype).double() - target).abs()
        noise = 4e-7 * target.abs().max()
        assert ((tensor.double() - target).abs() <= nearest + noise).all()
        assert (tensor == target.to(dtype)).double().mean() > (0.3 if dtype == torch.float32 else 0.99)
        apart, whole = apart + float((tensor.double() - target).square().sum()), whole + float(delta.square().sum())
    lost = saved.errors["rounding_loss"]
    assert lost.total == pytest.approx((apart / whole) ** 0.5, rel=1e-2, abs=2e-6)
    assert set(lost.modules) == set(soup.modules)
    loud = [each for each in saved.warnings if "--dtype fp32" in each and f"lost {lost.total:.0%} of the delta" in each]
    assert bool(loud) == (lost.total > 0.05)
    assert all(each in (tmp_path / "out" / "README.md").read_text() for each in loud)
    recorded = read_recipe(tmp_path / "out" / "soupmix_recipe.yaml").record
    assert recorded is not None
    assert tuple(saved.warnings) == recorded.warnings
    assert json.loads((tmp_path / "out/config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("size", [1, 20_000, 60_000])
def test_sharded_is_unsharded(size: int, soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    soup.save_model(tmp_path / "one", base=tiny_base)
    soup.save_model(tmp_path / "many", base=tiny_base, shard_size=size)
    one, many = all_tensors(tmp_path / "one"), all_tensors(tmp_path / "many")
    assert one.keys() == many.keys()
    assert all(torch.equal(one[name], many[name]) for name in one)
    index = json.loads((tmp_path / "many/model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in one.values())
    files = sorted(path.name for path in (tmp_path / "many").glob("*.safetensors"))
    assert sorted(set(index["weight_map"].values())) == files
    assert len(files) > 1
    for name in files:
        with safe_open(tmp_path / "many" / name, "pt") as file:
            keys = file.keys()
            assert {index["weight_map"][key] for key in keys} == {name}
            assert len(keys) == 1 or sum(file.get_tensor(key).nbytes for key in keys) <= size
            assert file.metadata() == {"format": "pt"}
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "many").state_dict()
    assert all(torch.equal(loaded[name], one[name]) for name in one)


def test_a_sharded_base_gives_the_same_model(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    AutoModelForCausalLM.from_pretrained(tiny_base.folder).save_pretrained(tmp_path / "base", max_shard_size="20KB")
    assert len(list((tmp_path / "base").glob("*.safetensors"))) > 1
    base = resolve(tmp_path / "base", cache=tmp_path / "cache")
    assert base.digest == tiny_base.digest
    soup.save_model(tmp_path / "one", base=tiny_base)
    soup.save_model(tmp_path / "two", base=base)
    one, two = all_tensors(tmp_path / "one"), all_tensors(tmp_path / "two")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert one.keys() == two.keys()


def test_tied_embeddings_are_written_once(
    tiny_base: Base,
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    folders: Mapping[str, Path],
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny_base.folder, tmp_path / "base")
    tensors = all_tensors(tiny_base.folder)
    twice = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
    save_file(twice, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    base = resolve(tmp_path / "base", cache=tmp_path / "cache")
    store = make_store(folders, base)
    merge(store, grant(store, friendly=1)).save_model(tmp_path / "out", base=base)
    assert all_tensors(tmp_path / "out").keys() == tensors.keys()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()


def test_the_tokenizer_comes_along(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    soup.save_model(tmp_path / "out", base=tiny_base)
    chat = [{"role": "user", "content": "hello"}]
    ours, theirs = (AutoTokenizer.from_pretrained(folder) for folder in (tmp_path / "out", tiny_base.folder))
    assert ours.apply_chat_template(chat, tokenize=False) == theirs.apply_chat_template(chat, tokenize=False)
    assert ours("hello there")["input_ids"] == theirs("hello there")["input_ids"]


def test_the_base_is_never_written(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in tiny_base.folder.iterdir()}
    soup.save_model(tmp_path / "out", base=tiny_base)
    assert before == {path.name: path.read_bytes() for path in tiny_base.folder.iterdir()}


def test_fp16_overflow_is_an_error_and_leaves_nothing(
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    tiny_adapter: Callable[..., Path],
    tiny_base: Base,
    tmp_path: Path,
) -> None:
    store = make_store({"loud": tiny_adapter(seed=1, scale=400.0)})
    soup = merge(store, grant(store, loud=1))
    with pytest.raises(OutputError, match="do not fit F16") as caught:
        soup.save_model(tmp_path / "out", base=tiny_base, dtype="fp16")
    assert caught.value.reason == "overflow"
    soup.save_model(tmp_path / "fine", base=tiny_base, dtype="bf16")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fine", "store"]


def test_an_untouched_tensor_beyond_fp16_is_an_error_too(
    three: Store, grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base.folder, tmp_path / "base")
    tensors = all_tensors(tiny_base.folder)
    tensors["model.norm.weight"][3] = 1e6
    save_file(tensors, tmp_path / "base/model.safetensors", metadata={"format": "pt"})
    base = resolve(tmp_path / "base", cache=tmp_path / "cache")
    with pytest.raises(OutputError, match=r"model\.norm\.weight .* F16"):
        merge(three, grant(three)).save_model(tmp_path / "out", base=base, dtype="fp16")


def test_another_base_is_refused_naming_both(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    other = recast(tiny_base, tmp_path / "other", torch.bfloat16)
    with pytest.raises(BaseModelError) as caught:
        soup.save_model(tmp_path / "out", base=other)
    assert caught.value.reason == "wrong-base"
    assert tiny_base.digest in str(caught.value)
    assert other.digest in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_quantised_base_is_refused(
    three: Store, grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    shutil.copytree(tiny_base.folder, tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    (tmp_path / "base/config.json").write_text(json.dumps(config | {"quantization_config": {"bits": 4}}))
    base = resolve(tmp_path / "base", cache=tmp_path / "cache")
    with pytest.raises(BaseModelError, match="quantised"):
        merge(three, grant(three)).save_model(tmp_path / "out", base=base)


def test_a_bad_shard_size_is_refused(soup: Soup, tiny_base: Base, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="shard size 0"):
        soup.save_model(tmp_path / "out", base=tiny_base, shard_size=0)
