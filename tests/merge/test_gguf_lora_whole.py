"""llama.cpp with our GGUF LoRA says what the engine says with the soup at request time."""

from pathlib import Path

import pytest
import torch

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.merge import Soup
from soupmix.store.store import Store
from tests.support.llama_cpp_real import llama_logits, needs_llama_cpp, write_base

IDS = [7, 99, 23, 150, 41, 5, 88, 61, 12, 200, 33, 17]


@pytest.mark.slow
@needs_llama_cpp
def test_llama_cpp_computes_what_the_engine_computes(soup: Soup, three: Store, tiny_base: Base, tmp_path: Path) -> None:
    file = write_base(tiny_base.folder, tmp_path / "base.gguf")
    soup.save_gguf_lora(tmp_path / "out", base=tiny_base)
    bare, theirs = llama_logits(file, None, IDS), llama_logits(file, tmp_path / "out/adapter.gguf", IDS)
    engine = Engine.load(tiny_base, three, fused=False)
    ours = engine.logits(torch.tensor([IDS]), [soup.grant])[0].float()
    moved = float((ours - bare).norm())
    assert moved > 0.1 * float(bare.norm())
    assert float((theirs - ours).norm()) < 0.02 * moved
    assert torch.equal(theirs.argmax(-1), ours.argmax(-1))
