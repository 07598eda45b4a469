"""What is hooked, on doubles that have the parts of vLLM's which the hooks know; the real ones are in `test_vllm`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from soupmix.errors import BaseModelError, PolicyRefusal, RecipeError, SoupmixError
from soupmix.store import Store
from soupmix.vllm_plugin import soups
from soupmix.vllm_plugin.canary import loudest
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.hooks import _in_the_core, _ShownFirst, attach
from soupmix.vllm_plugin.placing import SoupMethod, place
from soupmix.vllm_plugin.row import FIELD, SoupRow
from soupmix.vllm_plugin.setup import read_setup
from soupmix.vllm_plugin.step import StepRows, serve
from soupmix.vllm_plugin.supported import check_features

KEY, PROMPT = bytes(range(32)), (5, 6, 7)
HIDDEN, INNER, HEADS = 32, 48, 2


@pytest.fixture(scope="module")
def checker(pico_store: Store, tmp_path_factory: pytest.TempPathFactory) -> Checker:
    folder = tmp_path_factory.mktemp("setup")
    (folder / "key").write_bytes(KEY)
    (folder / "setup.json").write_text(json.dumps({"store": str(pico_store.folder), "key": "key", "open": True}))
    return Checker(read_setup(folder / "setup.json"))


class LinearBase(nn.Module):
    """As vLLM's linear layers are: what they compute is computed by their `quant_method`."""

    def __init__(self, inputs: int, widths: list[int]) -> None:
        super().__init__()
        self.input_size = self.input_size_per_partition = inputs
        self.output_partition_sizes, self.output_size = widths, sum(widths)
        self.tp_rank, self.tp_size, self.num_kv_head_replicas = 0, 1, 1
        self.quant_method = SimpleNamespace(apply=lambda layer, x, bias=None: x.new_zeros(len(x), sum(widths)), other=7)


class ColumnParallelLinear(LinearBase): ...


class QKVParallelLinear(ColumnParallelLinear): ...


class RowParallelLinear(LinearBase): ...


class Mapper:
    names = (("q_proj", "qkv_proj", "q"), ("k_proj", "qkv_proj", "k"), ("v_proj", "qkv_proj", "v"),
             ("gate_proj", "gate_up_proj", 0), ("up_proj", "gate_up_proj", 1))  # fmt: skip

    def _map_name_with_shard(self, name: str) -> tuple[str, str | int | None]:
        for old, new, shard in self.names:
            if f".{old}." in name:
                return name.replace(old, new), shard
        return name, None


def model() -> Any:
    def layer() -> nn.Module:
        made = nn.Module()
        made.self_attn, made.mlp = nn.Module(), nn.Module()
        made.self_attn.qkv_proj = QKVParallelLinear(HIDDEN, [HIDDEN, 16, 16])
        made.self_attn.o_proj = RowParallelLinear(HIDDEN, [HIDDEN])
        made.mlp.gate_up_proj = ColumnParallelLinear(HIDDEN, [INNER, INNER])
        made.mlp.down_proj = RowParallelLinear(INNER, [HIDDEN])
        return made

    whole = nn.Module()
    whole.model = nn.Module()
    whole.model.layers = nn.ModuleList([layer(), layer()])
    whole.hf_to_vllm_mapper = Mapper()
    return whole


def _rows(checker: Checker) -> StepRows:
    return StepRows([1_000_000] * len(checker.adapters), 4, 32, torch.device("cpu"))


def _expected(store: Store, x: torch.Tensor, weights: dict[str, float], *paths: str) -> torch.Tensor:
    slices = []
    for path in paths:
        parts = [(w, store.load(name).modules.get(path)) for name, w in weights.items()]
        slices.append(sum(w * f.scaling * (x @ f.A.T @ f.B.T) for w, f in parts if f is not None))
    return torch.cat(slices, 1)  # type: ignore[arg-type]


