"""Picoscopic models and adapters, made once per session, for every room's tests."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from soupmix.base import Base, resolve
from soupmix.cli import main
from soupmix.engine import Engine
from soupmix.policy import Grant, Policy
from soupmix.store import Store
from tests.support.tiny_model import save_tiny_model

PICO_NAMES = ("calm", "loud", "plain")
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


# The same examples on every machine, so that a push is judged by what it changes; `make laws` draws new ones. No example has
# a deadline, which a busy machine misses.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", derandomize=False, print_blob=True, deadline=None)
settings.load_profile("steady")


def pytest_configure(config: pytest.Config) -> None:
    data = tempfile.TemporaryDirectory(prefix="soupmix-data-")  # what a user added is no part of a test
    config.add_cleanup(data.cleanup)
    os.environ |= {"SOUPMIX_DATA": data.name, "SOUPMIX_CONFIG": f"{data.name}/config.toml"}
    # A shell that runs us in the background has SIGINT ignored, which children would inherit: Ctrl-C is tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # PEFT 0.21 asks transformers 5.23 for a property that was renamed; it is not ours to fix.
    config.addinivalue_line("filterwarnings", "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def same_luck() -> None:
    """What a test draws without a seed is the same whatever ran before it in this process."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., Path]:
    """`save_tiny_model`, for tests that need a base of another size."""
    return save_tiny_model


@pytest.fixture(scope="session")
def session_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A soupmix cache of this test session only."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Base:
    """A resolved picoscopic base model: hidden 32, 2 layers, 4 heads over 2, tied embeddings, fp32."""
    return resolve(save_tiny_model(tmp_path_factory.mktemp("tiny") / "tiny-llama"), cache=session_cache)


@pytest.fixture(scope="session")
def family_base(tmp_path_factory: pytest.TempPathFactory, session_cache: Path) -> Callable[[str], Base]:
    """Name of a family -> a resolved tiny base of it, made when it is first asked for."""
    from tests.support.families import make_family

    folder = tmp_path_factory.mktemp("families")
    return cache(lambda name: resolve(make_family(name, folder / name), cache=session_cache))


@pytest.fixture(scope="session")
def tiny_adapter(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base) -> Callable[..., Path]:
    """Factory of PEFT LoRA folders for `tiny_base`, saved by PEFT itself, with non-zero random factors."""

    def make(
        *,
        rank: int = 4,
        alpha: float = 8,
        targets: Sequence[str] | str = ALL_LINEAR,
        rslora: bool = False,
        rank_pattern: Mapping[str, int] | None = None,
        alpha_pattern: Mapping[str, float] | None = None,
        seed: int = 1,
        scale: float = 0.1,
        dtype: torch.dtype = torch.float32,
        base: Base | None = None,
    ) -> Path:
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        config = LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=alpha,
            target_modules=targets if isinstance(targets, str) else list(targets),
            use_rslora=rslora,
            rank_pattern=dict(rank_pattern or {}),
            alpha_pattern=dict(alpha_pattern or {}),
        )
        model = get_peft_model(AutoModelForCausalLM.from_pretrained((base or tiny_base).folder), config)
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = (torch.randn(parameter.shape, generator=generator) * scale).to(dtype)
        folder = tmp_path_factory.mktemp("adapter")
        model.save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def smollm2() -> Base:
    """The real base model, converted into the user's own cache on first use; about a quarter of a minute then."""
    return resolve("smollm2-135m-instruct")


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], session_cache: Path
) -> Callable[..., tuple[int, str, str]]:
    """The real entry point in this process: (exit code, stdout, stderr)."""
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["soupmix", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        else:
            code = 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return call


@pytest.fixture(scope="session")
def pico_store(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    """Three adapters of rank 4 with different scalings, on all linear layers but the second: q and v only."""
    store = Store(tmp_path_factory.mktemp("store"), create=True)
    for number, name in enumerate(PICO_NAMES):
        targets = {"targets": ("q_proj", "v_proj")} if name == "loud" else {}
        folder = tiny_adapter(rank=4, alpha=4 * (number + 1), seed=number, scale=0.3, **targets)
        store.add(folder, name=name, dimension=name, pole=name, base=tiny_base)
    return store


@pytest.fixture(scope="session", params=[True, False], ids=["fused", "plain"])
def engine(request: pytest.FixtureRequest, tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store, fused=request.param)


@pytest.fixture(scope="session", params=["fused", "plain", "compiled"])
def every_engine(request: pytest.FixtureRequest, tiny_base: Base, pico_store: Store) -> Engine:
    """In every way to compute; without a C++ compiler torch stands in for compiled steps."""
    compiled = request.param == "compiled"
    return Engine.load(tiny_base, pico_store, fused=request.param != "plain", compiled=compiled)


@pytest.fixture(scope="session")
def plain(tiny_base: Base, pico_store: Store) -> Engine:
    return Engine.load(tiny_base, pico_store, fused=False)


@pytest.fixture(scope="session")
def grant(pico_store: Store) -> Callable[..., Grant]:
    policy = Policy.open(tuple(pico_store))
    return lambda **weights: policy.clamp(weights)
