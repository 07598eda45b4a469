"""The face of the package: what `soupmix.<Tab>` shows is there, is complete, and is called what it is."""

import ast
import builtins
import copy
import inspect
import pickle
import pydoc
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import griffe
import pytest
import torch

import soupmix
from soupmix.public import public

SOURCE = Path(soupmix.__file__).parent
CLASSES = [name for name in soupmix.__all__ if inspect.isclass(getattr(soupmix, name))]
ERRORS = [name for name in CLASSES if issubclass(getattr(soupmix, name), Exception)]


def test_tab_shows_what_there_is_and_nothing_else() -> None:
    import soupmix.cli  # a room that the import system hangs at the package

    assert "cli" in vars(soupmix)
    assert dir(soupmix) == sorted(soupmix.__all__)
    assert all(getattr(soupmix, name) is not None for name in soupmix.__all__)
    with pytest.raises(AttributeError, match="module 'soupmix' has no attribute 'Shop'"):
        _ = soupmix.Shop  # type: ignore[attr-defined]


def test_types_see_the_same_names() -> None:
    """What mypy and editors read, under TYPE_CHECKING, is what is imported on first use."""
    tree = ast.parse((SOURCE / "__init__.py").read_text("utf-8"))
    (checked,) = (node for node in tree.body if isinstance(node, ast.If))
    said = {
        name.asname or name.name: (each.module, name.name)
        for each in checked.body
        if isinstance(each, ast.ImportFrom)
        for name in each.names
    }
    assert sorted([*said, "__version__"]) == sorted(soupmix.__all__)
    for name, (room, inner) in said.items():
        found = getattr(soupmix, name)
        assert inspect.ismodule(found) or found is getattr(sys.modules[str(room)], inner)


def test_importing_it_imports_nothing() -> None:
    script = "import soupmix, sys; dir(soupmix); print([each for each in sys.modules if each.startswith('soupmix')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['soupmix.version', 'soupmix']"


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_says_that_it_is_here(name: str) -> None:
    found = getattr(soupmix, name)
    assert (found.__module__, found.__qualname__) == ("soupmix", name)
    assert pickle.loads(pickle.dumps(found)) is found
    assert inspect.getdoc(found)


def test_nothing_says_so_that_is_not_here() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(each) == "public" for each in node.decorator_list):
                assert node.name in CLASSES, path
    assert public.__module__ == "soupmix.public"


def test_every_exception_is_here() -> None:
    import soupmix.errors

    assert sorted(soupmix.errors.__all__) == sorted(ERRORS)
    assert all(issubclass(getattr(soupmix, name), soupmix.SoupmixError) for name in ERRORS)


@pytest.mark.parametrize("name", ERRORS)
def test_an_exception_is_the_same_behind_a_pickle(name: str) -> None:
    made = getattr(soupmix, name)("it is so", reason="so")
    for again in (pickle.loads(pickle.dumps(made)), copy.copy(made)):
        assert (type(again), str(again), again.reason, vars(again)) == (type(made), "it is so", "so", vars(made))


def test_help_describes_what_merge_takes() -> None:
    text = pydoc.render_doc(soupmix.merge, renderer=pydoc.plaintext)
    beginning = " ".join(text[:1500].split())
    assert "merge(store: " in beginning
    for said in ("Args:", "store:", "grant:", "method:", "Raises:"):
        assert said in beginning
    assert list(inspect.signature(soupmix.merge).parameters) == ["store", "grant", "method", "options"]


# what public calls give and raise


@pytest.fixture(scope="module")
def package() -> griffe.Module:
    """The package as its text says, every annotation resolved to where its class stands."""
    loaded = griffe.load("soupmix", search_paths=[str(SOURCE.parent)], docstring_parser="google")
    assert isinstance(loaded, griffe.Module)
    return loaded


def public_objects(package: griffe.Module) -> Iterator[tuple[str, griffe.Object]]:
    for name in soupmix.__all__:
        if name in CLASSES or name in ("resolve_base", "verify"):
            found = package[name]
            yield name, found.final_target if isinstance(found, griffe.Alias) else found
    yield "merge", package["merge.soup.merge"]


