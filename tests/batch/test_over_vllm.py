"""`soupmix batch --backend vllm`, over a double of vLLM: the answers of the embedded engine, line by line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from soupmix.base import Base
from soupmix.engine import Engine
from soupmix.store import Store
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.setup import read_setup
from tests.support.batch_shop import chat, plain
from tests.support.vllm_double import KEY, double, open_setup

Run = Callable[..., tuple[int, str, str]]


def test_a_batch_is_answered_alike_by_whoever_computes_it(
    run: Run, tiny_base: Base, pico_store: Store, policy_file: Path, tmp_path: Path
) -> None:
    checker = Checker(read_setup(open_setup(tmp_path, pico_store, documents=[policy_file])))
    lines = [
        chat(0, soup={"weights": {"calm": 0.9}}),
        chat(1, soup={"weights": {"loud": 0.5}, "attributes": {"audience": "minor"}}),
        plain(2, ["once", "twice"], soup={"weights": {"plain": 0.7}}),
        chat(3),
    ]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(each) + "\n" for each in lines))
    (tmp_path / "key.bin").write_bytes(KEY)
    words = {"--base": tiny_base.folder, "--store": pico_store.folder, "--policy": policy_file, "--model": "tiny"}
    words |= {"--rows": 4, "--length": 128, "--temperature": 0, "--max-new-tokens": 6}
    asked = ["batch", tmp_path / "in.jsonl", *(each for pair in words.items() for each in pair)]
    with double(Engine.load(tiny_base, pico_store), checker, length=128) as server:
        over = ["--backend", "vllm", "--vllm", server.url, "--vllm-key", tmp_path / "key.bin"]
        assert run(*asked, tmp_path / "local.jsonl")[0] == 0
        code, _, said = run(*asked, tmp_path / "vllm.jsonl", *over)
        assert code == 0, said
    found = []
    for name in ("local", "vllm"):
        results = [json.loads(each) for each in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        bodies = [each["response"]["body"] for each in results]
        found.append(
            [
                (each["response"]["status_code"], body.get("choices"), body.get("soup"), body.get("usage"))
                for each, body in zip(results, bodies, strict=True)
            ]
        )
    assert found[0] == found[1]
    assert [each[0] for each in found[0]] == [200, 403, 200, 200]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--vllm", "http://x"], "go with --backend vllm"),
        (["--backend", "vllm", "--vllm", "http://x"], "go together"),
        (["--backend", "vllm", "--vllm-key", "x"], "go together"),
        (["--backend", "vllm", "--vllm", "http://x", "--vllm-key", "x", "--vllm-argument", "y"], "leave out --vllm"),
        (["--backend", "nothing"], "nothing"),
    ],
)
def test_options_that_do_not_go_together_are_refused(run: Run, tmp_path: Path, words: list[str], said: str) -> None:
    code, _, told = run("batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", *words)
    assert code == 2
    assert said in told
