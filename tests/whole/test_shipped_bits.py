"""The shipped base, whose file is of 4 and 8 bits, is in "int4" what it is in bf16.

Steps over blocks and over the bf16 weights they stand for have the same bits (`tests/kernels/test_blocks.py`), so it is enough
that the weights are the same.
"""

import shutil

import pytest
import torch

from soupmix.engine import Engine
from soupmix.engine.layers import BaseLinear


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="no C++ compiler here")
def test_its_four_bits_are_those_of_bf16() -> None:
    few, plain = (Engine.load("smollm2-135m-instruct", None, dtype=each, compiled=True) for each in ("int4", "bf16"))
    assert few.step.why.endswith("211 of its layers as its GGUF file has them")  # all
    assert few._groups.keys() == plain._groups.keys()
    for paths, group in few._groups.items():
        mine, other = group.base, plain._groups[paths].base
        assert isinstance(mine, BaseLinear)
        assert isinstance(other, BaseLinear)
        assert mine.blocks is not None
        assert other.weight is not None
        assert torch.equal(mine.blocks.decoded(), other.weight[:, : other.inputs])
