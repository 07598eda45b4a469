"""Threads of a loaded engine: OpenMP keeps workers for every thread that ever computed, and those of two are too many."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os, time
import torch
from soupmix import Engine, Store

def tasks():
    found = [len(os.listdir("/proc/self/task"))]
    while len(set(found[-5:])) > 1 or len(found) < 5:  # threads that have ended take a moment to go
        time.sleep(0.1)
        found.append(len(os.listdir("/proc/self/task")))
    return found[-1]

engine = Engine.load("smollm2-135m-instruct", Store.shipped())
before = tasks()
torch.mm(torch.rand(512, 512), torch.rand(512, 512))
print(tasks() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_loading_leaves_no_workers_behind_in_the_thread_that_asked_for_it() -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "2", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "1"  # the first product of this thread makes its first worker
