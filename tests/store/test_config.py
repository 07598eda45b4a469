"""The allow-list of adapter_config.json, and patterns that mean what PEFT means by them."""

import contextlib
import json
import re
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from peft.utils.other import get_pattern_key

from soupmix.errors import AdapterError
from soupmix.store.config import WholeSettings, parse_config
from soupmix.store.patterns import PatternTable, check_pattern

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
        ("layer_replication", [[0, 4], [2, 5]]),
        ("alora_invocation_tokens", [1]),
        ("arrow_config", {}.fromkeys("a")),
        ("use_qalora", True),
        ("use_bdlora", {"a": 1}),
        ("bias", "some"),
        ("bias", True),
        ("lora_bias", 1),
        ("init_lora_weights", "pissa"),
        ("init_lora_weights", "olora"),
        ("init_lora_weights", "loftq"),
        ("task_type", "SEQ_CLS"),
        ("peft_type", "ADALORA"),
        ("peft_type", "lora"),
        ("use_rslora", 1),
        ("use_dora", 1),
    ],
)
def test_a_feature_soupmix_does_not_have_is_refused_by_name(field: str, value: Any) -> None:
    _refused("unsupported", field, **{field: value})


@pytest.mark.parametrize(
    ("fields", "whole"),
    [
        ({"use_dora": True}, WholeSettings(dora=True)),
        ({"lora_bias": True}, WholeSettings(lora_bias=True)),
        ({"bias": "lora_only"}, WholeSettings(bias="lora_only")),
        ({"modules_to_save": ["b", "a", "b"]}, WholeSettings(saved=("a", "b"))),
        ({"trainable_token_indices": [7, 1]}, WholeSettings(tokens={"": (7, 1)})),
        ({"trainable_token_indices": {"wte": [0]}}, WholeSettings(tokens={"wte": (0,)})),
        ({"trainable_token_indices": {}, "modules_to_save": []}, WholeSettings()),
    ],
)
def test_what_is_changed_beside_factors_is_read(fields: Mapping[str, Any], whole: WholeSettings) -> None:
    assert _parse(**fields).whole == whole
    assert bool(whole) == (whole != WholeSettings())


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modules_to_save", "lm_head"),
        ("modules_to_save", [1]),
        ("modules_to_save", {"lm_head": True}),
        ("trainable_token_indices", [-1]),
        ("trainable_token_indices", [1, 1]),
        ("trainable_token_indices", [1.0]),
        ("trainable_token_indices", [True]),
        ("trainable_token_indices", {"wte": 5}),
        ("trainable_token_indices", {"wte": {"1": 1}}),
        ("trainable_token_indices", "wte"),
    ],
)
def test_names_and_tokens_are_lists(field: str, value: Any) -> None:
    _refused("bad-config", field, **{field: value})


@pytest.mark.parametrize(
    "more",
    [{}, {"base_digest": "sha256:0"}, {"kinds": {}}, {"base_digest": 1, "kinds": {}},
     {"base_digest": "sha256:0", "kinds": {"a": ["vector"]}}, {"base_digest": "sha256:0", "kinds": {"a": "linear"}}],
)  # fmt: skip
def test_the_form_of_a_store_names_its_base_and_what_is_not_linear(more: Mapping[str, Any]) -> None:
    _refused("bad-config", "base_digest", peft_type="SOUPMIX", **more)
    assert _parse(peft_type="SOUPMIX", base_digest="sha256:0", kinds={"a": "vector"}).own.kinds == {"a": "vector"}
    _refused("unknown-field", "base_digest", base_digest="sha256:0", kinds={"a": "vector"})


def test_an_unknown_field_is_refused_by_name() -> None:
    for value in (True, 1, 0.5, "on", [0], {"a": None}):
        _refused("unknown-field", "brand_new", brand_new=value)


