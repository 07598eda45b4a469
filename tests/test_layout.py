"""The house itself: what every file must be."""

import ast
import re
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*ROOT.glob("src/**/*.py"), *ROOT.glob("kernels/**/*.py")])


def test_no_package_shadows_a_library_of_the_same_name() -> None:
    """transformers probes for a package `kernels`, PEFT's users have one called `adapters`."""
    assert not (ROOT / "kernels" / "__init__.py").exists()
    assert not (ROOT / "adapters" / "__init__.py").exists()
    assert list((ROOT / "adapters").rglob("*.py")) == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_small(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{node.name} has {length} lines"


def test_no_modules_import_one_another_in_a_circle() -> None:
    """Imports for type checking and inside functions are imports too."""
    graph = grimp.build_graph("soupmix", "soupmix_kernels", exclude_type_checking_imports=False, cache_dir=None)
    left = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    while free := [module for module, imports in left.items() if not imports & left.keys()]:
        left = {module: imports for module, imports in left.items() if module not in free}
    assert left == {}, "these import one another, or what does: " + ", ".join(sorted(left))


def test_tests_share_code_through_tests_support_alone() -> None:
    """No test imports another, and none changes where Python looks for modules, save for the one that runs changed kernels."""
    found = []
    for path in sorted(ROOT.glob("tests/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [each.name for each in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            parts = {part for name in [*names, *module] for part in name.split(".")}
            if any(part.startswith("test_") or part == "conftest" for part in parts):
                found.append(f"{path}: imports a test")
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("sys.path.insert", "sys.path.append"):
                found.append(f"{path}: changes sys.path")
    assert found == [f"{ROOT / 'tests/kernels/interpreted/mutants.py'}: changes sys.path"]


def test_user_input_is_never_checked_by_assert() -> None:
    found = [str(path) for path in SOURCES if re.search(r"^\s*assert ", path.read_text("utf-8"), re.MULTILINE)]
    assert found == []


def test_both_packages_are_typed() -> None:
    assert (ROOT / "src/soupmix/py.typed").is_file()
    assert (ROOT / "kernels/soupmix_kernels/py.typed").is_file()
