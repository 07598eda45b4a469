"""What is printed for servers of others is what was granted."""

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.errors import RecipeError
from soupmix.merge.servers import llama_cpp_scales, vllm_line
from soupmix.store.store import Store
from soupmix.weights import Weights

Run = Callable[..., tuple[int, str, str]]
LAW = """\
tier: law
issuer: Test
version: 1
rules: [{id: half, rule: bounds, adapter: friendly, at_most: 0.5, public_reason: a half is enough}]
"""


def test_llama_cpp_gets_the_clamped_weights(three: Store, run: Run, tmp_path: Path) -> None:
    (tmp_path / "law.yaml").write_text(LAW)
    asked = ["-w", "friendly=0.9,expert=0.25", "--store", three.folder, "--policy", tmp_path / "law.yaml"]
    code, out, err = run("merge", *asked, "--print-for", "llama.cpp")
    assert code == 0, err
    said = json.loads(out)
    files = {each["id"]: each["file"] for each in said["adapters"]}
    assert {files[each["id"]]: each["scale"] for each in said["lora"]} == {"expert.gguf": 0.25, "friendly.gguf": 0.5}
    assert shlex.split(said["command"])[-1] == "expert.gguf:0.25,friendly.gguf:0.5"


def test_vllm_gets_a_line_for_what_was_written(three: Store, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a soup"
    code, line, err = run(
        "merge", "-w", "friendly=0.5,concise=0.9", "--store", three.folder, out, "--print-for", "vllm"
    )
    assert code == 0, err
    words = shlex.split(line)
    assert words[words.index("--max-lora-rank") + 1] == "16"  # 4 + 6
    assert words[-1] == f"a soup={out}"
    assert (out / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    "more",
    [
        "--print-for llama.cpp OUT",
        "--print-for vllm",
        "--print-for vllm --dry-run OUT",
        "--print-for vllm --as model OUT",
    ],
)
def test_what_does_not_go_together_is_a_usage_error(more: str, three: Store, run: Run, tmp_path: Path) -> None:
    words = [tmp_path / "out" if word == "OUT" else word for word in more.split()]
    assert run("merge", "-w", "friendly=0.5", "--store", three.folder, *words)[0] == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("weights", "method", "options", "reason"),
    [
        ({}, "delta", {}, "empty-soup"),
        ({"a": 0.5}, "factor", {}, "not-a-sum"),
        ({"a": 0.5}, "delta", {"layers": {"a": 0.5}}, "not-a-sum"),
    ],
)
def test_what_llama_cpp_cannot_add_is_refused(
    weights: dict[str, float], method: str, options: dict[str, object], reason: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        llama_cpp_scales(Weights(weights), method, options)
    assert caught.value.reason == reason


def test_a_rank_beyond_vllm_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 513, "base_model_name_or_path": "b"}')
    with pytest.raises(RecipeError, match="rank 513"):
        vllm_line(tmp_path)
