"""What a refusal says: which file, which field or module, what is allowed. Word for word, so that nothing is swapped."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from soupmix.errors import AdapterError
from soupmix.store import read_adapter
from soupmix.store.config import parse_config
from soupmix.store.patterns import PatternTable
from soupmix.store.reader import open_adapter

MINIMAL: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
GRAMMAR = "uses more than names, '.', simple classes and single quantifiers; list the modules by name instead"
TOO_LONG = "together with the others takes too long to match; list the modules by name instead"
EXTRACT = "`soupmix adapters extract` makes a plain LoRA of the tuned model, and says what is lost"
ENDLESS = ".*.*.*.*.*.*x"
LAYER = "model.layers.0.self_attn.q_proj"
A0, B0 = (f"base_model.model.{LAYER}.lora_{side}.weight" for side in "AB")
SHAPES = {f"model.layers.{layer}.self_attn.q_proj": (32, 32) for layer in range(2)}
Handmade = Callable[..., Path]
Factors = Callable[..., dict[str, torch.Tensor]]


def _said(ask: Callable[[], object]) -> tuple[str, str]:
    with pytest.raises(AdapterError) as caught:
        ask()
    return str(caught.value), caught.value.reason


@pytest.mark.parametrize(
    ("raw", "sentence", "reason"),
    [
        (b"[]", "c.json is not a JSON object", "bad-config"),
        (b'{"r": 1, "r": 2}', "c.json is not strict JSON: duplicate key 'r'", "bad-config"),
        *(
            (json.dumps({k: v for k, v in MINIMAL.items() if k != key}).encode(), f"c.json lacks {key!r}", "bad-config")
            for key in ("peft_type", "r", "lora_alpha")
        ),
    ],
)
def test_of_a_config(raw: bytes, sentence: str, reason: str) -> None:
    assert _said(lambda: parse_config(raw, "c.json")) == (sentence, reason)


@pytest.mark.parametrize(
    ("fields", "sentence", "reason"),
    [
        (
            {"use_qalora": True},
            f"c.json uses 'use_qalora', which is more than factors of linear layers: {EXTRACT}",
            "unsupported",
        ),
        (
            {"layer_replication": [[0, 1]]},
            "c.json uses 'layer_replication', which no change of weights says: train without it",
            "unsupported",
        ),
        (
            {"bias": "x" * 99},
            f"c.json says bias = {'x' * 60!r}; soupmix supports 'none' and 'all' and 'lora_only'",
            "unsupported",
        ),
        (
            {"task_type": ["x"]},
            "c.json says task_type = a list or object; soupmix supports 'CAUSAL_LM'",
            "unsupported",
        ),
        (
            {"init_lora_weights": "pissa"},
            f"c.json says init_lora_weights = 'pissa', so it was trained against a changed base: {EXTRACT}",
            "unsupported",
        ),
        ({"peft_type": "LOHA"}, f"c.json says peft_type = 'LOHA', which is no plain LoRA: {EXTRACT}", "unsupported"),
        (
            {"peft_type": "P_TUNING"},
            "c.json says peft_type = 'P_TUNING', which changes no weights, and soupmix merges changes of weights: train a "
            "LoRA adapter instead",
            "unsupported",
        ),
        ({"revision": 1}, "c.json: revision must be text", "bad-config"),
        ({"lora_dropout": True}, "c.json: lora_dropout must be a number", "bad-config"),
        ({"qalora_group_size": "1"}, "c.json: qalora_group_size must be a number", "bad-config"),
        (
            {"é" * 70: 1},
            f"c.json has the field {'é' * 60!a}, which soupmix does not know and so will not ignore; if it only says "
            "how the adapter was trained, take it out of the file",
            "unknown-field",
        ),
        ({"r": 65537}, "c.json: r must be a whole number from 1 to 65536", "bad-config"),
        ({"lora_alpha": 1e6}, "c.json: lora_alpha must be a number above 0 and below a million", "bad-config"),
        ({"rank_pattern": ["q"]}, "c.json: rank_pattern must be an object", "bad-config"),
        ({"alpha_pattern": "q"}, "c.json: alpha_pattern must be an object", "bad-config"),
        ({"rank_pattern": {"q": 0}}, "c.json: rank_pattern['q'] must be a whole number from 1 to 65536", "bad-config"),
        (
            {"alpha_pattern": {"q" * 70: None}},
            f"c.json: alpha_pattern[{'q' * 60!r}] must be a number above 0 and below a million",
            "bad-config",
        ),
        ({"target_modules": [""]}, "c.json: target_modules must be a list of names or one pattern", "bad-config"),
        ({"rank_pattern": {"(a": 1}}, f"adapter_config.json: the pattern '(a' in rank_pattern {GRAMMAR}", "pattern"),
        (
            {"alpha_pattern": {"[z-a]": 1}},
            "adapter_config.json: the pattern '[z-a]' in alpha_pattern is not a regular expression "
            "(bad character range z-a at position 1); list the modules by name instead",
            "pattern",
        ),
        (
            {"rank_pattern": {"x" * 513: 1}},
            f"adapter_config.json: the pattern {'x' * 80!r} in rank_pattern {GRAMMAR}",
            "pattern",
        ),
    ],
)
def test_of_a_field(fields: dict[str, Any], sentence: str, reason: str) -> None:
    assert _said(lambda: parse_config(json.dumps(MINIMAL | fields).encode(), "c.json")) == (sentence, reason)


def test_of_a_pattern_without_end() -> None:
    table = PatternTable([("q", 1), (ENDLESS, 1)], "rank_pattern")
    sentence = f"adapter_config.json: the pattern '{ENDLESS}' in rank_pattern {TOO_LONG}"
    assert _said(lambda: table.find(["a" * 200], 1)) == (sentence, "pattern")


@pytest.mark.parametrize(
    ("change", "sentence", "reason"),
    [
        ({"../x": (2, 32)}, "holds '../x', which is not a LoRA factor of a linear layer "
         "(base_model.model.<module>.lora_A.weight or lora_B.weight)", "bad-key"),
        ({"é" * 130: (2, 32)}, f"holds {'é' * 120!a}, which is not a LoRA factor of a linear layer "
         "(base_model.model.<module>.lora_A.weight or lora_B.weight)", "bad-key"),
        ({"a" * 257: (2, 32)}, f"holds a tensor with a name of 257 characters ({'a' * 120!r})", "bad-key"),
        ({"base_model.model.lm_head.weight": (2, 32)}, "holds 'base_model.model.lm_head.weight', of an embedding or of a head "
         "as a whole, and a store holds factors of linear layers: " + EXTRACT, "embedding"),
        ({A0.replace("lora_A", "lora_magnitude_vector"): (2, 32)},
         f"holds DoRA magnitudes ('base_model.model.{LAYER}.lora_magnitude_vector.weight'), which no factors say: {EXTRACT}",
         "dora"),
        ({A0: torch.ones(2, 32).int()}, f"stores '{A0}' as I32; allowed: F32, F16, BF16, F64", "dtype"),
        ({A0: None}, f"has no lora_A for {LAYER}", "missing-factor"),
        ({B0: None}, f"has no lora_B for {LAYER}", "missing-factor"),
        ({B0: (32, 3)}, f"has factors of {LAYER} that do not fit: A [2, 32] must be [rank, in], B [32, 3] [out, rank]",
         "shape"),
        ({B0: torch.full((32, 2), float("nan"))}, f"holds NaN or infinity in {B0!r}", "not-finite"),
        ({A0: (3, 32), B0: (32, 3)}, f"has rank 3 for {LAYER}, adapter_config.json says 2", "rank"),
        ({A0: (2, 31)}, f"fits a 32 x 31 layer at {LAYER}, the base model has 32 x 32: it was trained on another base",
         "wrong-base"),
        ({B0: (33, 2)}, f"fits a 33 x 32 layer at {LAYER}, the base model has 32 x 32: it was trained on another base",
         "wrong-base"),
    ],
)  # fmt: skip
def test_of_tensors(handmade: Handmade, q_proj: Factors, change: dict[str, Any], sentence: str, reason: str) -> None:
    made = {key: torch.ones(to) if isinstance(to, tuple) else to for key, to in (q_proj() | change).items()}
    folder = handmade({key: tensor for key, tensor in made.items() if tensor is not None})
    assert _said(lambda: read_adapter(folder, SHAPES)) == (f"{folder}/adapter_model.safetensors {sentence}", reason)


@pytest.mark.parametrize(
    ("fields", "shapes", "sentence", "reason"),
    [
        ({}, {LAYER: (32, 32)}, "adapts model.layers.1.self_attn.q_proj, which the base model does not have",
         "wrong-base"),
    ],
)  # fmt: skip
def test_of_modules(
    handmade: Handmade, fields: dict[str, Any], shapes: dict[str, Any], sentence: str, reason: str
) -> None:
    folder = handmade(**fields)
    assert _said(lambda: read_adapter(folder, shapes)) == (f"{folder}/adapter_model.safetensors {sentence}", reason)


def _linked(folder: Path) -> None:
    (folder / "adapter_config.json").rename(folder / "moved")
    (folder / "adapter_config.json").symlink_to("moved")


def _pickled(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def _fifo(folder: Path) -> None:
    (folder / "adapter_config.json").unlink()
    os.mkfifo(folder / "adapter_config.json")


@pytest.mark.parametrize(
    ("change", "sentence", "reason"),
    [
        (_pickled, "adapter folder {0} holds adapter_model.bin and no adapter_model.safetensors; a pickle can run code when "
         "it is read: convert it with `soupmix adapters convert {0} NEW_FOLDER`, in a process that can open no other file",
         "pickle"),
        (_linked, "{0}/adapter_config.json is a symbolic link, and links may point anywhere: put the file itself there",
         "symlink"),
        (lambda folder: folder / "none", "there is no adapter folder {1}", "missing"),
        (lambda folder: folder / "adapter_config.json", "there is no adapter folder {1}", "missing"),
        (lambda folder: folder / ("x" * 300), "adapter folder {1} cannot be read: File name too long", "unreadable"),
        (lambda folder: (folder / "adapter_config.json").unlink(), "{0}/adapter_config.json is missing", "missing"),
        (lambda folder: os.truncate(folder / "adapter_config.json", 1), "{0}/adapter_config.json is not strict JSON: "
         "line 1, column 2: expecting property name enclosed in double quotes", "bad-config"),
        (_fifo, "{0}/adapter_config.json is not a regular file", "not-a-file"),
        (lambda folder: os.truncate(folder / "adapter_config.json", (1 << 20) + 1),
         "{0}/adapter_config.json is larger than the 1048576 bytes allowed for it", "too-large"),
        (lambda folder: os.truncate(folder / "adapter_model.safetensors", (4 << 30) + 1),
         "{0}/adapter_model.safetensors is larger than the 4294967296 bytes allowed for it", "too-large"),
        (lambda folder: os.truncate(folder / "adapter_model.safetensors", 7),
         "{0}/adapter_model.safetensors is too short to be a safetensors file", "truncated"),
    ],
)  # fmt: skip
def test_of_a_folder(handmade: Handmade, change: Callable[[Path], Path | None], sentence: str, reason: str) -> None:
    folder = handmade()
    given = change(folder) or folder
    assert _said(lambda: read_adapter(given)) == (sentence.format(folder, given), reason)


def test_what_is_just_allowed_is_read(handmade: Handmade, q_proj: Factors) -> None:
    layer = f"{'m' * (256 - len('base_model.model..q_proj.lora_A.weight'))}.q_proj"
    long = {key.replace(LAYER, layer): tensor for key, tensor in q_proj().items()}
    assert max(map(len, long)) == 256
    assert layer in read_adapter(handmade(long))
    table = PatternTable([("x" * 512, 1)], "rank_pattern")
    assert table.find(["x" * 512, "y"], 2) == {"x" * 512: 1, "y": 2}
    assert parse_config(json.dumps(MINIMAL | {"r": 65536}).encode(), "c").rank == 65536


@pytest.mark.parametrize(
    ("change", "sentence", "reason"),
    [
        (lambda folder: (folder / "x.PT").touch(),
         "adapter folder {0} holds a pickle ('x.PT'), which other tools would run: remove it", "pickle"),
        (lambda folder: (folder / "x").symlink_to("y"),
         "{0}/x is a symbolic link, and links may point anywhere: put the file itself there", "symlink"),
        (lambda folder: folder.rename(folder.parent / "moved") and folder.symlink_to("moved"),
         "adapter folder {0} is a symbolic link: give the folder itself", "symlink"),
        (lambda folder: folder.rename(folder.parent / "moved"), "there is no adapter folder {0}", "missing"),
    ],
)  # fmt: skip
def test_of_a_folder_in_a_store(
    handmade: Handmade, change: Callable[[Path], object], sentence: str, reason: str
) -> None:
    folder = handmade()
    change(folder)

    def read() -> None:
        with open_adapter(folder):
            pass

    assert _said(read) == (sentence.format(folder), reason)


@pytest.mark.parametrize("tensors", [b"x" * 9, {"../x": torch.ones(2, 32)}])
def test_of_a_header_in_a_store(handmade: Handmade, tensors: Any) -> None:
    folder = handmade(tensors)

    def read() -> None:
        with open_adapter(folder) as files:
            files.factors()

    sentence, _ = _said(read)
    assert sentence.startswith(f"{folder}/adapter_model.safetensors ")


def test_of_a_folder_in_a_store_whose_name_is_too_long(tmp_path: Path) -> None:
    def read() -> None:
        with open_adapter(tmp_path / ("x" * 300)):
            pass

    assert _said(read)[1] == "unreadable"