def members(found: griffe.Object) -> Iterator[griffe.Object]:
    """A function, or the public functions and attributes of a class."""
    if not isinstance(found, griffe.Class):
        yield found
        return
    for name, member in found.all_members.items():
        inner = member.final_target if isinstance(member, griffe.Alias) else member
        if (not name.startswith("_") or name == "__init__") and isinstance(inner, griffe.Function | griffe.Attribute):
            yield inner


def classes_of(annotation: Any) -> Iterator[str]:
    """Full names of our classes in an annotation."""
    if isinstance(annotation, str):
        return
    for part in annotation.iterate(flat=True) if annotation is not None else ():
        if isinstance(part, griffe.ExprName) and part.canonical_path.startswith("soupmix"):
            yield part.canonical_path


def test_every_type_that_a_public_call_gives_is_here(package: griffe.Module) -> None:
    here = {found.path for _, found in public_objects(package)}
    missing = set()
    for name, found in public_objects(package):
        for each in members(found):
            given = each.returns if isinstance(each, griffe.Function) else each.annotation
            for path in classes_of(given):
                target = package[path.removeprefix("soupmix.")]
                target = target.final_target if isinstance(target, griffe.Alias) else target
                if isinstance(target, griffe.Class) and target.path not in here:
                    missing.add(f"{name}.{each.name} gives {target.path}")
    assert sorted(missing) == []


def sections(found: griffe.Object, kind: griffe.DocstringSectionKind) -> Iterator[Any]:
    for section in found.docstring.parsed if found.docstring else []:
        if section.kind is kind:
            yield from section.value


def test_every_exception_that_is_told_is_here(package: griffe.Module) -> None:
    told = set()
    for name, found in public_objects(package):
        for each in [found, *members(found)]:
            for raised in sections(each, griffe.DocstringSectionKind.raises):
                told |= {(name, one.strip()) for one in str(raised.annotation).strip("()").split(",")}
                assert not re.search(r"\w+(Error|Refusal): ", raised.description), (name, each.name)
    assert {each for _, each in told} >= {"PolicyError", "AdapterError", "OutputError", "TypeError"}
    assert [each for each in sorted(told) if each[1] not in ERRORS and not hasattr(builtins, each[1])] == []


def test_what_is_described_is_there(package: griffe.Module) -> None:
    """Every argument and attribute on a line of its own, so that the API page and editors find it."""
    for name, found in public_objects(package):
        for each in [found, *members(found)]:
            named = [one.name for one in each.parameters] if isinstance(each, griffe.Function) else each.all_members
            kinds = (griffe.DocstringSectionKind.parameters, griffe.DocstringSectionKind.attributes)
            for described in (one for kind in kinds for one in sections(each, kind)):
                assert described.name in named, (name, each.name, described.name)
                others = re.findall(r"(?:^|[.;] )([a-z_]+)(?:, [a-z_]+)*: ", described.description)
                assert not set(others) & set(named), (name, each.name, described.name)


def test_an_argument_is_described_where_others_are(package: griffe.Module) -> None:
    for name, found in public_objects(package):
        for each in members(found):
            described = {one.name for one in sections(each, griffe.DocstringSectionKind.parameters)}
            if described and isinstance(each, griffe.Function):
                assert described == {one.name for one in each.parameters} - {"self", "cls"}, (name, each.name)


# what they look like

POLICIES = ("examples/policies/law.example.yaml", "examples/policies/organisation.example.yaml")