def test_adapters_lie_in_the_layers_that_vllm_computes_as_one(checker: Checker, pico_store: Store) -> None:
    made, rows = model(), _rows(checker)
    adapters = [pico_store.load(name) for name, _ in checker.adapters]
    assert place(made, adapters, rows, torch.float32, torch.device("cpu")) == 8
    serve(rows)
    rows.learn("a", (500_000, 250_000, 0))
    rows.write(["a"], [3])
    weights, at = {"calm": 0.5, "loud": 0.25}, "model.layers.1"
    for path, parts in (
        ("self_attn.qkv_proj", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
        ("self_attn.o_proj", ("self_attn.o_proj",)),
        ("mlp.gate_up_proj", ("mlp.gate_proj", "mlp.up_proj")),
        ("mlp.down_proj", ("mlp.down_proj",)),
    ):
        layer = made.get_submodule(f"{at}.{path}")
        x = torch.randn(3, layer.input_size)
        expected = _expected(pico_store, x, weights, *[f"{at}.{each}" for each in parts])
        assert isinstance(layer.quant_method, SoupMethod)
        torch.testing.assert_close(layer.quant_method.apply(layer, x), expected)
        assert layer.quant_method.other == 7


def test_a_model_without_a_layer_of_an_adapter_is_refused(checker: Checker, pico_store: Store) -> None:
    adapters = [pico_store.load(name) for name, _ in checker.adapters]
    for change, reason in (
        (lambda made: made.model.layers.__delitem__(1), "wrong-base"),
        (lambda made: setattr(made.model.layers[0].mlp, "down_proj", nn.Linear(INNER, HIDDEN)), "not-linear"),
        (
            lambda made: setattr(made.model.layers[0].mlp, "down_proj", RowParallelLinear(INNER, [HIDDEN + 1])),
            "wrong-base",
        ),
        (lambda made: setattr(made.hf_to_vllm_mapper, "_map_name_with_shard", lambda name: None), "wrong-base"),
    ):
        made: Any = model()
        change(made)
        with pytest.raises(BaseModelError) as caught:
            place(made, adapters, _rows(checker), torch.float32, torch.device("cpu"))
        assert caught.value.reason == reason


class Runner:
    """What both of vLLM's model runners have."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.called: list[str] = []
        self.model: Any = None

    def load_model(self) -> None:
        self.model = model()

    def get_model(self) -> Any:
        return self.model

    def _dummy_run(self, tokens: int) -> str:
        return f"dummy {tokens}"


class V1(Runner):
    input_batch = SimpleNamespace(req_ids=["b", "a"])

    def _update_states(self, scheduled: Any) -> None:
        self.called.append("update")

    def _prepare_inputs(self, scheduled: Any, counts: Any) -> str:
        return "prepared"

    def step(self, scheduled: Any) -> Any:
        self._update_states(scheduled)
        return self._prepare_inputs(scheduled, [1, 2])


class V2(Runner):
    def finish_requests(self, scheduled: Any) -> None:
        self.called.append("finish")

    def add_requests(self, scheduled: Any) -> None:
        self.called.append("add")

    def prepare_inputs(self, scheduled: Any, batch: Any, more: int) -> str:
        return "prepared"

    def step(self, scheduled: Any) -> Any:
        self.finish_requests(scheduled)
        self.add_requests(scheduled)
        return self.prepare_inputs(scheduled, SimpleNamespace(req_ids=["b", "a"], num_scheduled_tokens=[1, 2]), 3)


CONFIG = SimpleNamespace(
    scheduler_config=SimpleNamespace(max_num_batched_tokens=16, max_num_seqs=4),
    compilation_config=SimpleNamespace(max_cudagraph_capture_size=None),
    model_config=SimpleNamespace(dtype=torch.float32),
)


def _new(name: str, text: str | None) -> Any:
    params = SimpleNamespace(extra_args=None if text is None else {FIELD: text})
    return SimpleNamespace(req_id=name, sampling_params=params, prompt_token_ids=list(PROMPT))


@pytest.mark.parametrize("kind", [V1, V2])
def test_both_model_runners_write_the_rows_before_they_compute(
    kind: type[Any], checker: Checker, pico_store: Store
) -> None:
    runner = kind()
    attach(runner, CONFIG, checker)
    runner.load_model()
    layer = runner.model.model.layers[0].mlp.down_proj
    text = SoupRow.of(checker.policy.clamp({"plain": 0.5}), checker.adapters, "s").seal(KEY, PROMPT)
    scheduled = SimpleNamespace(finished_req_ids=set(), scheduled_new_reqs=[_new("a", text), _new("b", None)])
    assert runner.step(scheduled) == "prepared"
    x = torch.randn(3, INNER)
    y = layer.quant_method.apply(layer, x)
    assert not y[0].any(), "the base"
    torch.testing.assert_close(y[1:], _expected(pico_store, x[1:], {"plain": 0.5}, "model.layers.0.mlp.down_proj"))
    assert runner._dummy_run(5) == "dummy 5"
    assert not layer.quant_method.apply(layer, torch.randn(9, INNER)).any()
    runner.step(SimpleNamespace(finished_req_ids={"a"}, scheduled_new_reqs=[]))
    assert not layer.quant_method.apply(layer, x).any(), "whoever has ended is nobody"


@pytest.mark.parametrize("kind", [V1, V2])
def test_a_row_that_was_changed_on_its_way_to_a_worker_is_not_written(kind: type[Any], checker: Checker) -> None:
    runner = kind()
    attach(runner, CONFIG, checker)
    runner.load_model()
    text = SoupRow.of(checker.policy.clamp({"plain": 0.5}), checker.adapters, "s").seal(KEY[::-1], PROMPT)
    with pytest.raises(PolicyRefusal) as caught:
        runner.step(SimpleNamespace(finished_req_ids=set(), scheduled_new_reqs=[_new("a", text)]))
    assert caught.value.reason == "forged"


def test_the_core_keeps_what_a_row_computes_where_no_other_request_finds_it(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Core:
        def __init__(self) -> None: ...
        def preprocess_add_request(self, request: Any) -> Any:
            return request.cache_salt

        process_input_sockets = preprocess_add_request

    cores = SimpleNamespace(EngineCore=Core, EngineCoreProc=type("Proc", (Core,), {}))
    monkeypatch.setitem(sys.modules, "vllm.v1.engine.core", cores)
    make: Any = Core.__new__
    _in_the_core(checker)
    row = SoupRow.of(checker.policy.clamp({"plain": 0.5}), checker.adapters, "s")

    def kept(text: str | None, **more: object) -> str:
        given = {"prompt_token_ids": list(PROMPT), "cache_salt": "s", "resumable": False, **more}
        found: str = Core.preprocess_add_request(make(Core), SimpleNamespace(**vars(_new("a", text)) | given))
        return found

    assert kept(row.seal(KEY, PROMPT)) == row.kept_under(KEY)
    assert kept(None) == "s", "that of the base is its own"
    for beside in ({"prompt_embeds": torch.zeros(3, 4)}, {"mm_features": ["an image"]}):
        with pytest.raises(RecipeError) as caught:
            kept(row.seal(KEY, PROMPT), **beside)
        assert caught.value.reason == "no-tokens", "what the tag says nothing of"


def test_bounds_that_a_new_policy_widens_hold_for_its_rows(
    checker: Checker, pico_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = V1()
    monkeypatch.setattr("soupmix.vllm_plugin.hooks.bounds", lambda *_: (1_000, 1_000, 1_000))  # of the policy before
    attach(runner, CONFIG, checker)
    runner.load_model()
    text = SoupRow.of(checker.policy.clamp({"plain": 0.5}), checker.adapters, "s").seal(KEY, PROMPT)
    runner.step(SimpleNamespace(finished_req_ids=set(), scheduled_new_reqs=[_new("a", text), _new("b", None)]))
    layer, x = runner.model.model.layers[0].mlp.down_proj, torch.randn(3, INNER)
    y = layer.quant_method.apply(layer, x)
    torch.testing.assert_close(y[1:], _expected(pico_store, x[1:], {"plain": 0.5}, "model.layers.0.mlp.down_proj"))


def test_a_runner_that_is_neither_is_refused(checker: Checker) -> None:
    with pytest.raises(RecipeError) as caught:
        attach(Runner(), CONFIG, checker)
    assert caught.value.reason == "vllm-version"


def _config(**changed: object) -> Any:
    parts: dict[str, dict[str, object]] = {
        "parallel_config": dict.fromkeys(
            (
                "pipeline_parallel_size",
                "data_parallel_size",
                "prefill_context_parallel_size",
                "decode_context_parallel_size",
            ),
            1,
        )
        | {"enable_expert_parallel": False, "use_ubatching": False},
        "model_config": {"quantization": None, "runner_type": "generate"},
        "cache_config": {"kv_sharing_fast_prefill": False},
    }
    top: dict[str, object] = dict.fromkeys(("speculative_config", "lora_config", "kv_transfer_config"))
    for name, value in changed.items():
        next((part for part in parts.values() if name in part), top)[name] = value
    return SimpleNamespace(**top, **{name: SimpleNamespace(**part) for name, part in parts.items()})


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("speculative_config", object(), "speculative decoding"),
        ("lora_config", object(), "LoRA"),
        ("kv_transfer_config", object(), "KV transfer"),
        ("pipeline_parallel_size", 2, "pipeline parallelism"),
        ("data_parallel_size", 2, "data parallelism"),
        ("prefill_context_parallel_size", 2, "context parallelism"),
        ("decode_context_parallel_size", 2, "context parallelism"),
        ("enable_expert_parallel", True, "expert parallelism"),
        ("use_ubatching", True, "micro-batches"),
        ("quantization", "fp8", "quantised weights"),
        ("runner_type", "pooling", "pooling"),
        ("kv_sharing_fast_prefill", True, "fast prefill"),
    ],
)
def test_what_soups_do_not_go_together_with_is_refused_by_name(name: str, value: object, said: str) -> None:
    check_features(_config())
    with pytest.raises(RecipeError, match=said) as caught:
        check_features(_config(**{name: value}))
    assert caught.value.reason == "vllm-feature"


def test_the_entry_point_does_nothing_unless_it_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SOUPMIX_VLLM", raising=False)
    soups()
    monkeypatch.setenv("SOUPMIX_VLLM", "")
    soups()
    monkeypatch.setenv("SOUPMIX_VLLM", str(tmp_path / "nowhere.json"))
    with pytest.raises((SoupmixError, ModuleNotFoundError)):
        soups()


def test_the_canary_has_a_soup_that_the_policy_gives_to_somebody(
    checker: Checker, tmp_path: Path, pico_store: Store
) -> None:
    names = [name for name, _ in checker.adapters]
    assert any(loudest(checker.policy, names).granted.values())
    policy: Callable[..., Any] = lambda *rules: _policy(tmp_path, pico_store, *rules)  # noqa: E731
    deny = [{"rule": "deny", "adapter": name, "id": f"d-{name}"} for name in names]
    with pytest.raises(PolicyRefusal) as caught:
        loudest(policy(*deny), names)
    assert caught.value.reason == "nothing-granted"
    adults = policy(*({**each, "scope": {"audience": ["minor"]}} for each in deny))
    assert loudest(adults, names).attributes.get("audience") != "minor"


def _policy(folder: Path, store: Store, *rules: dict[str, object]) -> Any:
    from soupmix.policy import Policy

    path = folder / "org.yaml"
    path.write_text(json.dumps({"tier": "organisation", "issuer": "A", "version": "1", "rules": list(rules)}))
    return Policy.load(path, adapters=store)


def test_an_engine_core_takes_nothing_in_before_soups_are_shown_to_act(
    checker: Checker, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[object] = []
    monkeypatch.setattr("soupmix.vllm_plugin.hooks.check_soups_act", lambda core, _: shown.append(core))

    class Core:
        def take_in(self, *given: int) -> tuple[object, ...]:
            return self, *given

    Core.take_in = _ShownFirst(Core.take_in, checker)  # type: ignore[method-assign, assignment]
    core = Core()
    assert shown == []
    assert core.take_in(1, 2) == (core, 1, 2)
    assert core.take_in(3) == (core, 3)
    assert shown == [core], "once"

    def fail(core: object, _: object) -> None:
        raise SoupmixError("no", reason="soups-do-not-act")

    monkeypatch.setattr("soupmix.vllm_plugin.hooks.check_soups_act", fail)
    with pytest.raises(SoupmixError):
        Core().take_in  # noqa: B018
