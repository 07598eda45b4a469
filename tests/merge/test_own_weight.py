"""Under policy documents no adapter acts above the weight that it was granted, whatever the method; without any, methods are as
their papers have them."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from soupmix.errors import PolicyRefusal
from soupmix.merge import merge
from soupmix.merge.methods import merge_modules
from soupmix.methods import METHODS
from soupmix.policy import Grant, Policy
from soupmix.store.store import Store

Run = Callable[..., tuple[int, str, str]]
LAW = "tier: law\nissuer: Example\nversion: '1'\nrules:\n- {id: some, rule: bounds, adapter: concise, at_most: 0.4}\n"
ASKED = {"friendly": 0.9, "concise": 0.4}


@pytest.fixture
def granted(three: Store, tmp_path: Path) -> Mapping[str, Grant]:
    """The same weights with documents and without."""
    (tmp_path / "law.yaml").write_text(LAW)
    bound, free = Policy.load(tmp_path / "law.yaml", adapters=three).clamp(ASKED), Policy.open(three).clamp(ASKED)
    assert bound.granted == free.granted
    return {"bound": bound, "free": free}


def shares(store: Store, grant: Grant, method: str) -> Mapping[str, Tensor]:
    """By how much every adapter acts in every layer, found by least squares on the deltas."""
    made = merge(store, grant, method=method).modules
    parts = {name: merge_modules([(store.load(name), 1.0)]) for name in ASKED}
    found = {}
    for path, merged in made.items():
        deltas = [(p[path].scaled() @ p[path].A.double()).flatten() for p in parts.values() if path in p]
        if len(deltas) == len(ASKED):
            whole = (merged.scaled() @ merged.A.double()).flatten()  # type: ignore[union-attr]
            found[path] = torch.linalg.lstsq(torch.stack(deltas, 1), whole[:, None]).solution[:, 0]
    assert found
    return found


@pytest.mark.parametrize("method", ["slerp", "karcher"])
def test_no_adapter_acts_above_its_weight_under_documents(
    method: str, three: Store, granted: Mapping[str, Grant]
) -> None:
    weights = torch.tensor(list(ASKED.values()), dtype=torch.float64)
    free, bound = (shares(three, granted[kind], method) for kind in ("free", "bound"))
    assert any(bool((each > weights * 1.01).any()) for each in free.values()), "nothing was to be shown"
    for path, each in bound.items():
        assert bool((each <= weights * (1 + 1e-5)).all()), path
        torch.testing.assert_close(each / each.norm(), free[path] / free[path].norm(), rtol=1e-4, atol=1e-6)
    warned = merge(three, granted["bound"], method=method).warnings
    assert any("above its granted weight" in each for each in warned)
    (told,) = merge(three, granted["free"], method=method).warnings
    assert "act above its weight" in told
    assert "policy documents would bound it" in told
    alone = Policy.open(three).clamp({"friendly": 0.9})
    assert not merge(three, alone, method=method).warnings


def test_a_grant_under_documents_refuses_to_normalize(three: Store, granted: Mapping[str, Grant]) -> None:
    names = [name for name, method in METHODS.items() if any(each.name == "normalize" for each in method.options)]
    assert "ties" in names
    for name in names:
        merge(three, granted["free"], method=name, options={"normalize": True})
        merge(three, granted["bound"], method=name)
        with pytest.raises(PolicyRefusal, match="leave normalize out") as caught:
            merge(three, granted["bound"], method=name, options={"normalize": True})
        assert caught.value.reason == "above-weight"


def test_the_command_refuses_before_it_writes(
    three: Store, granted: Mapping[str, Grant], run: Run, tmp_path: Path
) -> None:
    asked = ["-w", "friendly=0.9,concise=0.4", "--store", three.folder, "--policy", tmp_path / "law.yaml"]
    code, _, err = run("merge", *asked, "--method", "ties", "--normalize", tmp_path / "out")
    assert code == 3, err
    assert not (tmp_path / "out").exists()
    assert run("merge", *asked, "--method", "ties", tmp_path / "out")[0] == 0
