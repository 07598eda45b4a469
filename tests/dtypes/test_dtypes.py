"""One table of dtypes: what libraries know under these names is what it says."""

from typing import get_args

import pytest
import safetensors.torch
import torch

from soupmix.dtypes import BITS, TORCH, WORDS, Word, dtype_code, torch_dtype
from soupmix.errors import RecipeError
from soupmix_kernels.checks import FLOATS


@pytest.mark.parametrize("code", TORCH)
def test_names_and_sizes_are_those_of_safetensors_and_torch(code: str) -> None:
    dtype = torch_dtype(code)
    written = safetensors.torch.save({"x": torch.zeros(3, dtype=dtype)})
    assert f'"dtype":"{code}"'.encode() in written
    assert dtype.itemsize * 8 == BITS[code]
    assert str(dtype) == f"torch.{TORCH[code]}"


def test_what_people_can_choose_is_what_the_kernels_compute_in() -> None:
    assert {word: torch_dtype(code) for code, word in WORDS.items()} == FLOATS
    assert get_args(Word) == tuple(WORDS.values())


@pytest.mark.parametrize(("code", "word"), WORDS.items())
def test_a_dtype_is_found_by_either_name(code: str, word: str) -> None:
    assert dtype_code(word) == dtype_code(TORCH[code]) == code


@pytest.mark.parametrize("name", ["F32", "float64", "int8", ""])
def test_another_is_refused(name: str) -> None:
    with pytest.raises(RecipeError, match="use fp32, fp16, bf16") as caught:
        dtype_code(name)
    assert caught.value.reason == "unknown-dtype"
