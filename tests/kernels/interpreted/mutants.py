"""Mutation testing of the Triton sources: change one thing, run the battery, and see it fail.

    TRITON_INTERPRET=1 python -m tests.kernels.interpreted.mutants [--workers 2] [--only TEXT]

Every conjunct of every mask, every clamp and choice, every term and factor of every index, every comparison and every value of
masked lanes is changed in turn. Each mutant lives in a copy of the package and runs in a process of its own; one that survives
must be listed in EQUIVALENT with the reason why no input can tell it from the original.
"""

import argparse
import ast
import copy
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "kernels" / "soupmix_kernels"
SOURCES = ("coefficients", "merge", "soup_linear")
TIMEOUT = 240

_ELSEWHERE = "its lanes are not stored, or meet a zero from another load or choice"
_OTHER = {
    "coefficients_kernel": ("columns_ptr + j", "w_ptr + p * s_wp + k", "lo_ptr + k", "hi_ptr + k", "scale_ptr + j"),
    "_add_deltas": ("b_ptr + o[:, None] * s_bo + r[None, :]", "a_ptr + r[:, None].to(tl.int64) * s_ar + i[None, :]"),
    "merge_kernel": ("w_ptr + o[:, None] * s_wo + i[None, :]",),
    "shrink_kernel": ("x_ptr + t[:, None] * s_xt + i[None, :]", "a_ptr + j[:, None].to(tl.int64) * s_ac + i[None, :]"),
    "expand_kernel": (
        "c_rows[:, None] + r[None, :]",
        "b_ptr + o[:, None].to(tl.int64) * s_bo + r[None, :]",
        "h_rows[:, None] + s * s_hs + r[None, :]",
        "y_ptrs",
    ),
    "expand_factor_kernel": (
        "c_row + k * rank + r",
        "b_row + k * rank + r",
        "h_row + s * s_hs + k * rank + r",
        "y_ptrs",
    ),
}
# (function, before, after): why no input can tell
EQUIVALENT = {
    (function, f"value of masked lanes of {at}", "+1"): _ELSEWHERE for function, ats in _OTHER.items() for at in ats
} | {
    (
        "coefficients_kernel",
        "value of masked lanes of w_ptr + p * s_wp + adapter",
        "+1",
    ): "1 is as finite as 0",
    (
        "coefficients_kernel",
        "known & (tl.abs(raw) < float('inf'))",
        "tl.abs(raw) < float('inf')",
    ): "bounds of columns of no adapter are read as 0, 0: a second lock",
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: where, what it was, what it became, and the whole changed module."""

    source: str
    function: str
    before: str
    after: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.function, self.before, self.after


def mutants() -> Iterator[Mutant]:
    """All mutants of all sources, without doubles."""
    seen = set()
    for source in SOURCES:
        tree = ast.parse((PACKAGE / "jit" / f"{source}.py").read_text())
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            for node in ast.walk(function):
                for replacement in _replacements(node):
                    text = _with(tree, node, replacement)
                    if text not in seen:
                        seen.add(text)
                        yield Mutant(source, function.name, *_told(node, replacement), text)


def _replacements(node: ast.AST) -> Iterator[ast.AST]:
    match node:
        case ast.BinOp(op=ast.BitAnd() | ast.Add() | ast.Mult() | ast.Sub()):
            yield node.left
            if not isinstance(node.op, ast.Sub):
                yield node.right
        case ast.Compare(ops=[op]) if type(op) in _OPPOSITE:
            changed = copy.deepcopy(node)
            changed.ops = [_OPPOSITE[type(op)]()]
            yield changed
        case ast.Call(func=ast.Attribute(attr="where"), args=[_, chosen, other]):
            yield chosen
            yield other
        case ast.Call(func=ast.Attribute(attr="minimum" | "maximum"), args=[one, _]):
            yield one
        case ast.Call(func=ast.Attribute(attr="load" | "store"), keywords=keywords) if keywords:
            yield from _masked(node)
        case ast.AugAssign(op=ast.Add()):
            yield ast.Pass()


def _told(node: ast.AST, replacement: ast.AST) -> tuple[str, str]:
    """The change in words that are short where only the value of masked lanes changes."""
    if isinstance(node, ast.Call) and isinstance(replacement, ast.Call) and replacement.keywords:
        return f"value of masked lanes of {ast.unparse(node.args[0])}", "+1"
    return ast.unparse(node), ast.unparse(replacement)


_OPPOSITE = {ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.GtE: ast.Gt, ast.NotEq: ast.Eq}


def _masked(node: ast.Call) -> Iterator[ast.AST]:
    without = copy.deepcopy(node)
    without.keywords = []
    yield without
    for place, keyword in enumerate(node.keywords):
        if keyword.arg == "other":
            changed = copy.deepcopy(node)
            value = ast.literal_eval(keyword.value)
            changed.keywords[place].value = ast.Constant(value=value + 1)
            yield changed


def _with(tree: ast.Module, node: ast.AST, replacement: ast.AST) -> str:
    """The module with one node replaced. In place and undone, as nodes are found by identity."""
    _swap_in(tree, node, replacement)
    text = ast.unparse(tree)
    _swap_in(tree, replacement, node)
    return text


def _swap_in(tree: ast.AST, old: ast.AST, new: ast.AST) -> bool:
    for parent in ast.walk(tree):
        for name, value in ast.iter_fields(parent):
            if value is old:
                setattr(parent, name, new)
                return True
            if isinstance(value, list) and any(item is old for item in value):
                value[next(place for place, item in enumerate(value) if item is old)] = new
                return True
    return False


def survives(mutant: Mutant) -> bool:
    """Whether the whole battery passes. A fork of this process, which has imported torch and triton already."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(PACKAGE, Path(folder) / "soupmix_kernels", ignore=shutil.ignore_patterns("__pycache__"))
        (Path(folder) / "soupmix_kernels" / "jit" / f"{mutant.source}.py").write_text(mutant.text)
        child = os.fork()
        if child == 0:
            _run_battery(folder, f"{mutant.source}_factor" if "factor" in mutant.function else mutant.source)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status) == 0