@pytest.fixture(scope="module")
def things(tiny_base: soupmix.Base) -> dict[str, Any]:
    """One of each class that the shipped adapters and the example policies give."""
    store = soupmix.Store.shipped()
    policy = soupmix.Policy.load(*(SOURCE.parents[1] / each for each in POLICIES), adapters=store)
    grant = policy.clamp({"elementary": 1, "friendly": 0.5}, audience="minor")
    soup = soupmix.merge(store, grant)
    adapter, stack = store.load("concise"), next(iter(soup.modules.values()))
    finding = soupmix.Finding("output-changed", "README.md", "README.md is not as it was written")
    found = [
        store,
        store.manifest,
        store.manifest.gram,
        store["concise"],
        adapter,
        next(iter(adapter.modules.values())),
    ]
    found += [
        policy,
        policy.documents[0],
        policy.rules[0].ref,
        policy.feasible(),
        grant,
        grant.binding[0],
        grant.granted,
    ]
    found += [soupmix.Entries((8, 8), 4, lambda: torch.zeros(8, 8))]
    found += [soup, stack, soup.ingredients[0], soupmix.Errors.of({"layer": (1e-5, 1.0)}), soupmix.Sampling()]
    found += [soupmix.Base("tiny", Path("tiny"), grant.policy_digest, None, "folder:tiny"), finding]
    found += [soupmix.Saved(Path("alice"), grant.policy_digest, {"README.md": "sha256:0"}, {})]
    found += [soupmix.ResultVerdict(Path("alice"), 9, True, None, findings=(finding,))]
    found += [soupmix.Completion("Yes.", 2, True), soupmix.Verdict(findings=())]
    found += [soupmix.Quantisation("gptq", "GPTQ, 4 bits", {"quant_method": "gptq", "bits": 4})]
    found += [soupmix.TensorInfo((2, 3), "BF16", Path("model.safetensors"), 0, 12)]
    found += [tiny_base.layers(), tiny_base.layers()["model.layers.0.self_attn.q_proj"]]
    change = soupmix.LayerChange(torch.eye(3), torch.eye(3), torch.ones(3, dtype=torch.float64), 0.0)
    found += [change, soupmix.Extracted(Path("as-lora"), 8, soupmix.Errors.of({"layer": (1e-5, 1.0)}), {}, ())]
    found += [soupmix.Extraction("in", "LOHA", adapter.digest, tiny_base, {"layer": change}, {}, (), 8, Path("in"))]
    found += [getattr(soupmix, name)("it is so", reason="so") for name in ERRORS]
    return {type(each).__name__: each for each in found} | {"ScopedRule": policy.rules[0]}


@pytest.mark.parametrize("name", [name for name in CLASSES if name != "Engine"])  # shown in tests/engine
def test_a_repr_is_one_useful_line(name: str, things: dict[str, Any]) -> None:
    shown = repr(things[name])
    assert name in shown
    assert len(shown) <= 160
    assert "\n" not in shown
    assert " at 0x" not in shown


def test_what_reprs_say(things: dict[str, Any]) -> None:
    digest = things["Policy"].digest[:19]
    assert re.fullmatch(r"<Store \S+ of 6 adapters: concise, .*, unfriendly>", repr(things["Store"]))
    documents = "law.example.yaml, organisation.example.yaml"
    assert repr(things["Policy"]) == f"<Policy of {documents} for 6 adapters, {digest}...>"
    asked = "elementary=1,friendly=0.5"
    assert repr(things["Grant"]) == f"<Grant of elementary=0.9,friendly=0.5 for {asked}, under {digest}...>"
    assert repr(things["Soup"]) == "<Soup of elementary 0.9, friendly 0.5 by delta, 210 modules>"
    assert repr(things["Weights"]) == "Weights(elementary=0.9,friendly=0.5)"
    assert repr(things["ResultVerdict"]).startswith("<ResultVerdict: 1 findings, first README.md is not")
    assert repr(soupmix.Policy.open(things["Store"])).startswith("<Policy of no documents for 6 adapters, sha256:")
    assert repr(things["PolicyRefusal"]) == "PolicyRefusal('it is so')"


def test_weights_are_made_by_calling_them() -> None:
    made = soupmix.Weights({"b": 1, "a": 0.5})
    assert made == soupmix.Weights("a=0.5,b=1") == soupmix.Weights(["a=0.5", "b=1"]) == soupmix.Weights(made)
    assert dict(made) == {"a": 500_000, "b": 1_000_000}
    assert soupmix.Weights() == {}
    with pytest.raises(soupmix.WeightError, match="not a plain decimal number"):
        soupmix.Weights({"a": "lots"})
