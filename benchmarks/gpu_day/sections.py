"""The sections in order, and the process that runs those written in Python."""

import argparse
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

__all__ = ["BROKEN", "SECTIONS"]

# in the order of importance: seconds that a section may take
SECTIONS = {
    "tests": 90,
    "ceilings": 20,
    "bits": 30,
    "decode": 150,
    "merges": 20,
    "shapes": 60,
    "launches": 40,
    "far": 20,
    "compiled": 45,
    "peft": 30,
    "engine": 60,
    "memcheck": 60,
    "racecheck": 45,
    "ncu": 50,
}
BROKEN = 3  # the exit code of a process whose device answers no more


def main(given: Sequence[str] | None = None) -> int:
    """Run sections one after the other, each told when it begins and ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sections", nargs="+")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--until", type=float, default=float("inf"))
    parser.add_argument("--base")
    parser.add_argument("--store")
    asked = parser.parse_args(given)

    from benchmarks.gpu_day import day as days
    from benchmarks.gpu_day import right, speed, whole

    held = days.Day(asked.device, asked.tiny, asked.rows, base=asked.base, store=asked.store)
    _tell(held)
    for name in asked.sections:
        work = next(getattr(module, name) for module in (right, speed, whole) if hasattr(module, name))
        start = time.monotonic()
        held.until = asked.until if asked.tiny else min(start + SECTIONS[name], asked.until)
        held.section = name
        held.note("began", of=name)
        try:
            work(held)
        except days.Broken:
            held.note("time", of=name, seconds=time.monotonic() - start)
            return BROKEN
        except Exception:  # noqa: BLE001  # told, and the next section is run
            try:
                held.fail(name, traceback.format_exc()[-800:])
            except days.Broken:
                return BROKEN
        held.note("time", of=name, seconds=time.monotonic() - start)
        print(f"-- {name}: {time.monotonic() - start:.1f} s", flush=True)
    return 1 if held.failures else 0


def _tell(day) -> None:
    import torch
    import triton

    name = torch.cuda.get_device_name() if day.gpu else "no GPU: Triton's interpreter"
    versions = {"torch": torch.__version__, "triton": triton.__version__, "python": sys.version.split()[0]}
    day.note("about", gpu=name, tiny=day.tiny, cuda=torch.version.cuda, hip=torch.version.hip, **versions)


if __name__ == "__main__":
    sys.exit(main())
