"""Two people and the base in one batch of a real vLLM: `make run-vllm`, or `python examples/vllm_people.py PYTHON`.

PYTHON is that of an environment with vLLM and soupmix. A server is started, asked, and ended.
"""

import queue
import sys

from soupmix import Policy, Store
from soupmix.backends import Delta, Limits, Request, Sampling
from soupmix.backends.vllm import VllmBackend
from soupmix.backends.vllm_server import ServedPolicy, vllm_server
from soupmix.base import resolve

PEOPLE = {"the base": {}, "Ann": {"elementary": 0.9, "friendly": 0.5}, "Bob": {"concise": 0.8}}


def main(python: str) -> None:
    """Ask for all three at once."""
    store, base = Store.shipped(), resolve("smollm2-135m-instruct")
    policy, limits = Policy.open(store), Limits(rows=8, length=512)
    sys.stderr.write("starting vLLM ...\n")
    server = vllm_server(base, store.folder, ServedPolicy(), dtype="F32", limits=limits, python=python,
                         arguments=["--enforce-eager"])  # fmt: skip
    with server as (url, key), VllmBackend(url, key, base, tuple(store), dtype="fp32", limits=limits) as backend:
        prompt = backend.tokens([{"role": "user", "content": "Why is the sky blue?"}])
        heard: dict[str, queue.Queue[Delta]] = {name: queue.Queue() for name in PEOPLE}
        for name, weights in PEOPLE.items():
            request = Request(prompt, policy.clamp(weights), Sampling(max_new_tokens=48))
            backend.submit(request, heard[name].put)
        for name, deltas in heard.items():
            text = ""
            while (delta := deltas.get()).finish is None:
                text += delta.text
            sys.stdout.write(f"{name}: {text}{delta.text}\n\n")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else sys.executable)
