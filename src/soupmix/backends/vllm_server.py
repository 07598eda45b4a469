"""A vLLM server of one's own: started as a process beside this one, with the plug-in set up, and ended with it."""

import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING

from soupmix.backends.protocol import Limits
from soupmix.base import Base
from soupmix.dtypes import torch_dtype
from soupmix.errors import SoupmixError
from soupmix.policy import Metric
from soupmix.unreported import UNREPORTED
from soupmix.vllm_plugin import SETUP
from soupmix.vllm_plugin.row import LEAST_KEY

if TYPE_CHECKING:
    from soupmix.trust import SignedSource

__all__ = ["ServedPolicy", "vllm_server", "wait_for_vllm"]

_SECONDS = 900.0  # until it listens: it loads a model, and may compile it
_GRACE = 20.0
_ERROR = re.compile(r"\b[A-Z]\w*(?:Error|Refusal): |\berror: ")


@dataclass(frozen=True, slots=True)
class ServedPolicy:
    """What a vLLM server holds to.

    Attributes:
        documents: policy files, outer tier first. trust: signed sets by tier. metric: see `Policy.load`.
    """

    documents: Sequence[Path] = ()
    trust: "Mapping[str, SignedSource] | None" = None
    metric: Metric = "weights"


@contextmanager
def vllm_server(
    base: Base,
    store: Path,
    policy: ServedPolicy,
    *,
    dtype: str,
    limits: Limits,
    python: str,
    arguments: Sequence[str] = (),
) -> Iterator[tuple[str, bytes]]:
    """A running server, as its URL and the key that rows are sealed with.

    Args:
        base: what it serves. store: folder of the adapters. policy: what it holds to; nothing in it: no policy.
        dtype: as safetensors spells it. limits: `rows` and `length` are told to vLLM.
        python: of an environment with vLLM and soupmix. arguments: further ones for vLLM.

    Raises:
        SoupmixError: it does not come up (reason "vllm-failed"); what it said last is in the message.
    """
    with tempfile.TemporaryDirectory(prefix="soupmix-vllm-") as name:
        folder, key = Path(name), token_bytes(LEAST_KEY)
        setup, port = _write_setup(folder, key, store, policy), _free_port()
        settings = {"model": str(base.folder), "served-model-name": base.label, "host": "127.0.0.1", "port": port}
        settings |= {"dtype": str(torch_dtype(dtype)).removeprefix("torch."), "generation-config": "vllm"}
        settings |= {"max-model-len": limits.length, "max-num-seqs": limits.rows}
        said = [each for option, value in settings.items() for each in (f"--{option}", str(value))]
        with _process(
            [python, "-m", "soupmix.vllm_plugin.child"], [*said, *arguments], setup, folder / "log"
        ) as process:
            url = f"http://127.0.0.1:{port}"
            wait_for_vllm(url, process, folder / "log")
            yield url, key


def _write_setup(folder: Path, key: bytes, store: Path, policy: ServedPolicy) -> Path:
    (folder / "key").write_bytes(key)
    trust = {}
    for tier, source in (policy.trust or {}).items():
        (folder / f"{tier}.root").write_bytes(source.root)
        trust[tier] = {"folder": str(source.folder.absolute()), "root": f"{tier}.root", "floor": source.floor}
    documents = [str(each.absolute()) for each in policy.documents]
    said = {"key": "key", "store": str(store.absolute()), "policy": documents, "trust": trust, "metric": policy.metric}
    path = folder / "setup.json"
    path.write_text(json.dumps({**said, "open": not (documents or trust)}))
    return path


@contextmanager
def _process(
    command: Sequence[str], arguments: Sequence[str], setup: Path, log: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    watched, held = os.pipe()
    environment = {"VLLM_LOGGING_LEVEL": "WARNING", **UNREPORTED, **os.environ, SETUP: str(setup)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [*command, str(watched), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment,
            pass_fds=(watched,),
            start_new_session=True,
        )
    os.close(watched)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
        os.close(held)  # the child ends its group at this, if it is still there
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # and if it is not, others of the group may be
        process.wait()


def wait_for_vllm(url: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until a vLLM server that was started says that it is well. Raises `SoupmixError` (reason "vllm-failed")."""
    import httpx

    until = time.monotonic() + _SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            raise SoupmixError(f"vLLM did not start: {_last(log)}", reason="vllm-failed")
        try:
            if httpx.get(f"{url}/health", timeout=5.0, trust_env=False).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SoupmixError(f"vLLM did not start within {_SECONDS:g} seconds: {_last(log)}", reason="vllm-failed")


def _last(log: Path) -> str:
    """What a log says was wrong: a sentence of ours if there is one, else the last error that is a cause, else its last line."""
    lines = [each for each in log.read_text("utf-8", "replace").splitlines() if each.strip()]
    errors = [each for each in lines if _ERROR.search(each) and "See root cause above" not in each]
    ours = [each for each in errors if "soupmix." in each or "Refusal: " in each]
    found = (ours or errors or lines or ["it said nothing"])[-1]
    return _ERROR.split(found, maxsplit=1)[-1]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
