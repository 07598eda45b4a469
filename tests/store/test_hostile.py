"""Each attack or damage, and its refusal by reason code. The control: the same folder, untouched, is read."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from soupmix.base import Base
from soupmix.errors import AdapterError
from soupmix.store import Store, read_adapter

A0 = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
B0 = A0.replace("lora_A", "lora_B")
Handmade = Callable[..., Path]
Factors = Callable[..., dict[str, torch.Tensor]]
CONFIG, TENSORS = "adapter_config.json", "adapter_model.safetensors"


def _refused(folder: Path, reason: str, shapes: Any = None) -> str:
    with pytest.raises(AdapterError) as caught:
        read_adapter(folder, shapes)
    assert caught.value.reason == reason, str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _header(**tensors: Any) -> bytes:
    return json.dumps(tensors).encode()


def _file(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def _item(shape: list[int], start: int, dtype: str = "F32") -> dict[str, Any]:
    end = start + 4 * torch.Size(shape).numel()
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def test_the_untouched_folder_is_read(handmade: Handmade, tiny_base: Base) -> None:
    assert len(read_adapter(handmade(), tiny_base.layers().linear_shapes())) == 2


# --- the folder and its files


def test_other_files_beside_are_ignored_and_never_read(handmade: Handmade) -> None:
    folder = handmade()
    for name in ("training_args.bin", "optimizer.pt", "x.PT", "a.pkl", "adapter_model.bin", "custom.py"):
        (folder / name).write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    os.mkfifo(folder / "trainer_state.json")  # whoever read it would wait for ever
    (folder / "checkpoint-10").mkdir()
    (folder / "notes.txt").symlink_to("/etc/passwd")
    assert read_adapter(folder)


@pytest.mark.parametrize("name", ["adapter_model.bin", "x.PT", "optimizer.pth", "a.pkl", "b.ckpt", "c.pickle"])
def test_a_pickle_in_a_store_is_refused(stored: Store, name: str) -> None:
    (stored.path("expert") / name).write_bytes(b"")
    with pytest.raises(AdapterError, match=name) as caught:
        Store(stored.folder).load("expert")
    assert caught.value.reason == "pickle"


@pytest.mark.parametrize("name", [CONFIG, TENSORS, "README.md"])
def test_a_link_in_a_store_is_refused(stored: Store, name: str, tmp_path: Path) -> None:
    path = stored.path("expert") / name
    if path.exists():
        path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AdapterError) as caught:
        Store(stored.folder).load("expert")
    assert caught.value.reason == "symlink"


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_link_to_elsewhere_is_refused(handmade: Handmade, name: str, tmp_path: Path) -> None:
    folder = handmade()
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    _refused(folder, "symlink")


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_missing_file_is_refused(handmade: Handmade, name: str, tmp_path: Path) -> None:
    folder = handmade()
    (folder / name).unlink()
    assert name in _refused(folder, "missing")
    _refused(tmp_path / "nowhere", "missing")


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
def test_a_fifo_or_folder_in_place_of_a_file_is_refused_at_once(handmade: Handmade, name: str) -> None:
    folder = handmade()
    (folder / name).unlink()
    os.mkfifo(folder / name)  # a plain open would wait for a writer for ever
    _refused(folder, "not-a-file")
    (folder / name).unlink()
    (folder / name).mkdir()
    _refused(folder, "not-a-file")


def test_a_config_that_is_too_large_is_refused(handmade: Handmade) -> None:
    folder = handmade()
    os.truncate(folder / CONFIG, (1 << 20) + 1)
    _refused(folder, "too-large")


# --- the header


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "truncated"),
        (b"\x01\x02\x03", "truncated"),
        ((1 << 62).to_bytes(8, "little") + b"{}", "header-too-large"),
        (((16 << 20) + 1).to_bytes(8, "little") + b"{}", "header-too-large"),
        ((1000).to_bytes(8, "little") + b"{}", "truncated"),
        (_file(b" {}"), "bad-header"),
        (_file(b"[]"), "bad-header"),
        (_file(b"{" * 100_000), "bad-header"),
        (_file(b'{"a":' * 100_000), "bad-header"),
        (_file(b"{\xff}"), "bad-header"),
        (_file(b'{"__metadata__": {"a": 1}}'), "bad-header"),
        (_file(_header(x={"dtype": "F32", "shape": [1]}), bytes(4)), "bad-header"),
        (_file(_header(x=_item([1], 0) | {"more": 1}), bytes(4)), "bad-header"),
        (_file(_header(x=_item([1], 0, "Q4")), bytes(4)), "bad-header"),
        (_file(_header(x=_item([1], 0) | {"shape": [True]}), bytes(4)), "bad-header"),
        (_file(_header(x=_item([1], 0) | {"shape": [-1]}), bytes(4)), "bad-header"),
        (_file(_header(x=_item([1], 0) | {"shape": [1.0]}), bytes(4)), "bad-header"),
        (_file(b'{"x": {"dtype": "F32", "shape": [NaN], "data_offsets": [0, 4]}}', bytes(4)), "bad-header"),
        (_file(_header(x=_item([1], 0) | {"data_offsets": [0, 8]}), bytes(8)), "bad-offsets"),
        (_file(_header(x=_item([1], 0), y=_item([1], 0)), bytes(4)), "bad-offsets"),
        (_file(_header(x=_item([1], 0), y=_item([1], 8)), bytes(12)), "bad-offsets"),
        (_file(_header(x=_item([1], 0)), bytes(5)), "bad-offsets"),
        (_file(_header(x=_item([2], 0)), bytes(4)), "truncated"),
        (_file(_header(**{f"{i}": _item([0], 0) for i in range(100_001)})), "too-many-tensors"),
        (_file(_header()), "empty"),
    ],
)
def test_a_malformed_header_is_refused(handmade: Handmade, content: bytes, reason: str) -> None:
    _refused(handmade(content), reason)


def test_duplicate_keys_are_refused(handmade: Handmade) -> None:
    """safetensors takes the last of two equal keys over one byte range; another parser may take the first."""
    one = json.dumps({A0: _item([2, 32], 0)})[1:-1]
    two = json.dumps({A0: _item([32, 2], 0), B0: _item([32, 2], 256)})[1:-1]
    assert A0 in _refused(handmade(_file(f"{{{one}, {two}}}".encode(), bytes(512))), "bad-header")


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("../../etc/passwd", "bad-key"),
        ("a\0b", "bad-key"),
        (A0 + "\n", "bad-key"),
        (A0.replace("q_proj", "q_pröj"), "bad-key"),
        (A0.replace("lora_A", "lora_C"), "bad-key"),
        (A0.replace(".self_attn", "..self_attn"), "bad-key"),
        (A0.replace("model.layers", "model." + "x" * 300), "bad-key"),
        (A0.replace("lora_A.weight", "lora_B.bias"), "bad-key"),
        ("base_model.model.model.layers.0.self_attn.q_proj.weight", "bad-key"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", "embedding"),
        ("base_model.model.model.embed_tokens.weight", "embedding"),
        ("base_model.model.lm_head.weight", "embedding"),
        (A0.replace("lora_A.weight", "lora_magnitude_vector"), "dora"),
    ],
)
def test_a_tensor_that_is_no_lora_factor_is_refused(handmade: Handmade, q_proj: Factors, key: str, reason: str) -> None:
    _refused(handmade(q_proj() | {key: torch.ones(2, 32)}), reason)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn])
def test_other_dtypes_are_refused(handmade: Handmade, q_proj: Factors, dtype: torch.dtype) -> None:
    _refused(handmade(q_proj() | {A0: torch.ones(2, 32).to(dtype)}), "dtype")


@pytest.mark.parametrize("key", [A0, B0])
def test_a_missing_factor_is_refused(handmade: Handmade, q_proj: Factors, key: str) -> None:
    factors = q_proj()
    del factors[key]
    _refused(handmade(factors), "missing-factor")


@pytest.mark.parametrize(
    ("a", "b"), [((2, 32), (32, 3)), ((2, 32, 1), (32, 2)), ((32,), (32, 2)), ((0, 32), (32, 0)), ((2, 0), (32, 2))]
)
def test_factors_that_do_not_fit_are_refused(
    handmade: Handmade, q_proj: Factors, a: tuple[int, ...], b: tuple[int, ...]
) -> None:
    _refused(handmade(q_proj() | {A0: torch.ones(a), B0: torch.ones(b)}), "shape")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_values_that_are_not_finite_are_refused(
    handmade: Handmade, q_proj: Factors, value: float, dtype: torch.dtype
) -> None:
    factors = {key: tensor.to(dtype) for key, tensor in q_proj().items()}
    factors[B0][-1, -1] = value
    assert B0 in _refused(handmade(factors), "not-finite")


# --- config against tensors, tensors against base


def test_a_rank_that_is_not_the_config_s_is_refused(handmade: Handmade, q_proj: Factors) -> None:
    _refused(handmade(q_proj(3)), "rank")
    _refused(handmade(rank_pattern={"layers.1.self_attn.q_proj": 3}), "rank")


def test_an_adapter_of_another_base_is_refused(handmade: Handmade, q_proj: Factors, tiny_base: Base) -> None:
    shapes = tiny_base.layers().linear_shapes()
    _refused(handmade(q_proj() | {A0: torch.ones(2, 31)}), "wrong-base", shapes)
    _refused(handmade(q_proj() | {B0: torch.ones(33, 2)}), "wrong-base", shapes)
    more = {key.replace("layers.0", "layers.7"): tensor for key, tensor in q_proj().items()}
    _refused(handmade(q_proj() | more), "wrong-base", shapes)


# --- tampering with a store


def _tampered(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("name", [CONFIG, TENSORS])
@pytest.mark.parametrize("damage", [_tampered, _truncated])
def test_a_changed_file_is_refused_before_it_is_parsed(
    stored: Store, name: str, damage: Callable[[Path], None]
) -> None:
    damage(stored.path("expert") / name)
    with pytest.raises(AdapterError, match=name) as caught:
        Store(stored.folder).load("expert")
    assert caught.value.reason == "digest-mismatch"


def test_another_valid_adapter_in_its_place_is_refused(stored: Store, handmade: Handmade, q_proj: Factors) -> None:
    shutil.copy(handmade(q_proj(seed=9)) / TENSORS, stored.path("expert") / TENSORS)
    with pytest.raises(AdapterError) as caught:
        Store(stored.folder).load("expert")
    assert caught.value.reason == "digest-mismatch"


def test_an_adapter_that_was_not_approved_is_refused(stored: Store) -> None:
    assert stored.load("expert", stored["expert"].digest)
    with pytest.raises(AdapterError, match="was approved") as caught:
        stored.load("expert", "sha256:" + "0" * 64)
    assert caught.value.reason == "digest-mismatch"


def test_what_was_loaded_does_not_change_with_the_file(stored: Store) -> None:
    adapter = Store(stored.folder).load("expert")
    before = {module: factors.B.clone() for module, factors in adapter.modules.items()}
    path = stored.path("expert") / TENSORS
    path.write_bytes(bytes(path.stat().st_size))
    os.truncate(path, 0)
    assert all(torch.equal(factors.B, before[module]) for module, factors in adapter.modules.items())
