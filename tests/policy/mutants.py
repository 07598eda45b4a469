"""Mutation testing of soupmix.policy, projection and store with mutmut: change one thing, run what reaches it, see a test fail.

    python tests/policy/mutants.py [SHARE] [SEED] [FILES]

Draws a share (0 to 1) of the mutants of every file, or of the files whose path matches FILES, and prints the score with its 95 %
interval and every survivor as a diff. The order is random, so a run that is stopped by Ctrl-C reports a smaller sample; the same
command goes on with the others.
Wording is not mutated: of text, only single words (reason codes, keys, names) are changed. mutmut leaves decorated functions
alone (properties, validators, context managers) and everything outside functions.
"""

import fnmatch
import math
import os
import random
import re
import resource
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import libcst
import pytest
from mutmut import __main__ as mutmut
from mutmut.mutation import diff_apply, file_mutation, mutators
from mutmut.mutation.trampoline import get_mutant_under_test
from mutmut.runners.harness import PytestRunner
from mutmut.state import state
from mutmut.stats import status_by_exit_code

ROOT = Path(__file__).parents[2]
MEMORY = 4 << 30  # more than the process has when a mutant begins
CAUGHT = {"killed", "timeout"}


def word_changed(node: libcst.BaseString) -> Iterable[libcst.BaseString]:
    """The first of mutmut's changes of a text, if the text is a word and not a sentence."""
    if isinstance(node, libcst.SimpleString) and re.fullmatch(r"[\w.:*-]+", str(node.evaluated_value)):
        yield from list(mutators.operator_string(node))[:1]


class Watch:
    """Ends a test that a mutant has sent round in circles: after ten times its time and ten seconds of computing."""

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        signal.signal(signal.SIGPROF, self._too_long)
        signal.setitimer(signal.ITIMER_PROF, 10 + 10 * state().duration_by_test[item.nodeid])
        try:
            return (yield)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)

    def _too_long(self, _signal: int, _frame: FrameType | None) -> None:
        os._exit(36)  # mutmut's code for it


class Runner(PytestRunner):
    """pytest, in the process of a mutant with bounds on time and memory."""

    def execute_pytest(self, params: list[str], **kwargs: Any) -> int:
        if "__mutmut_" in get_mutant_under_test():
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY,) * 2)
            kwargs["plugins"] = [Watch()]
        return super().execute_pytest(params, **kwargs)

    def run_tests(self, *, mutant_name: str | None, tests: Iterable[str]) -> int:
        chosen = list(tests)
        if mutant_name is None and chosen:
            return (
                0  # all tests, on the unchanged code: they have passed a moment ago, while it was noted what they reach
            )
        return super().run_tests(mutant_name=mutant_name, tests=chosen)


def drawn(share: float, seed: int, files: str) -> list[str]:
    """Names of mutants: the same share of every file, less those that only say of `zip` whether lengths must agree."""
    by_file = defaultdict(list)
    for data, name, _ in mutmut.collect_source_file_mutation_data(mutant_names=[])[0]:
        if fnmatch.fnmatch(str(data.path), files):
            by_file[str(data.path)].append(name)
    draw = random.Random(seed)
    return [
        name
        for file, names in sorted(by_file.items())
        for name in draw.sample(names, math.ceil(share * len(names)))
        if _tells(name, file)
    ]


def _tells(name: str, file: str) -> bool:
    lines = [
        re.sub(r",\s*(strict=\w+)?(?=\s*\))", "", line)
        for line in diff_apply.get_diff_for_mutant(name, path=file).splitlines()
    ]
    removed, added = ([line[1:] for line in lines[3:] if line.startswith(sign)] for sign in "-+")
    return removed != added


def interval(caught: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a proportion."""
    share, z = caught / count, 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def left_of(names: list[str]) -> list[str]:
    """Those that no earlier run over the same sources has finished."""
    found = mutmut.collect_source_file_mutation_data(mutant_names=names)[0]
    return [name for _, name, code in found if code is None]


def report(names: list[str]) -> None:
    """Survivors as diffs, the score of every file, and of all; of those that were run."""
    files: dict[str, Counter[str]] = defaultdict(Counter)
    for data, name, code in mutmut.collect_source_file_mutation_data(mutant_names=names)[0]:
        if code is None:
            continue
        status = status_by_exit_code[code]
        files[str(data.path)][status] += 1
        if status not in CAUGHT:
            print(f"\n{status}: {name}\n{diff_apply.get_diff_for_mutant(name, path=data.path)}")
    print()
    for file, counts in sorted(files.items()):
        print(f"{file:44} {sum(counts[each] for each in CAUGHT):5} of {sum(counts.values()):5}  {dict(counts)}")
    total = sum(files.values(), Counter[str]())
    caught, count = sum(total[each] for each in CAUGHT), sum(total.values())
    low, high = interval(caught, count)
    print(f"{caught} of {count} caught: {caught / count:.1%} (95 % interval {low:.1%} to {high:.1%})  {dict(total)}")


def main(share: float, seed: int, files: str) -> None:
    """Make the mutants, draw, run, report."""
    os.chdir(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # a mutant is a fork, and a fork waits for ever for threads that stayed behind
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "mutants" / "src"), str(ROOT / "kernels")])
    file_mutation.mutation_operators = [
        (kind, word_changed if operator is mutators.operator_string else operator)
        for kind, operator in mutators.mutation_operators
    ]
    mutmut.PytestRunner = mutmut.get_mutant_runner.__globals__["PytestRunner"] = Runner
    start = time.perf_counter()
    mutmut.set_mutant_under_test("mutant_generation")
    Path("mutants").mkdir(exist_ok=True)
    mutmut.copy_src_dir()
    mutmut.create_mutants(1)
    names = drawn(share, seed, files)
    order = random.Random(seed)
    mutmut.estimated_worst_case_time = lambda _: order.random()  # what mutmut sorts by
    if left := left_of(names):  # of no names mutmut would run all
        mutmut._run(left, len(os.sched_getaffinity(0)))
    report(names)
    print(f"{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    arguments = [*sys.argv[1:], *["1", "0", "*"][len(sys.argv) - 1 :]]
    main(float(arguments[0]), int(arguments[1]), arguments[2])
