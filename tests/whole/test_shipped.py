"""What is shipped: six sound adapters, policies that approve exactly them, and the example that `make run` runs."""

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from soupmix import Policy, Store, Weights, verify
from soupmix.base import Base
from soupmix.cli import cli
from soupmix.errors import EvaluationError
from soupmix.surface import Surface, read_surface
from soupmix.train import POLES

ROOT = Path(__file__).parents[2]
POLICIES = [ROOT / "examples" / "policies" / f"{name}.example.yaml" for name in ("law", "organisation")]


def test_the_six_adapters_are_what_their_manifest_says(smollm2: Base) -> None:
    store = Store.shipped()
    assert store.names == tuple(sorted(POLES))
    for entry in store:
        adapter = store.load(entry.name)
        assert adapter.base_digest == smollm2.digest
        assert entry.dimension == POLES[entry.name].dimension
        last, second = entry.training["soup"], entry.training["before"]["soup"]
        first, alone = entry.training["before"]["before"]["soup"], entry.training["before"]["before"]["before"]
        assert (last["seed"], second["seed"], first["seed"], alone["init_seed"]) == (2, 1, 0, 0)
        assert last["beside"] == second["beside"] == first["beside"] == list(store.names)
        assert (store.path(entry.name) / "README.md").is_file()
        assert (store.path(entry.name) / "adapter_model.safetensors").stat().st_size < 5_200_000


@pytest.mark.parametrize("name", sorted(POLES))
def test_every_pole_moves_its_own_metric_clearly(name: str) -> None:
    """The recorded bootstrap intervals of adapter and base do not overlap."""
    pole, effect = POLES[name], Store.shipped()[name].effect
    base, moved = (effect[arm]["metrics"][pole.metric] for arm in ("base", "adapter"))
    assert (moved["low"] > base["high"]) if pole.sign > 0 else (moved["high"] < base["low"])
    assert effect["adapter"]["metrics"]["on_topic"]["mean"] > 0.85


def test_the_example_policies_approve_exactly_what_is_shipped() -> None:
    store = Store.shipped()
    policy = Policy.load(*POLICIES, adapters=store)
    for name in store.names:
        grant = policy.clamp({name: 0.1}, audience="employee")
        assert grant.digests == {name: store[name].digest}


def test_the_total_budget_is_the_measured_one() -> None:
    store = Store.shipped()
    assert store.total_budget is not None
    asked = {"elementary": 1, "concise": 1, "friendly": 1}
    granted = Policy.open(store).clamp(asked).granted
    assert sum(granted.values()) == store.total_budget


def test_a_shipped_map_is_of_what_is_shipped() -> None:
    """`soupmix ask` finds it with no further word; where none is shipped, it says how one is made."""
    store = Store.shipped()
    done = CliRunner().invoke(cli, ["ask", "grade=8", "words=60"])
    if read_surface(store.folder) is None:
        assert isinstance(done.exception, EvaluationError)
        assert done.exception.reason == "no-surface"
        return
    assert done.exit_code == 0, done.output
    surface = Surface.beside(store.folder, store)
    assert set(surface.dimensions) == set(store.names)
    assert {"grade", "words"} <= set(surface.measures)
    assert surface.expect(Weights("concise=1"))["words"].value < surface.expect(Weights())["words"].value


def test_the_example_of_make_run(tmp_path: Path, smollm2: Base) -> None:
    script = [sys.executable, str(ROOT / "examples" / "three_people.py"), "--tokens", "8", "--out", str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "(organisation)" in done.stdout
    assert "(law)" in done.stdout
    assert all(verify(tmp_path / name).ok for name in ("ada", "ben", "cleo"))
