"""Faults and killers are modules beside the tests."""

import sys
from pathlib import Path

for _folder in ("crash", "attacks", "soak"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))
