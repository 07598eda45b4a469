"""Oracles and random policies are shared by several tests, and by the long runs of `make soak`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
