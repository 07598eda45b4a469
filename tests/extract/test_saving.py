"""What an extraction writes, when it refuses to, and that the rest of soupmix takes it."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import AdapterError, OutputError, RecipeError
from soupmix.extract import Extraction, extract_adapter
from soupmix.files import sha256_file
from soupmix.merge import merge
from soupmix.policy import Policy
from soupmix.store import Store
from tests.support.tuned import Tuned

FILES = {
    "README.md",
    "adapter_config.json",
    "adapter_model.safetensors",
    "soupmix_digests.json",
    "soupmix_extraction.json",
}


@pytest.fixture(scope="module")
def oft(adapter_of: Callable[[str], Tuned], tiny_base: Base) -> Extraction:
    return extract_adapter(adapter_of("oft").folder, base=tiny_base)


@pytest.fixture(scope="module")
def loha(adapter_of: Callable[[str], Tuned], tiny_base: Base) -> Extraction:
    return extract_adapter(adapter_of("loha").folder, base=tiny_base)


def config(folder: Path) -> dict[str, object]:
    return json.loads((folder / "adapter_config.json").read_text())


def test_one_rank_and_no_patterns(loha: Extraction, tmp_path: Path) -> None:
    saved = loha.save(tmp_path / "out")
    said = config(tmp_path / "out")
    assert (said["r"], said["lora_alpha"], said["rank_pattern"], said["alpha_pattern"]) == (
        saved.rank,
        saved.rank,
        {},
        {},
    )
    assert said["base_model_name_or_path"] == loha.base.label
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_the_least_rank_that_meets_the_error(loha: Extraction, tmp_path: Path) -> None:
    for error in (0.5, 0.1, 0.01):
        saved = loha.save(tmp_path / f"out-{error}", error=error)
        assert loha.error(saved.rank) <= error < loha.error(saved.rank - 1)


def test_a_rank_is_cut_to_what_is_exact(adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path) -> None:
    extraction = extract_adapter(adapter_of("lora").folder, base=tiny_base)
    assert extraction.save(tmp_path / "out", rank=16).rank == 3


def test_without_a_word_one_per_cent_is_the_limit(oft: Extraction, loha: Extraction, tmp_path: Path) -> None:
    assert loha.save(tmp_path / "good").errors.total <= 0.01
    low = Extraction(*(getattr(oft, name) if name != "most" else 4 for name in Extraction.__slots__))
    with pytest.raises(
        AdapterError,
        match=r"rank 4 misses 0\.\d+ of what .*, more than the 0\.01 that is allowed \(rank \d+ misses no more\)",
    ) as refused:
        low.save(tmp_path / "out")
    assert refused.value.reason == "inexact"
    assert not (tmp_path / "out").exists()


def test_half_of_it_is_the_limit_of_a_rank_and_more_must_be_asked_for(oft: Extraction, tmp_path: Path) -> None:
    assert oft.error(1) > 0.5
    with pytest.raises(AdapterError, match="--error") as refused:
        oft.save(tmp_path / "out", rank=1)
    assert refused.value.reason == "inexact"
    saved = oft.save(tmp_path / "out", rank=1, error=1.0)
    assert saved.errors.total == pytest.approx(oft.error(1), abs=1e-6)
    assert any("misses" in each for each in saved.warnings)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [({"rank": 0}, "bad-rank"), ({"rank": 257}, "bad-rank"), ({"error": -1.0}, "bad-error"), ({"error": math.nan}, "bad-error"),
     ({"dtype": "int8"}, "unknown-dtype")],
)  # fmt: skip
def test_what_makes_no_sense_is_refused(
    asked: dict[str, object], reason: str, loha: Extraction, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError) as refused:
        loha.save(tmp_path / "out", **asked)  # type: ignore[arg-type]
    assert refused.value.reason == reason


def test_rounding_counts(loha: Extraction, tmp_path: Path) -> None:
    coarse = loha.save(tmp_path / "bf16", error=1e-6, dtype="bf16").errors.total
    assert 1e-4 < coarse < 1e-2
    assert loha.save(tmp_path / "fp32", error=1e-6).errors.total < 1e-6


def test_the_record_and_the_card_tell_where_it_comes_from(oft: Extraction, tmp_path: Path) -> None:
    saved = oft.save(tmp_path / "out", rank=8, error=1.0)
    record = json.loads((tmp_path / "out" / "soupmix_extraction.json").read_text())
    assert record["source"] == {"name": oft.source, "method": "OFT", "digest": oft.digest}
    assert record["base"]["digest"] == oft.base.digest
    assert record["error"]["total"] == pytest.approx(saved.errors.total, rel=1e-3)
    assert record["needed"]["0.01"] == oft.needed(0.01)
    assert record["warnings"] == list(saved.warnings) != []
    card = (tmp_path / "out" / "README.md").read_text()
    for said in ("base_model:", oft.digest, oft.base.digest, "rank 8", "warning:"):
        assert said in card
    digests = json.loads((tmp_path / "out" / "soupmix_digests.json").read_text())
    assert digests["inputs"] == {"base": oft.base.digest, "source": oft.digest}
    assert digests["outputs"] == {
        name: f"sha256:{sha256_file(tmp_path / 'out' / name)}" for name in FILES - {"soupmix_digests.json"}
    }


def test_the_same_bytes_again(adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path) -> None:
    for name in ("one", "two"):
        extract_adapter(adapter_of("lokr").folder, base=tiny_base).save(tmp_path / name, rank=8, error=1.0)
    for name in FILES:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_only_an_earlier_result_is_replaced(loha: Extraction, tmp_path: Path) -> None:
    loha.save(tmp_path / "out", rank=8)
    with pytest.raises(OutputError) as refused:
        loha.save(tmp_path / "out", rank=9)
    assert refused.value.reason == "exists"
    loha.save(tmp_path / "out", rank=9, force=True)
    assert config(tmp_path / "out")["r"] == 9
    (tmp_path / "out" / "notes.txt").touch()
    with pytest.raises(OutputError) as refused:
        loha.save(tmp_path / "out", rank=8, force=True)
    assert refused.value.reason == "not-ours"


def test_the_source_is_never_replaced(loha: Extraction, adapter_of: Callable[[str], Tuned]) -> None:
    with pytest.raises(OutputError) as refused:
        loha.save(adapter_of("loha").folder, rank=9, force=True)
    assert refused.value.reason == "not-ours"


@pytest.mark.parametrize(
    "method",
    [
        "dora",
        "loha",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("pissa", "lokr", "adalora", "vera", "oft")),
    ],
)
def test_soups_of_it_answer_as_peft_does(
    method: str, adapter_of: Callable[[str], Tuned], tiny_base: Base, tmp_path: Path
) -> None:
    """Through the store, a merge and the engine, against PEFT's model, which merges nothing."""
    made = adapter_of(method)
    extract_adapter(made.folder, base=tiny_base).save(tmp_path / "out", error=1e-6)
    store = Store(tmp_path / "store", create=True)
    store.add(tmp_path / "out", dimension="tone", pole="calm", base=tiny_base)
    grant = Policy.open(store).clamp({"calm": 1})
    tokens = torch.arange(5, 45).view(2, 20)
    with torch.no_grad():
        exact = made.model.double()(tokens).logits
        plain = AutoModelForCausalLM.from_pretrained(tiny_base.folder, dtype=torch.float64)(tokens).logits
        merge(store, grant).save_model(tmp_path / "model", base=tiny_base)
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float64)(tokens).logits
        effect = float((exact - plain).norm())
        assert float((merged - exact).norm()) < (1e-4 if method == "pissa" else 1e-5) * effect
    engine = Engine.load(tiny_base, store)
    asked = engine.logits(tokens, [grant, grant])
    assert float((asked - exact).norm()) < 1e-3 * effect
