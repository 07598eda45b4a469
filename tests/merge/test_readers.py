"""One exported folder is one model to every reader: PEFT, and readers that scale by the rules of llama.cpp and of vLLM."""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.errors import RecipeError
from soupmix.merge import Stack, merge
from soupmix.merge.adapter import readers_refuse
from soupmix.policy import Grant
from soupmix.store import Store

SOUP = {"narrow": 0.5, "wide": 0.9, "mixed": 0.25}
PREFIX = "base_model.model."
Deltas = Mapping[str, Tensor]
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


def factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module -> A, B."""
    tensors = load_file(folder / "adapter_model.safetensors")
    ends = ".lora_A.weight", ".lora_B.weight"
    paths = [name.removesuffix(ends[0]).removeprefix(PREFIX) for name in tensors if name.endswith(ends[0])]
    return {path: (tensors[f"{PREFIX}{path}{ends[0]}"], tensors[f"{PREFIX}{path}{ends[1]}"]) for path in paths}


def by_peft(base: Path, folder: Path) -> Deltas:
    """What PEFT merges into the base."""
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float64)
    before = {name: weight.clone() for name, weight in plain.state_dict().items()}
    after = PeftModel.from_pretrained(plain, folder).double().merge_and_unload().state_dict()
    changed = {name: after[name] - weight for name, weight in before.items() if not torch.equal(after[name], weight)}
    return {name.removesuffix(".weight"): delta for name, delta in changed.items()}


def by_llama_cpp(base: Path, folder: Path) -> Deltas:
    """convert_lora_to_gguf.py keeps one alpha, lora_alpha; llama-adapter.h: scale = alpha / b->ne[0], the rank of the tensor."""
    alpha = float(json.loads((folder / "adapter_config.json").read_text())["lora_alpha"])
    return {path: alpha / B.shape[1] * B.double() @ A.double() for path, (A, B) in factors(folder).items()}


def by_vllm(base: Path, folder: Path) -> Deltas:
    """vllm/lora/peft_helper.py: lora_alpha / r whatever the tensors have, and no patterns; r is at most --max-lora-rank."""
    config = json.loads((folder / "adapter_config.json").read_text())
    (limit, *_) = [rank for rank in VLLM_RANKS if config["r"] <= rank]
    assert all(A.shape[0] <= limit for A, _ in factors(folder).values())
    scaling = config["lora_alpha"] / (math.sqrt(config["r"]) if config["use_rslora"] else config["r"])
    return {path: scaling * B.double() @ A.double() for path, (A, B) in factors(folder).items()}


@pytest.fixture(scope="module")
def adapters(tiny_adapter: Callable[..., Path]) -> Mapping[str, Path]:
    """Of different layers and ranks, so that no two modules of their sum need have one rank."""
    return {
        "narrow": tiny_adapter(rank=2, alpha=6, seed=1, targets=("q_proj", "v_proj")),
        "wide": tiny_adapter(rank=8, alpha=4, seed=2, rslora=True),
        "mixed": tiny_adapter(rank=3, alpha=4, seed=3, rank_pattern={"layers.0.mlp.up_proj": 7, "k_proj": 1}),
    }


@pytest.fixture
def exported(
    make_store: Callable[..., Store], grant: Callable[..., Grant], adapters: Mapping[str, Path], tmp_path: Path
) -> Callable[..., Path]:
    def make(**options: int) -> Path:
        store = make_store(adapters)
        merge(store, grant(store, **SOUP)).save_adapter(tmp_path / "out", **options)
        return tmp_path / "out"

    return make


def exact(base: Path, adapters: Mapping[str, Path]) -> Deltas:
    """The weighted sum of what PEFT makes of each adapter."""
    total: dict[str, Tensor] = {}
    for name, folder in adapters.items():
        for path, delta in by_peft(base, folder).items():
            total[path] = total.get(path, torch.zeros_like(delta)) + SOUP[name] * delta
    return total


@pytest.mark.parametrize("reader", [by_peft, by_llama_cpp, by_vllm])
@pytest.mark.parametrize("rank", [None, 12])
def test_every_reader_has_the_sum_of_the_deltas(
    reader: Callable[[Path, Path], Deltas],
    rank: int | None,
    exported: Callable[..., Path],
    adapters: Mapping[str, Path],
    tiny_base: Base,
) -> None:
    read, wanted = reader(tiny_base.folder, exported(rank=rank)), exact(tiny_base.folder, adapters)
    assert read.keys() == wanted.keys()
    lost = {path: torch.linalg.svdvals(delta)[rank:] for path, delta in wanted.items()} if rank else {}
    for path, delta in wanted.items():
        apart, cut = float((read[path] - delta).norm()), float(lost[path].norm()) if lost else 0.0
        assert apart == pytest.approx(cut, rel=1e-4, abs=1e-6 * float(delta.norm())), path


def test_all_modules_have_one_rank_and_the_rest_is_zero(exported: Callable[..., Path]) -> None:
    folder = exported()
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (15, 15)  # up_proj of layer 0: 8 + 7
    assert (config["rank_pattern"], config["alpha_pattern"]) == ({}, {})
    found = factors(folder)
    assert {A.shape[0] for A, _ in found.values()} == {B.shape[1] for _, B in found.values()} == {15}
    A, B = found["model.layers.1.self_attn.k_proj"]
    assert A[:9].any(1).all()
    assert not A[9:].any()
    assert not B[:, 9:].any()


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ((256, 256), []),
        (
            (256, 257),
            [r"vLLM reads adapters of rank 512 at most \(--max-lora-rank\), and this one has 513; .* --rank 512$"],
        ),
        ((2176, 2176), [r"this one has 4352; .* --rank 512$"]),
    ],
)
def test_a_rank_that_readers_refuse_is_said_and_soupmix_reads_what_it_wrote(
    ranks: tuple[int, ...],
    said: list[str],
    make_store: Callable[..., Store],
    grant: Callable[..., Grant],
    tiny_adapter: Callable[..., Path],
    run: Callable[..., tuple[int, str, str]],
    tmp_path: Path,
) -> None:
    made = {f"a{n}": tiny_adapter(rank=rank, seed=n, targets=("k_proj",)) for n, rank in enumerate(ranks)}
    store = make_store(made)
    weights = [word for name in made for word in ("-w", f"{name}=0.5")]
    code, out, err = run("merge", *weights, "--store", store.folder, "--json", tmp_path / "out")
    assert code == 0, err
    warnings = json.loads(out)["warnings"]
    assert [re.search(pattern, found) is not None for pattern, found in zip(said, warnings, strict=True)] == [
        True
    ] * len(said)
    card = (tmp_path / "out/README.md").read_text()
    assert all(f"soupmix: warning: {warning}\n" in err and f"- warning: {warning}\n" in card for warning in warnings)
    again = make_store({"again": tmp_path / "out"}, where="second")
    assert again.manifest.adapters["again"].rank == sum(ranks)
    assert run("verify", tmp_path / "out")[0] == 0


def stack(rank: int, rows: int, columns: int) -> Stack:
    """Of zeros, which take no memory."""
    ones = torch.ones((), dtype=torch.float64).expand(rank)
    return Stack(torch.zeros(()).expand(rank, columns), torch.zeros(()).expand(rows, rank), ones, ones)


def test_a_file_that_no_store_takes_is_said() -> None:
    modules = {f"m{number}": stack(512, 14336, 4096) for number in range(224)}
    (said,) = readers_refuse(modules, rank=None, dtype="F32")
    assert re.fullmatch(r"its 8\.5 GB are more than the 4\.3 GB that .*--rank 259", said)
    assert readers_refuse(modules, rank=259, dtype="F32") == ()
    assert len(readers_refuse(modules, rank=260, dtype="F32")) == 1
    assert readers_refuse(modules, rank=None, dtype="BF16") == ()


def test_a_rank_that_no_store_takes_is_refused() -> None:
    assert len(readers_refuse({"m": stack(65_536, 8, 8)}, rank=None, dtype="F32")) == 1
    with pytest.raises(RecipeError, match="would have rank 65537, and no store takes more than 65536") as caught:
        readers_refuse({"m": stack(65_537, 8, 8)}, rank=None, dtype="F32")
    assert caught.value.reason == "bad-rank"
    assert readers_refuse({"m": stack(65_537, 8, 8)}, rank=8, dtype="F32") == ()
