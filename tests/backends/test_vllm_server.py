"""A vLLM server of one's own ends with all of its processes, whatever they do about being asked to."""

import sys
from pathlib import Path

import pytest

from soupmix.backends import Limits
from soupmix.backends.vllm_server import ServedPolicy, vllm_server
from soupmix.base import Base
from soupmix.errors import SoupmixError
from soupmix.store import Store
from tests.support.process_groups import wait_for

SERVER = """#!{python}
import os, signal, subprocess, sys, time
idle = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", idle])
open({mark!r}, "w").write(str(worker.pid))
{then}
"""


@pytest.mark.parametrize("then", ["sys.exit('RecipeError: it cannot be')", "time.sleep(0.5); os.kill(os.getpid(), 9)"])
def test_what_a_server_leaves_behind_is_ended(then: str, tiny_base: Base, pico_store: Store, tmp_path: Path) -> None:
    mark, python = tmp_path / "worker", tmp_path / "python"
    python.write_text(SERVER.format(python=sys.executable, mark=str(mark), then=then))
    python.chmod(0o755)
    opened = vllm_server(
        tiny_base, pico_store.folder, ServedPolicy(), dtype="F32", limits=Limits(rows=1, length=8), python=str(python)
    )
    with pytest.raises(SoupmixError) as caught, opened:
        pass
    assert caught.value.reason == "vllm-failed"
    worker = int(mark.read_text())
    assert wait_for(lambda: not _runs(worker), 10)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
