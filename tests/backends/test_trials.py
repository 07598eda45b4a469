"""What trials find right is kept under all that it rests on, and tried again when any of that is another."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.base import Base
from soupmix.batching import probe
from soupmix.engine import engine as engines
from soupmix.engine import trials
from soupmix.engine.together import Company
from soupmix.engine.trials import Trials
from soupmix.store import Store

LIMITS = Limits(rows=2, length=64)
Open = Callable[..., LocalBackend]


@pytest.fixture
def base(tiny_base: Base, tmp_path: Path) -> Base:
    """With a cache of its own."""
    return replace(tiny_base, cache=tmp_path / "cache")


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The trials that are made."""
    made: list[str] = []

    def seen(name: str, real: Callable[..., object]) -> Callable[..., object]:
        return lambda *given: (made.append(name), real(*given))[1]

    monkeypatch.setattr(engines, "company", seen("company", engines.company))
    monkeypatch.setattr(probe, "_objection", seen("loop", probe._objection))
    return made


@contextmanager
def opened(base: Base, store: Store, **how: str) -> Iterator[LocalBackend]:
    backend = LocalBackend.open(base, store, limits=LIMITS, **how)
    try:
        yield backend
    finally:
        backend.close()


def test_the_second_start_tries_nothing_and_serves_the_same(base: Base, pico_store: Store, tried: list[str]) -> None:
    with opened(base, pico_store) as first:
        found = first.engine.together, first.engine.noise, first.loop.name
    assert tried == ["company", "loop"]
    with opened(base, pico_store) as second:
        assert (second.engine.together, second.engine.noise, second.loop.name) == found
        assert second.loop.why.startswith("tried on this machine before, it computes what transformers computes; ")
    assert tried == ["company", "loop"]
    with opened(base, pico_store, dtype="bf16"):
        assert tried[2:4] == ["company", "loop"]
    tried.clear()
    with opened(base, pico_store, method="factor"):
        assert tried == ["loop"]


def test_what_was_not_right_is_tried_at_every_start(
    base: Base, pico_store: Store, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = probe._objection
    monkeypatch.setattr(probe, "_objection", lambda *given: (right(*given), "it is wrong")[1])
    for _ in range(2):
        with opened(base, pico_store) as backend:
            assert backend.loop.name == "padded"
    assert tried.count("company") == 1
    assert tried.count("loop") >= 2


@pytest.mark.parametrize(
    "said",
    [
        {"together": "padded", "noise": "nan"},
        {"together": "padded", "noise": "-0x1p-3"},
        {"together": "padded", "noise": "inf"},
        {"together": "padded", "noise": 0.5},
        {"together": "everybody", "noise": "0x1p-3"},
        {"together": ["padded"], "noise": "0x1p-3"},
        {"together": "padded"},
        ["padded"],
        None,
    ],
)
def test_a_record_that_says_what_no_trial_finds_is_none(said: object, tmp_path: Path) -> None:
    kept = Trials(tmp_path / "record.json")
    (tmp_path / "record.json").write_text(json.dumps({"company": said}))
    assert Company.recalled(kept.recall("company")) is None


def test_what_others_can_write_is_not_believed(tmp_path: Path) -> None:
    kept, right = Trials(tmp_path / "record.json"), Company("equal", 0.1)
    assert Trials().recall("company") is None
    kept.keep("company", right.record())
    kept.keep("loop", {})
    assert Company.recalled(kept.recall("company")) == right
    assert kept.recall("loop") == {}
    (tmp_path / "record.json").chmod(0o666)
    assert kept.recall("company") is None


def test_all_that_a_trial_rests_on_is_in_its_name(base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(1, 1)
    model.dtype, model.device = torch.float32, torch.device("cpu")

    def name(
        base: Base = base, adapters: dict[str, str] | None = None, model: object = model, how: str = "fused"
    ) -> str:
        trials._machine.cache_clear()
        return str(Trials.of(base, {"calm": "1", "loud": "2"} if adapters is None else adapters, model, how).path)

    first = name()
    assert name() == first
    other = torch.nn.Linear(1, 1)
    other.dtype, other.device = torch.bfloat16, torch.device("cpu")
    names = {
        name(base=replace(base, digest="sha256:0")),
        name(base=replace(base, chat_template="x")),
        name(adapters={}),
        name(adapters={"calm": "1", "loud": "3"}),
        name(adapters={"loud": "2", "calm": "1"}),
        name(model=other),
        name(how="compiled"),
    }
    for setting, value in (
        ("ONEDNN_MAX_CPU_ISA", "avx512_core"),
        ("SOUPMIX_KERNELS", "torch"),
        ("OMP_NUM_THREADS", "7"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(setting, value)
            names.add(name())
    for what, found in (("_processor", ["Another"]), ("version", "0.0.1"), ("_LIBRARIES", ("torch",))):
        with monkeypatch.context() as patch:
            patch.setattr(trials, what, found if what == "_LIBRARIES" else lambda *_, found=found: found)
            names.add(name())
    source = tmp_path / "ours" / "step.py"
    source.parent.mkdir()
    source.write_text("1")
    monkeypatch.setattr(trials, "_OURS", (source.parent,))
    names.add(name())
    os.utime(source, (1, 1))
    names.add(name())
    assert first not in names
    assert len(names) == 15


def test_the_processor_is_told_by_its_name_and_its_instructions() -> None:
    told = list(trials._processor())
    assert told
    assert not any("MHz" in line or "bogomips" in line for line in told)
