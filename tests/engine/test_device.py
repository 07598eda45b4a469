"""Where an engine computes is a name that is checked before anything is loaded, on the command line, too."""

from collections.abc import Callable

import pytest
import torch

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.errors import RecipeError
from soupmix.store import Store

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


@pytest.mark.parametrize("device", ["gpu", "", "cuda:x", "meta", "mps", "cpu:1", "cuda:-1", "cpu cuda"])
def test_a_device_that_nobody_knows_is_refused(device: str, tiny_base: Base) -> None:
    with pytest.raises(RecipeError, match=f"device '{device}' is not (known|there)") as caught:
        Engine.load(tiny_base, None, device=device)
    assert caught.value.reason == "device"


@NO_GPU
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there_is_told_with_the_torch_that_looked(device: str, tiny_base: Base) -> None:
    with pytest.raises(RecipeError, match="finds no GPU; `soupmix doctor` says what is") as caught:
        Engine.load(tiny_base, None, device=device)
    assert torch.__version__ in str(caught.value)


@NO_GPU
def test_the_commands_take_it(
    run: Callable[..., tuple[int, str, str]], tiny_base: Base, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("--base", tiny_base.folder, "--store", pico_store.folder, "-w", "calm=0.5")
    code, _, said = run("chat", *asked, "--device", "cuda", "Hello")
    assert (code, "device 'cuda' is not there" in said) == (2, True), said
    monkeypatch.setenv("SOUPMIX_DEVICE", "cuda:3")
    code, _, said = run("chat", *asked, "Hello")
    assert (code, "device 'cuda:3' is not there" in said) == (2, True), said
    code, _, said = run("batch", "IN.jsonl", "OUT.jsonl", "--backend", "vllm")
    assert code == 2
    assert "--device is of this process; --backend vllm computes where its workers are" in said
