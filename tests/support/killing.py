"""What the programs that kill again and again have in common: their arguments, a folder, a line of JSON, an exit code."""

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path


def main(run: Callable[[int, int, Path], dict[str, int]], about: str, never: Sequence[str]) -> None:
    """Print what `run(kills, seed, folder)` counted; exit code 1 if any of `never` was seen."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kills", nargs="?", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        found = run(given.kills, given.seed, Path(home))
    print(json.dumps(found))
    sys.exit(any(found[name] for name in never))
