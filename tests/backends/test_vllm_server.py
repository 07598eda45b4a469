"""A vLLM server of one's own ends with all of its processes, whatever they do about being asked to."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from soupmix.backends import Limits
from soupmix.backends.vllm_server import ServedPolicy, _last, vllm_server
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


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "it said nothing"),
        ("loading\nkilled\n", "killed"),
        (
            "x ERROR [core.py:1] ValueError: Head size 8\nRuntimeError: Failed. See root cause above.\nwarn('x')",
            "Head size 8",
        ),
        ("api_server.py: error: unrecognized arguments: --x\n", "unrecognized arguments: --x"),
        ("soupmix.errors.PolicyError: no policy\nRuntimeError: core died\n", "no policy"),
        ("soupmix.errors.PolicyRefusal: above-weight: no\nwarn: x\n", "above-weight: no"),
    ],
)
def test_what_a_log_says_was_wrong(said: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "log").write_text(said)
    assert _last(tmp_path / "log") == told


LEFT_ALONE = """import os, signal, subprocess, sys, time
idle = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
worker = subprocess.Popen([sys.executable, "-c", idle])
open(os.environ["MARK"], "w").write(f"{os.getpid()} {worker.pid}")
time.sleep(600)
"""


@pytest.mark.parametrize("killed_first", ["the server", "nobody"])
def test_a_server_ends_with_whoever_started_it(killed_first: str, tmp_path: Path) -> None:
    """Also where the starter's children are killed before their group is: so Ray ends a worker."""
    module = tmp_path / "vllm/entrypoints/openai/api_server.py"
    module.parent.mkdir(parents=True)
    module.write_text(LEFT_ALONE)
    mark = tmp_path / "mark"
    watched, held = os.pipe()
    words = [sys.executable, "-m", "soupmix.vllm_plugin.child", str(watched)]
    here = {**os.environ, "MARK": str(mark), "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])}
    child = subprocess.Popen(words, pass_fds=(watched,), start_new_session=True, env=here)
    os.close(watched)
    try:
        assert wait_for(lambda: mark.exists() and mark.read_text().count(" "), 30)
        server, worker = map(int, mark.read_text().split())
        assert server == child.pid
        if killed_first == "the server":
            child.kill()
            child.wait()
        assert _runs(worker)
        os.close(held)
        assert wait_for(lambda: not _runs(worker), 10)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
