"""The list of methods: one entry is all that a method is, wherever it is used."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

import soupmix_kernels
from soupmix.backends import Limits
from soupmix.base import Base
from soupmix.batching import Batcher
from soupmix.engine import Engine
from soupmix.errors import PolicyRefusal, RecipeError
from soupmix.merge import merge, read_recipe, verify
from soupmix.merge.methods import Parts, delta
from soupmix.merge.stack import Stack
from soupmix.methods import DEFAULT, METHODS, Method, RequestOp, check_linear, find_method, one_of, resolve, served
from soupmix.policy import Policy
from soupmix.store.store import Store
from tests.support.methods_page import page

Run = Callable[..., tuple[int, str, str]]
ROOT = Path(__file__).parents[2]
ENTRIES = {ROOT / "src/soupmix/methods.py", *(ROOT / "src/soupmix/merge/methods").glob("*.py")}
OTHER_DELTAS = re.compile(
    r"""(?:"weights"[^"]{0,20}|metric (?:== )?)["']delta["']"""  # what the clamp keeps small
    r"""|"delta": (?:delta|message),"""  # of a streamed answer, as OpenAI calls it
    r'''|rope\.get\("factor"\)|"rope_theta", "factor"|"factor", "low_freq_factor"|said, "factor"'''  # stretches rotary positions
)


def halved(path: str, parts: Parts) -> Stack:
    """Half of the exact sum of deltas."""
    stack = delta.stack(path, parts)
    return replace(stack, scale=stack.scale / 2)


def few(weighted: object) -> tuple[str, ...]:
    return ("half of it is missing",)


HALVED = Method(
    name="halved",
    title="half of the sum",
    card="`halved`: half of the sum.",
    equation="sum_k c_k B_k A_k / 2",
    is_linear=False,
    load=f"{__name__}:halved",
    warn=f"{__name__}:few",
    request=RequestOp(op="soup_linear_", coefficients="delta"),
)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One entry, and commands that are imported after it and forgotten again."""
    monkeypatch.setitem(METHODS, HALVED.name, HALVED)
    commands = [f"soupmix.cli.{command}" for command in ("merge", "chat", "batch", "serve")]
    before = {name: sys.modules.pop(name) for name in commands if name in sys.modules}
    yield
    for name in commands:
        sys.modules.pop(name, None)
    sys.modules.update(before)


def test_a_method_is_named_in_its_entry_and_nowhere_else() -> None:
    names = "|".join(METHODS)
    named = re.compile(rf"[\"'`](?:{names})[\"'`]|\bmethods? [\"'`]?(?:{names})\b")
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in sorted((ROOT / "src/soupmix").rglob("*.py"))
        if path not in ENTRIES
        for line in path.read_text("utf-8").splitlines()
        if named.search(OTHER_DELTAS.sub("", line))
    ]
    assert found == []


def test_every_entry_has_what_it_names() -> None:
    assert DEFAULT in METHODS
    assert len({method.title for method in METHODS.values()}) == len(METHODS)
    for name, method in METHODS.items():
        assert method.name == name
        assert method.card.startswith(f"`{name}`: ")
        assert callable(resolve(method.load))
        assert method.warn is None or callable(resolve(method.warn))
        assert method.request is None or method.request.op in soupmix_kernels.__all__


def test_the_page_of_methods_is_as_the_list_is() -> None:
    assert (ROOT / "docs/methods.md").read_text("utf-8") == page(), "run `make docs`"


def test_the_list_is_read_without_torch_and_files() -> None:
    code = "import sys, soupmix.methods; sys.exit(bool({'torch', 'numpy', 'pydantic', 'yaml'} & set(sys.modules)))"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_is_no_method_is_told_which_there_are() -> None:
    with pytest.raises(RecipeError) as caught:
        find_method("tise")
    assert str(caught.value).startswith("unknown merge method 'tise', did you mean 'ties'? use 'delta', 'factor', ")
    assert [one_of("abc"[:count]) for count in (1, 2, 3)] == ["a", "a or b", "a, b or c"]


@pytest.mark.usefixtures("registered")
def test_one_more_entry_merges_saves_and_verifies(
    run: Run, three: Store, tiny_base: Base, tmp_path: Path, session_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOUPMIX_CACHE", str(session_cache))
    grant = Policy.open(three).clamp("friendly=0.5,concise=0.25")
    whole, soup = merge(three, grant), merge(three, grant, method="halved")
    assert soup.warnings == ("half of it is missing",)
    for path, stack in soup.modules.items():
        assert torch.equal(stack.c * 2, whole.modules[path].c)
    saved = soup.save_model(tmp_path / "model", base=tiny_base)
    assert saved.identity != whole.save_model(tmp_path / "whole", base=tiny_base).identity
    told = (tmp_path / "model/README.md").read_text()
    assert "- method `halved`: half of the sum.\n" in told
    assert "- warning: half of it is missing\n" in told
    options = ("--store", three.folder, "-w", "friendly=0.5,concise=0.25", "--method", "halved")
    code, _, err = run("merge", *options, tmp_path / "out")
    assert (code, err.count("half of it is missing")) == (0, 1), err
    assert read_recipe(tmp_path / "out/soupmix_recipe.yaml").method == "halved"
    assert yaml.safe_load((tmp_path / "out/soupmix_recipe.yaml").read_text())["method"] == "halved"
    assert verify(tmp_path / "out").ok
    assert verify(tmp_path / "model", base=tiny_base.folder).ok


@pytest.mark.usefixtures("registered")
def test_one_more_entry_is_offered_by_every_command_and_bound_by_rules(run: Run) -> None:
    for command in ("merge", "chat", "batch", "serve"):
        code, out, _ = run(command, "--help")
        assert (code, all(name in out for name in ("[delta|factor|", "halved]"))) == (0, True), command
    assert served() == ("delta", "factor", "halved")
    with pytest.raises(PolicyRefusal, match=r"method halved was asked for, .* use method delta$"):
        check_linear("halved", "law.yaml (law) small")


@pytest.mark.usefixtures("registered")
def test_one_more_entry_is_served(tiny_base: Base, pico_store: Store) -> None:
    engine, grant = Engine.load(tiny_base, pico_store), Policy.open(pico_store).clamp("calm=0.5,loud=0.5")
    ids = torch.arange(5, 25)[None]
    assert torch.equal(engine.logits(ids, [grant], method="halved"), engine.logits(ids, [grant]))
    assert engine.identity(grant, "halved") != engine.identity(grant, DEFAULT)
    with Batcher(engine, Limits(rows=1, length=32), method="halved") as batcher:
        assert batcher.method == "halved"


def test_a_method_of_load_time_is_merged_and_not_served(
    three: Store, tiny_base: Base, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METHODS, HALVED.name, replace(HALVED, request=None))
    grant, engine = Policy.open(three).clamp("friendly=0.5"), Engine.load(tiny_base, three)
    modules: Mapping[str, Stack] = merge(three, grant, method="halved").modules
    assert modules
    with pytest.raises(RecipeError, match="choose one of delta, factor") as caught:
        engine.logits(torch.arange(5, 25)[None], [grant], method="halved")
    assert caught.value.reason == "method"
