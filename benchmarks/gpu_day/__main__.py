"""`python -m benchmarks.gpu_day`: all sections by their order and budgets, then the page. See the package."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu_day import page, profiled
from benchmarks.gpu_day.sections import SECTIONS

ROOT = Path(__file__).parents[2]
PYTHON = ("ceilings", "bits", "decode", "merges", "shapes", "launches", "far", "compiled", "peft", "engine")
BUDGET = 585  # seconds, of ten minutes


class Run:
    """The sections of a day, and what they left."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out = given, given.out.absolute()
        self.rows, self.end = self.out / "rows.jsonl", time.monotonic() + given.budget
        self.patience = 20 if given.tiny else 1  # an interpreter is slow, and a rehearsal times nothing
        self.out.mkdir(parents=True, exist_ok=True)
        self.rows.unlink(missing_ok=True)
        interpreted = {"TRITON_INTERPRET": "1"} if given.device == "cpu" else {}
        paths = [str(ROOT), str(ROOT / "src"), str(ROOT / "kernels"), os.environ.get("PYTHONPATH", "")]
        told = {
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "SOUPMIX_KERNELS": "triton",
            "PYTHONUNBUFFERED": "1",
        }
        self.environment = {**os.environ, **told, **interpreted}

    def left(self) -> float:
        return self.end - time.monotonic()

    def note(self, section: str, **row: Any) -> None:
        with self.rows.open("a") as file:
            file.write(json.dumps({"section": section, **row}) + "\n")

    def read(self) -> list[dict[str, Any]]:
        lines = self.rows.read_text().splitlines() if self.rows.exists() else []
        return [json.loads(line) for line in lines]

    def call(self, name: str, command: Sequence[str], seconds: float, **more: str) -> int | None:
        """The exit code of a child with its output in a file, which ends with all its own at the latest when its time is over."""
        with (self.out / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                command,
                cwd=ROOT,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self.environment | more,
                start_new_session=True,
            )
            try:
                return child.wait(max(min(seconds, self.left()), 1))
            except subprocess.TimeoutExpired:
                return None
            finally:
                if child.poll() is None:
                    os.killpg(child.pid, signal.SIGKILL)
                    child.wait()

    def python(self, names: Sequence[str]) -> None:
        """These sections in one process; after one that broke or killed it, the others in another."""
        todo = list(names)
        while todo and self.left() > 5:
            options = ["--rows", str(self.rows), "--device", self.given.device, "--until", str(self.end - 2)]
            options += ["--tiny"] * self.given.tiny
            for name in ("base", "store"):
                options += [f"--{name}", str(asked)] if (asked := getattr(self.given, name)) else []
            command = [sys.executable, "-m", "benchmarks.gpu_day.sections", *todo, *options]
            code = self.call("sections", command, self.patience * sum(SECTIONS[name] + 15 for name in todo))
            ended = {row["of"] for row in self.read() if row["section"] == "time"}
            if not set(todo) - ended:
                return
            begun = [row["of"] for row in self.read() if row["section"] == "began" and row["of"] in todo]
            last = begun[-1] if begun else todo[0]
            if last not in ended or not begun:
                how = "it was out of time" if code is None else f"its process ended with {code}"
                self.note(last, failed=f"the section did not end: {how}; see sections.log")
            todo = [name for name in todo if name not in ended and name != last]

    def tests(self) -> None:
        """tests/kernels/test_gpu.py on the device: the whole battery. Without the root's conftest, whose libraries are not there."""
        report = self.out / "tests.xml"
        options = [
            "--noconftest",
            "-c",
            os.devnull,
            "--rootdir",
            str(ROOT),
            "-q",
            "-p",
            "no:cacheprovider",
            f"--junitxml={report}",
        ]
        wanted = ["-k", "merge-0 and cpu"] if self.given.tiny else ["-m", "gpu"]
        command = [sys.executable, "-m", "pytest", *options, *wanted, str(ROOT / "tests/kernels/test_gpu.py")]
        code = self.call("tests", command, self.patience * SECTIONS["tests"])
        cases = list(ET.parse(report).iter("testcase")) if report.exists() else []
        bad = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
        skipped = sum(case.find("skipped") is not None for case in cases)
        self.note("tests", passed=len(cases) - len(bad) - skipped, skipped=skipped)
        if code != 0 or len(cases) == skipped:
            self.note(
                "tests",
                failed=f"pytest ended with {code}; of {len(cases)} cases {len(bad)} failed: {', '.join(map(str, bad[:20]))}",
            )

    def tool(self, name: str, program: str, options: Sequence[str], **more: str) -> None:
        """A section under a tool of CUDA; without it, in a rehearsal, the program alone."""
        found = shutil.which(program)
        module = "profiled" if name == "ncu" else "sanitized"
        rehearsed = ["coefficients-3x5"] if self.given.tiny and name != "ncu" else []
        command = [sys.executable, "-m", f"benchmarks.gpu_day.{module}", self.given.device, *rehearsed]
        if not found and not self.given.tiny:
            self.note(name, missing=program)
            return
        wrapped = [found, *options] if found and not self.given.tiny else []
        code = self.call(name, [*wrapped, *command], self.patience * SECTIONS[name], **more)
        self.note(name, code=code, tool=bool(wrapped))
        if code != 0 and name != "ncu":  # what ncu finds is told; that it may not run, too
            self.note(name, failed=f"ended with {code}; see {name}.log")

    def ncu(self) -> None:
        csv = self.out / "ncu.csv"
        options = ["--clock-control", "none", "--profile-from-start", "off", "--csv", "--log-file", str(csv)]
        self.tool("ncu", "ncu", [*options, "-k", profiled.KERNELS, "--metrics", ",".join(profiled.METRICS)])

    def all(self) -> int:
        """Every section that was asked for; 1 if anything failed."""
        wanted = [name for name in SECTIONS if not self.given.sections or name in self.given.sections.split(",")]
        sanitizers = {name: ["--tool", name, "--error-exitcode", "9"] for name in ("memcheck", "racecheck")}
        done: set[str] = set()
        for name in wanted:
            start = time.monotonic()
            if name in done:
                continue
            if self.left() < 10:
                self.note(name, skipped="out of time")
            elif name in PYTHON:
                together = [each for each in wanted if each in PYTHON]
                self.python(["ceilings"] * ("ceilings" not in together) + together)
                done.update(together)
            elif name in sanitizers:
                self.tool(name, "compute-sanitizer", sanitizers[name], PYTORCH_NO_CUDA_MEMORY_CACHING="1")
            else:
                getattr(self, name)()
            if name not in PYTHON:
                self.note("time", of=name, seconds=time.monotonic() - start)
        found = {"date": datetime.now(UTC).date().isoformat(), "rows": self.read()}
        (self.out / "gpu_day.json").write_text(json.dumps(found, indent=0) + "\n")
        failures = [f"{row['section']}: {row['failed']}" for row in found["rows"] if "failed" in row]
        print(*failures, f"{len(failures)} failures; {self.out / 'gpu_day.json'}", sep="\n")
        return 1 if failures else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_day", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/gpu_day"), help="a folder for what is found")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="toy shapes, each thing once: a rehearsal")
    parser.add_argument("--sections", default="", help=f"some of {', '.join(SECTIONS)}")
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds")
    parser.add_argument("--base", help="a base model by name or file, for the section engine")
    parser.add_argument("--store", type=Path, help="its adapters; the shipped ones if not given")
    parser.add_argument("--page", action="store_true", help="only write docs/gpu.md from benchmarks/data/gpu_day.json")
    given = parser.parse_args(arguments)
    code = 0 if given.page else Run(given).all()
    if not given.page and not given.tiny:
        shutil.copy(given.out / "gpu_day.json", page.DATA)
    if not given.tiny:
        page.PAGE.write_text(page.page(json.loads(page.DATA.read_text()) if page.DATA.exists() else None))
    return code


if __name__ == "__main__":
    sys.exit(main())
