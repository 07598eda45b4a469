"""The attacks are modules beside the tests, so that the table in docs/ can be made from them as well."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