def _run_battery(folder: str, first: str) -> None:
    """In the child: exit 0 if every case passes, 1 at the first that does not; cases that begin with `first` come first."""
    import signal

    signal.alarm(TIMEOUT)
    code = 1
    try:
        sys.path.insert(0, folder)  # the changed copy of soupmix_kernels
        os.environ["SOUPMIX_KERNELS"] = "triton"
        import torch

        torch.set_num_threads(1)
        from tests.support import watch

        watch.install()
        from tests.support import battery

        for _, check in sorted(battery.cases(), key=lambda case: not case[0].startswith(first)):
            check()
        code = 0
    except BaseException:  # noqa: BLE001  # whatever it is, the mutant is dead
        code = 1
    finally:
        os._exit(code)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", default="", help="only mutants whose description contains this")
    given = parser.parse_args()
    import torch  # noqa: F401  # imported before forking, so that a child need not
    import triton.language  # noqa: F401

    every = [mutant for mutant in mutants() if given.only in repr(mutant.key)]
    with ThreadPoolExecutor(given.workers) as pool:
        alive = [mutant for mutant, lives in zip(every, pool.map(survives, every), strict=True) if lives]
    wrong = [mutant for mutant in alive if mutant.key not in EQUIVALENT]
    stale = [] if given.only else sorted(set(EQUIVALENT) - {mutant.key for mutant in alive})
    for mutant in wrong:
        print(f"SURVIVED  {mutant.function}: {mutant.before}  ->  {mutant.after}")
    for key in stale:
        print(f"listed as equivalent, but it died or is gone: {key}")
    print(
        f"{len(every)} mutants, {len(every) - len(alive)} killed, {len(alive) - len(wrong)} equivalent, {len(wrong)} survived"
    )
    return 1 if wrong or stale else 0


if __name__ == "__main__":
    sys.exit(main())
