"""The battery of cases is shared by the interpreter's tests and those of the other backends."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "interpreted"))
