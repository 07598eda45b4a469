"""A bound on the norm of the merged delta speaks of sums of deltas: `factor`, whose merge is none, is refused under one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from soupmix.audit import read_records
from soupmix.backends import Limits, Request
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.engine import Engine, Sampling
from soupmix.errors import PolicyError, PolicyRefusal
from soupmix.merge import merge
from soupmix.merge.soup import mix
from soupmix.policy import Grant, Policy
from soupmix.policy.recorded import read_record
from soupmix.serve.policies import InForce, Policies
from soupmix.store import Store

Run = Callable[..., tuple[int, str, str]]
NORM = "tier: law\nissuer: Example\nversion: '1'\nrules:\n- {id: small, rule: norm, at_most: '0.01'SCOPE}\n"
BOTH = {"left": 1, "right": 1}
SENTENCE = r"method factor was asked for, and law\.yaml \(law\) small bounds the norm of the merged delta"


@pytest.fixture(scope="module")
def cancelling(tmp_path_factory: pytest.TempPathFactory, tiny_base: Base, tiny_adapter: Callable[..., Path]) -> Store:
    """Two adapters whose B A is zero each, as B has nothing where A has something, and whose B_1 A_2 is large."""
    store = Store(tmp_path_factory.mktemp("cancelling"), create=True)
    for name, a_lives in (("left", (True, False)), ("right", (False, True))):
        folder = tiny_adapter(rank=2, alpha=2, targets=("q_proj", "v_proj"), scale=20.0)
        path = folder / "adapter_model.safetensors"
        tensors = load_file(path)
        lives = torch.tensor(a_lives)
        for key, value in tensors.items():
            tensors[key] = (value * lives[:, None] if "lora_A" in key else value * ~lives).contiguous()
        save_file(tensors, path, metadata={"format": "pt"})
        store.add(folder, name=name, dimension=name, pole=name, base=tiny_base)
    return store


@pytest.fixture
def document(tmp_path: Path) -> Callable[[str], Path]:
    def make(scope: str = "") -> Path:
        (tmp_path / "law.yaml").write_text(NORM.replace("SCOPE", scope and f", scope: {{{scope}}}"))
        return tmp_path / "law.yaml"

    return make


@pytest.fixture
def grant(cancelling: Store, document: Callable[[str], Path]) -> Grant:
    return Policy.load(document(""), adapters=cancelling).clamp(BOTH)


def norm(modules: Any) -> float:
    return float(torch.cat([(each.scaled() @ each.A.double()).flatten() for each in modules.values()]).norm())


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(PolicyRefusal, match=SENTENCE) as caught:
        act()
    return caught.value.reason


def test_what_the_rule_cannot_see(cancelling: Store, grant: Grant) -> None:
    """The grant lets both through whole: their sum is nothing. The factors of both together are many times the base."""
    assert grant.granted.decimals() == {"left": "1", "right": "1"}
    free = Policy.open(cancelling).clamp(BOTH)
    assert norm(merge(cancelling, free).modules) == 0
    assert cancelling.base_norm is not None
    assert norm(merge(cancelling, free, method="factor").modules) > 50 * cancelling.base_norm


def test_it_is_refused_wherever_a_grant_is_used(cancelling: Store, grant: Grant, tiny_base: Base) -> None:
    engine, prompt = Engine.load(tiny_base, cancelling), "hi"
    request = Request((1, 2), grant, Sampling(max_new_tokens=1), method="factor")
    with Batcher(engine, Limits(rows=2, length=16), method="factor") as batcher:
        acts = {
            "merge": lambda: merge(cancelling, grant, method="factor"),
            "complete": lambda: engine.complete([prompt], [grant], method="factor"),
            "logits": lambda: engine.logits(torch.tensor([[1, 2]]), [grant], method="factor"),
            "submit": lambda: batcher.submit(request, lambda delta: None),
            "repeated": lambda: mix(cancelling, read_record(grant.to_dict()), "factor"),
        }
        assert {name: refusal(act) for name, act in acts.items()} == dict.fromkeys(acts, "norm-not-linear")
    assert norm(merge(cancelling, grant).modules) == 0
    engine.complete([prompt], [grant], sampling=Sampling(max_new_tokens=1))


def test_whom_no_such_rule_concerns_is_served(cancelling: Store, document: Callable[[str], Path]) -> None:
    policy = Policy.load(document("audience: [minor]"), adapters=cancelling)
    merge(cancelling, policy.clamp(BOTH, audience="adult"), method="factor")
    for said in ({}, {"audience": "minor"}):
        assert refusal(lambda said=said: merge(cancelling, policy.clamp(BOTH, **said), method="factor"))


def test_a_grant_without_such_a_rule_is_recorded_as_before(cancelling: Store, grant: Grant) -> None:
    assert "norm_rule" not in Policy.open(cancelling).clamp(BOTH).to_dict()
    assert grant.to_dict()["norm_rule"] == "law.yaml (law) small"
    old = {key: value for key, value in grant.to_dict().items() if key != "norm_rule"}
    assert read_record(old).norm_rule is None


@pytest.mark.parametrize("scope", ["", "audience: [minor]"])
def test_a_server_that_merges_by_factor_takes_no_such_policy(
    cancelling: Store, document: Callable[[str], Path], scope: str
) -> None:
    made = Policy.load(document(scope), adapters=cancelling)
    held = InForce(made, signed=False, loaded=None)  # type: ignore[arg-type]
    Policies(lambda: held, audited=True, method="delta")
    with pytest.raises(PolicyError, match=r"law\.yaml \(law\) small .* start it with --method delta") as caught:
        Policies(lambda: held, audited=True, method="factor")
    assert caught.value.reason == "norm-not-linear"


def test_commands_refuse_and_record_it(
    run: Run, cancelling: Store, document: Callable[[str], Path], tiny_base: Base, tmp_path: Path
) -> None:
    asked = ["-w", "left=1,right=1", "--store", cancelling.folder, "--policy", document(""), "--method", "factor"]
    audit = ["--audit", tmp_path / "log", "--who", "ann"]
    for command in (["merge", "--dry-run"], ["merge", tmp_path / "out"], ["chat", "hi", "--base", tiny_base.folder]):
        code, out, err = run(*command, *asked, *audit)
        assert (code, out) == (3, "")
        assert "use method delta" in err
    assert not (tmp_path / "out").exists()
    reasons = [record["entry"]["reason"] for _, record in read_records(tmp_path / "log")]
    assert reasons == ["norm-not-linear"] * 3


def test_a_batch_refuses_at_once_or_line_by_line(
    run: Run, cancelling: Store, document: Callable[[str], Path], tiny_base: Base, tmp_path: Path
) -> None:
    def line(number: int, **soup: Any) -> str:
        body = {"model": "tiny", "prompt": "hi", "max_tokens": 1, "soup": {"weights": BOTH, **soup}}
        return json.dumps({"custom_id": str(number), "method": "POST", "url": "/v1/completions", "body": body})

    lines = [line(0), line(1, attributes={"audience": "adult"}), line(2, attributes={"audience": "minor"})]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    command = ["batch", tmp_path / "in.jsonl", tmp_path / "out.jsonl", "--base", tiny_base.folder, "--model", "tiny"]
    command += ["--store", cancelling.folder, "--rows", 1, "--length", 32, "--method", "factor"]
    code, _, err = run(*command, "--policy", document(""))
    assert (code, (tmp_path / "out.jsonl.part").exists()) == (3, False)
    assert "use method delta" in err
    assert run(*command, "--policy", document("audience: [minor]"))[0] == 0
    found = [json.loads(each)["response"] for each in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [each["body"].get("error", {}).get("code") for each in found[::2]] == ["norm-not-linear"] * 2
    assert [each["status_code"] for each in found[::2]] == [403, 403]
    assert found[1]["body"].get("error", {}).get("code") != "norm-not-linear"
