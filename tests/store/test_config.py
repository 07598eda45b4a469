"""The allow-list of adapter_config.json, and patterns that mean what PEFT means by them."""

import contextlib
import json
import re
import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from soupmix.errors import AdapterError
from soupmix.store.config import PatternTable, check_pattern, parse_config

MINIMAL: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}
MODULES = [
    f"model.layers.{layer}.{module}"
    for layer in (0, 1, 10, 11)
    for module in ("self_attn.q_proj", "self_attn.k_proj", "mlp.up_proj", "mlp.gate_proj", "mlp.q_proj")
]


def _parse(**fields: Any) -> Any:
    return parse_config(json.dumps(MINIMAL | fields).encode(), "adapter_config.json")


def _refused(reason: str, word: str, **fields: Any) -> None:
    with pytest.raises(AdapterError, match=re.escape(word)) as caught:
        _parse(**fields)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("use_dora", True),
        ("lora_bias", True),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 4], [2, 5]]),
        ("auto_mapping", {"parent_library": "os"}),
        ("target_parameters", ["experts.weight"]),
        ("trainable_token_indices", [1]),
        ("megatron_config", {"a": 1}),
        ("corda_config", {"a": 1}),
        ("eva_config", {"a": 1}),
        ("loftq_config", {"a": 1}),
        ("exclude_modules", ["q_proj"]),
        ("exclude_modules", "q_proj"),
        ("fan_in_fan_out", True),
        ("layers_to_transform", [0]),
        ("layers_to_transform", 0),
        ("layers_pattern", "layers"),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {}.fromkeys("a")),
        ("use_qalora", True),
        ("use_bdlora", {"a": 1}),
        ("ensure_weight_tying", True),
        ("bias", "all"),
        ("bias", "lora_only"),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("task_type", "SEQ_CLS"),
        ("peft_type", "ADALORA"),
        ("peft_type", "lora"),
        ("megatron_core", "os"),
        ("runtime_config", {"ephemeral_gpu_offload": True}),
        ("use_rslora", 1),
        ("use_dora", 1),
    ],
)
def test_a_feature_soupmix_does_not_have_is_refused_by_name(field: str, value: Any) -> None:
    _refused("unsupported", field, **{field: value})


def test_an_unknown_field_is_refused_by_name() -> None:
    _refused("unknown-field", "brand_new", brand_new=None)


@pytest.mark.parametrize("field", ["use_dora", "modules_to_save", "eva_config", "fan_in_fan_out", "lora_bias"])
@pytest.mark.parametrize("value", [None, False, [], {}, ""])
def test_a_feature_that_is_off_is_no_hindrance(field: str, value: Any) -> None:
    assert _parse(**{field: value}).rank == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"r": 0},
        {"r": -1},
        {"r": True},
        {"r": 2.0},
        {"r": "2"},
        {"r": 10**6},
        {"lora_alpha": 0},
        {"lora_alpha": "16"},
        {"lora_alpha": 1e300},
        {"lora_alpha": True},
        {"rank_pattern": ["q_proj"]},
        {"rank_pattern": {"q_proj": 0}},
        {"alpha_pattern": {"q_proj": None}},
        {"target_modules": []},
        {"target_modules": None},
        {"target_modules": [1]},
        {"target_modules": {"q_proj": 1}},
        {"lora_dropout": "0"},
        {"revision": 1},
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(fields: dict[str, Any]) -> None:
    _refused("bad-config", next(iter(fields)), **fields)


@pytest.mark.parametrize("field", MINIMAL)
def test_a_missing_field_is_refused(field: str) -> None:
    with pytest.raises(AdapterError, match=field):
        parse_config(json.dumps({key: value for key, value in MINIMAL.items() if key != field}).encode(), "x")


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"r": 1, "r": 2}', b'{"lora_alpha": NaN}', b'{"lora_alpha": 1e999}'],
)
def test_what_is_not_a_strict_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(AdapterError) as caught:
        parse_config(raw, "x")
    assert caught.value.reason == "bad-config"


PATTERNS = st.lists(
    st.sampled_from(
        ["q_proj", "proj", "layers.1.mlp.up_proj", r"model\.layers\.\d+\.mlp.*", "(q|k)_proj", r".*\.1[01]?\..*", ".*",
         r"^model.*q_proj", "mlp.q_proj", r"layers.[0-1].*", r"\w+_proj", "up_proj$", r"l.?y.*gate_proj"]
    ),
    unique=True,
    max_size=5,
)  # fmt: skip


@given(PATTERNS, st.sampled_from(MODULES))
def test_patterns_choose_as_peft_s_do(patterns: list[str], module: str) -> None:
    values = {pattern: float(number) for number, pattern in enumerate(patterns)}
    found = PatternTable(list(values.items()), "rank_pattern").find([module], -1.0)
    assert found == {module: values.get(get_pattern_key(patterns, module), -1.0)}


@given(st.one_of(PATTERNS.filter(bool), st.sampled_from([".*q_proj", r"model\.layers\.1\..*", "q_proj"])))
@example(["layers.1"])
def test_targets_choose_as_peft_s_do(targets: list[str] | str) -> None:
    config = LoraConfig(target_modules=targets)
    theirs = {module for module in MODULES if check_target_module_exists(config, module)}
    assert _parse(target_modules=targets).targeted(MODULES) == theirs


@pytest.mark.parametrize(
    "pattern",
    ["", "(a+)+", "(a*)*", "(.*)*", r"(?=a)", r"(?P<n>a)", r"\1", "a{1,9}", "((a))", "(a", "a)", "[z-a]", "[^a]", "a\n",
     "q_proj|v_proj", "é", "x" * 600, "**", r"\S"],
)  # fmt: skip
def test_a_pattern_outside_the_grammar_is_refused(pattern: str) -> None:
    with pytest.raises(AdapterError) as caught:
        check_pattern(pattern, "rank_pattern")
    assert caught.value.reason == "pattern"


@pytest.mark.parametrize(
    "pattern", [".*.*.*.*.*.*x", "a?" * 60 + "x", "(a|a)" * 60 + "x", r"\w+\w+\w+\w+\w+!".replace("!", "-"), ".*?" * 9]
)
def test_a_pattern_that_would_never_end_is_refused_before_it_is_tried(pattern: str) -> None:
    started = time.process_time()
    with pytest.raises(AdapterError, match="too long") as caught:
        PatternTable([(pattern, 1)], "rank_pattern").find(["a" * 200], 1)
    assert caught.value.reason == "pattern"
    with pytest.raises(AdapterError):
        _parse(target_modules=pattern).targeted(["a" * 200])
    assert time.process_time() - started < 1


@settings(deadline=None, max_examples=300)
@given(st.text("a.*+?()|\\dw[]-x^$", max_size=24))
def test_what_the_grammar_lets_through_ends_soon(pattern: str) -> None:
    names = [f"{'a' * 60}.{number}" for number in range(20)]
    started = time.process_time()
    with contextlib.suppress(AdapterError):
        PatternTable([(pattern, 1)], "rank_pattern").find(names, 1)
    assert time.process_time() - started < 2
