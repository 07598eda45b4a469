"""Every attack in a cage of its own; prints one JSON object a line.

python -m tests.attacks
"""

import json
import tempfile
from pathlib import Path

import torch

from tests.attacks.every import ATTACKS
from tests.attacks.on_whole import whole_base
from tests.support.cage import caged


def main() -> None:
    torch.set_num_threads(1)
    for tied in (True, False):
        whole_base(tied=tied)
    with tempfile.TemporaryDirectory() as scratch:
        for number, attack in enumerate(ATTACKS):
            where = Path(scratch) / str(number)
            where.mkdir()
            said = caged(lambda attack=attack, where=where: attack.run(where))
            print(json.dumps({"name": attack.name, **said}), flush=True)


if __name__ == "__main__":
    main()
