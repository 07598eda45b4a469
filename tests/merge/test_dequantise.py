"""Load time over quantised bases: adapters as always, a full model only when asked, exact over what transformers dequantises."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GPT2Config, GPT2LMHeadModel

from soupmix.base import Base, cache, resolve
from soupmix.base.dequantise import dequantise
from soupmix.errors import BaseModelError, PolicyError
from soupmix.merge import Soup, merge, verify
from soupmix.policy import Grant, Policy
from soupmix.policy.documents import Document
from soupmix.store.store import Store
from tests.support.quantised import PACKAGES, quantised_folder

IDS = torch.randint(5, 200, (2, 9), generator=torch.Generator().manual_seed(0))
KINDS = ("nf4-nested", "int8", "torchao-int8", "fp8")
"""One of each way to make weights plain; that takes some seconds."""


@dataclass(frozen=True)
class Case:
    kind: str
    base: Base
    store: Store
    adapters: Mapping[str, Path]

    @property
    def soup(self) -> Soup:
        return merge(self.store, Policy.open(self.store).clamp({"calm": 0.5, "loud": 0.75}))


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, session_cache: Path, tiny_adapter: Callable[..., Path]
) -> Callable[[str], Case]:
    cases: dict[str, Case] = {}

    def make(kind: str) -> Case:
        if package := PACKAGES[kind]:
            pytest.importorskip(package)
        if kind not in cases:
            where = tmp_path_factory.mktemp(kind)
            base = resolve(quantised_folder(where / "base", kind), cache=session_cache)
            plain, store = resolve(where / "plain", cache=session_cache), Store(where / "store", create=True)
            targets = {"calm": ("q_proj", "down_proj"), "loud": ("q_proj", "v_proj", "up_proj")}
            adapters = {name: tiny_adapter(base=plain, targets=each) for name, each in targets.items()}
            for name, folder in adapters.items():
                store.add(folder, dimension=name, pole=name, base=base)
            cases[kind] = Case(kind, base, store, adapters)
        return cases[kind]

    return make


@pytest.fixture(autouse=True)
def _cache(monkeypatch: pytest.MonkeyPatch, session_cache: Path) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: tensor for path in sorted(folder.glob("*.safetensors")) for name, tensor in load_file(path).items()}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dequantise in this process: another one takes seconds to import transformers."""

    def run(program: str, source: Path, folder: Path) -> str:
        assert program == "soupmix.base.dequantise"
        dequantise(source, folder)
        return ""

    monkeypatch.setattr(cache, "_run", run)