@pytest.mark.parametrize(
    "field",
    ["use_dora", "modules_to_save", "eva_config", "fan_in_fan_out", "lora_bias", "bias", "task_type", "lora_dropout",
     "use_rslora", "rank_pattern", "alpha_pattern", "target_modules", "exclude_modules", "layers_pattern", "enable_lora",
     "init_lora_weights", "revision", "qalora_group_size", "brand_new"],
)  # fmt: skip
@pytest.mark.parametrize("value", [None, False, [], {}, ""])
def test_a_field_that_is_off_is_no_hindrance(field: str, value: Any) -> None:
    said = _parse(**{field: value})
    assert (said.rank, said.alpha, said.rslora, said.layout(["q_proj"])) == (2, 4.0, False, {"q_proj": (2, 2.0)})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("auto_mapping", {"base_model_class": "LlamaForCausalLM", "parent_library": "os", "unsloth_fixed": True}),
        ("eva_config", {"rho": 2.0}),
        ("init_lora_weights", "eva"),
        ("init_lora_weights", "gaussian"),
        ("runtime_config", {"ephemeral_gpu_offload": True}),
        ("merge_weights", True),
        ("ensure_weight_tying", True),
        ("fan_in_fan_out", True),
        ("lorap_emb_lr", 1e-6),
        ("megatron_core", "os"),
        ("inference_mode", True),
        ("lora_dropout", 0.5),
    ],
)
def test_how_an_adapter_was_trained_changes_nothing(field: str, value: Any) -> None:
    assert _parse(**{field: value}).layout(["q_proj"]) == {"q_proj": (2, 2.0)}


@pytest.mark.parametrize("kind", ["LOHA", "LOKR", "IA3", "VERA", "ADALORA", "OFT", "BRAND_NEW"])
def test_another_kind_of_adapter_is_named_first_and_has_a_way_in(kind: str) -> None:
    with pytest.raises(AdapterError, match="soupmix adapters extract") as caught:
        parse_config(json.dumps({"alpha": 8, "beta1": 0.85, "peft_type": kind}).encode(), "x")
    assert caught.value.reason == "unsupported"
    assert kind in str(caught.value)


@pytest.mark.parametrize("kind", ["PROMPT_TUNING", "PREFIX_TUNING", "XLORA", ["LORA"], None])
def test_what_changes_no_weights_has_none(kind: Any) -> None:
    with pytest.raises(AdapterError, match="changes no weights") as caught:
        parse_config(json.dumps({"num_virtual_tokens": 4, "peft_type": kind}).encode(), "x")
    assert caught.value.reason == "unsupported"


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
        {"layers_to_transform": ["0"]},
        {"layers_to_transform": [True]},
        {"exclude_modules": [1]},
        {"layers_pattern": 3},
        {"rank_pattern": {"q_proj": 0}},
        {"alpha_pattern": {"q_proj": None}},
        {"target_modules": [1]},
        {"target_modules": {"q_proj": 1}},
        {"lora_dropout": "0"},
        {"revision": 1},
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(fields: dict[str, Any]) -> None:
    _refused("bad-config", next(iter(fields)), **fields)


@pytest.mark.parametrize("field", ["peft_type", "r", "lora_alpha"])
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
         r"^model.*q_proj", "mlp.q_proj", r"layers.[0-1].*", r"\w+_proj", "up_proj$", r"l.?y.*gate_proj",
         r"up_proj\[\d+\]", r"^model\.layers\.1\.mlp\.experts\.up_proj\[1\]", r"up_proj\[\d\]", r".*\[1[0-9]?\]", r"up_proj\["]
    ),
    unique=True,
    max_size=5,
)  # fmt: skip


# What a store calls experts, and what looks like it.
EXPERTS = [f"model.layers.1.mlp.experts.up_proj{end}" for end in ("[1]", "[10]", "[x]", "[", "1", "")]


@given(PATTERNS, st.sampled_from([*MODULES, *EXPERTS]))
@example([r"up_proj\[\d+\]"], EXPERTS[1])
@example([r"up_proj\[\d\]"], EXPERTS[1])
def test_patterns_choose_as_peft_s_do(patterns: list[str], module: str) -> None:
    values = {pattern: float(number) for number, pattern in enumerate(patterns)}
    found = PatternTable(list(values.items()), "rank_pattern").find([module], -1.0)
    assert found == {module: values.get(get_pattern_key(patterns, module), -1.0)}


TARGETS = st.one_of(PATTERNS.filter(bool), st.sampled_from([".*q_proj", r"model\.layers\.1\..*", "q_proj"]))
EXCLUDED = st.one_of(st.none(), PATTERNS, st.sampled_from([".*mlp.*", "o_proj"]))
LAYERS = st.one_of(st.none(), st.sampled_from([0, 1, 10]), st.lists(st.sampled_from([0, 1, 11]), max_size=2))
LAYERS_PATTERN = st.sampled_from([None, "layers", "h", ["h", "layers"], []])


