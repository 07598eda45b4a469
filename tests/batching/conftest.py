"""Asking a batcher, and the simulator that `make soak` runs longer, are modules beside the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