def by_transformers(case: Case) -> dict[str, Tensor]:
    """What the weights stand for, by the quantiser itself, in the model's dtype."""
    how = {} if case.kind == "fp8" else {"device_map": {"": "cpu"}}
    model = AutoModelForCausalLM.from_pretrained(case.base.folder, dtype="auto", **how)
    if case.kind.startswith("torchao"):
        packed = {name: each for name, each in model.state_dict().items() if type(each) is not Tensor}
        return dict(model.state_dict()) | {name: each.dequantize() for name, each in packed.items()}
    return dict((model if case.kind == "fp8" else model.dequantize()).state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_a_full_model_needs_to_be_asked_for(kind: str, made: Callable[[str], Case], tmp_path: Path) -> None:
    case = made(kind)
    name = case.base.quantisation.name if case.base.quantisation else ""
    with pytest.raises(BaseModelError, match=rf"is quantised \({name}\).*--dequantise") as found:
        case.soup.save_model(tmp_path / "out", base=case.base)
    assert found.value.reason == "quantised"
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("dtype", [None, "fp32"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_plain_model_is_the_dequantised_base_and_the_deltas_rounded_once(
    kind: str, dtype: str | None, made: Callable[[str], Case], tmp_path: Path
) -> None:
    case = made(kind)
    soup = case.soup
    soup.save_model(tmp_path / "out", base=case.base, dtype=dtype, dequantise=True)
    written, before = tensors(tmp_path / "out"), by_transformers(case)
    target = torch.float32 if dtype else torch.bfloat16
    assert written.keys() == before.keys()
    for name, tensor in written.items():
        assert tensor.dtype == target
        path = name.removesuffix(".weight")
        if path not in soup.modules:
            assert torch.equal(tensor, before[name].to(target)), name
            continue
        stack = soup.modules[path]
        exact = before[name].double() + stack.scaled() @ stack.A.double()
        nearest = (exact.to(target).double() - exact).abs()
        assert ((tensor.double() - exact).abs() <= nearest + 4e-7 * exact.abs().max()).all()
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == str(target).removeprefix("torch.")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in written.items())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("how", [{"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, {"load_in_8bit": True}])
def test_weights_are_the_way_round_that_the_config_asks_for(
    how: Mapping[str, Any], session_cache: Path, tmp_path: Path
) -> None:
    """bitsandbytes makes linear layers of GPT-2's, and a square one that lies wrong would fit all the same."""
    pytest.importorskip("bitsandbytes")
    config = GPT2Config(vocab_size=64, n_embd=64, n_layer=1, n_head=4, n_positions=32, bos_token_id=1, eos_token_id=1)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "plain")
    kind = {"quantization_config": BitsAndBytesConfig(**how), "device_map": {"": "cpu"}}
    AutoModelForCausalLM.from_pretrained(tmp_path / "plain", **kind).save_pretrained(tmp_path / "base")
    made = resolve(tmp_path / "base", cache=session_cache).dequantised()
    before = tensors(tmp_path / "plain")
    for name, tensor in tensors(made.folder).items():
        assert (tensor - before[name]).norm() <= 0.15 * before[name].norm(), name


def test_records_say_it_and_it_can_be_repeated(made: Callable[[str], Case], tmp_path: Path) -> None:
    case = made("fp8")
    beside = case.base.folder / "quantize_config.json"  # as AutoGPTQ and others lay it there
    beside.write_text('{"bits": 8}')
    saved = case.soup.save_model(tmp_path / "out", base=case.base, dequantise=True)
    assert beside.name not in saved.digests, "a plain model would be taken for a quantised one"
    recipe = yaml.safe_load((tmp_path / "out/soupmix_recipe.yaml").read_text())
    assert recipe["dequantise"] is True
    assert recipe["record"]["inputs"]["base dequantised"] == case.base.dequantised().digest
    assert recipe["record"]["inputs"]["base"] == case.base.digest
    assert "quantised weights of the base (FP8) made plain" in (tmp_path / "out/README.md").read_text()
    assert saved.identity == case.soup.identity(base_digest=case.base.digest, dtype="base dequantised")
    assert saved.identity != case.soup.identity(base_digest=case.base.digest, dtype="base")
    assert verify(tmp_path / "out").ok
    (tmp_path / "out/soupmix_recipe.yaml").write_text(
        (tmp_path / "out/soupmix_recipe.yaml").read_text().replace("dequantise: true\n", "")
    )
    assert not verify(tmp_path / "out").ok


def test_an_adapter_is_exported_as_of_any_base(made: Callable[[str], Case], tmp_path: Path) -> None:
    case = made("fp8")
    case.soup.save_adapter(tmp_path / "out")
    assert verify(tmp_path / "out").ok
    plain = Store(tmp_path / "store", create=True)
    for name, folder in case.adapters.items():
        plain.add(folder, dimension=name, pole=name, base=resolve(case.base.folder.with_name("plain")))
    merge(plain, Policy.open(plain).clamp({"calm": 0.5, "loud": 0.75})).save_adapter(tmp_path / "again")
    one, two = (tensors(tmp_path / each) for each in ("out", "again"))
    assert one.keys() == two.keys()
    for name in (each for each in one if ".lora_A." in each):  # adapters stand in the order of their digests
        other = name.replace(".lora_A.", ".lora_B.")
        torch.testing.assert_close(one[other] @ one[name], two[other] @ two[name])


def test_a_plain_base_is_not_dequantised(
    three: Store, grant: Callable[..., Grant], tiny_base: Base, tmp_path: Path
) -> None:
    with pytest.raises(BaseModelError, match="is not quantised") as found:
        merge(three, grant(three)).save_model(tmp_path / "out", base=tiny_base, dequantise=True)
    assert found.value.reason == "not-quantised"


def test_a_rule_on_the_norm_is_refused_where_it_was_not_measured(made: Callable[[str], Case]) -> None:
    case = made("fp8")
    rules = [{"rule": "norm", "at_most": "0.5"}]
    document = {"tier": "organisation", "issuer": "acme", "version": "1", "rules": rules}
    with pytest.raises(PolicyError, match="of a base that is not quantised") as found:
        Policy.assemble([("acme.yaml", Document.model_validate(document))], case.store).clamp({})
    assert found.value.reason == "no-norms"


@pytest.mark.slow
def test_what_cannot_be_made_plain_is_refused_with_what_transformers_says(
    made: Callable[[str], Case], session_cache: Path, tmp_path: Path
) -> None:
    case = made("fp8")
    config = json.loads((case.base.folder / "config.json").read_text())
    folder = tmp_path / "base"
    folder.mkdir()
    for each in case.base.folder.iterdir():
        (folder / each.name).write_bytes(each.read_bytes())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "aqlm"}}))
    base = resolve(folder, cache=session_cache)
    with pytest.raises(BaseModelError, match=r"cannot be dequantised: .*aqlm") as found:
        base.dequantised()
    assert found.value.reason == "conversion-failed"


def test_the_command_asks_for_it_too(
    made: Callable[[str], Case], run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    case = made("fp8")
    asked = ("merge", "-w", "calm=0.5", "--store", case.store.folder, "--base", case.base.folder, "--as", "model")
    code, _, told = run(*asked, tmp_path / "out")
    assert code == 1
    assert "is quantised (FP8)" in told
    code, _, told = run(*asked, "--dequantise", tmp_path / "out")
    assert code == 0, told
    code, _, told = run("merge", "-w", "calm=0.5", "--dequantise", "--store", case.store.folder, tmp_path / "other")
    assert code != 0
    assert "dequantise is for a model" in told