@given(TARGETS, EXCLUDED, LAYERS, LAYERS_PATTERN)
@example(["layers.1"], None, None, None)
@example(["q_proj", "model.layers.0.mlp.q_proj"], None, 1, "layers")
def test_targets_choose_as_peft_s_do(
    targets: list[str] | str, excluded: list[str] | str | None, layers: list[int] | int | None, pattern: Any
) -> None:
    if isinstance(targets, str):
        layers = pattern = None  # PEFT refuses them together
    fields = {"exclude_modules": excluded, "layers_to_transform": layers, "layers_pattern": pattern}
    config = LoraConfig(target_modules=targets)
    for field, value in fields.items():
        setattr(config, field, value)
    theirs = {module for module in MODULES if _peft_chooses(config, module)}
    assert _parse(target_modules=targets, **fields).targets.among(MODULES) == theirs


def _peft_chooses(config: LoraConfig, module: str) -> bool:
    found = check_target_module_exists(config, module)
    return bool(found) and type(found).__name__ != "_ExcludedModule"


UNSLOTH = (
    r"(?:.*?(?:language|text).*?(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense).*?(?:q_proj|v_proj).*?)|"
    r"(?:\bmodel\.layers\.[\d]{1,}\.(?:self_attn|attention|attn|mlp|feed_forward|ffn|dense)\.(?:(?:q_proj|v_proj)))"
)


@pytest.mark.parametrize(
    "pattern",
    [UNSLOTH, r"^(?!.*visual).*(?:q_proj|v_proj).*", r"model.layers.[\d]+.self_attn.(q|v)_proj", "(a+)+$", "(a|a)*$",
     ".*.*.*.*.*.*x", "(a", "x" * 600, r"^(model\.language_model(?=\.).*\.(q_proj|v_proj))$"],
)  # fmt: skip
def test_targets_too_complex_to_match_are_not_matched(pattern: str) -> None:
    started = time.process_time()
    names = ["a" * 200, *MODULES]
    said = _parse(target_modules=pattern)
    assert said.targets.among(names) is None
    assert [kind for kind, _ in said.targets.compared({name: name for name in names}, names)] == ["unchecked"]
    assert _parse(exclude_modules=pattern).targets.among(names) is None
    if not pattern.isalpha():
        assert _parse(layers_to_transform=[0], layers_pattern=pattern).targets.among(MODULES) is None
    assert time.process_time() - started < 1


def test_lists_of_layers_without_end_are_not_matched() -> None:
    """Each is a search through every path, and a megabyte holds more than a hundred thousand."""
    started = time.process_time()
    said = _parse(target_modules=["q_proj"], layers_to_transform=[0], layers_pattern=[f"a{n}" for n in range(100_000)])
    assert said.targets.among([f"model.layers.{n}.q_proj" for n in range(100)]) is None
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "pattern",
    ["", "(a+)+", "(a*)*", "(.*)*", r"(?=a)", r"(?P<n>a)", r"\1", "a{1,9}", "((a))", "(a", "a)", "[z-a]", "[^a]", "a\n",
     "q_proj|v_proj", "é", "x" * 600, "**", r"\S", "a[", "a]", "[[]", r"[\[]", r"(\[)+", r"\[\d**\]"],
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
    assert time.process_time() - started < 1


def test_patterns_are_matched_up_to_the_last_name_that_a_second_is_thought_to_be_enough_for() -> None:
    """One loop over a name of 101 characters is thought to take 5,100 steps, and a hundred million are allowed."""
    most, table = 10**8 // 5100, PatternTable([("x.*", 1)], "rank_pattern")
    names = [f"{number:0101}" for number in range(most + 1)]
    assert set(table.find(names[:most], 2).values()) == {2}
    with pytest.raises(AdapterError, match="too long"):
        table.find(names, 2)


@settings(deadline=None, max_examples=300)
@given(st.text("a.*+?()|\\dw[]-x^$", max_size=24))
def test_what_the_grammar_lets_through_ends_soon(pattern: str) -> None:
    names = [f"{'a' * 60}.{number}" for number in range(20)]
    started = time.process_time()
    with contextlib.suppress(AdapterError):
        PatternTable([(pattern, 1)], "rank_pattern").find(names, 1)
    assert time.process_time() - started < 2
