"""The server as replicas of a Ray Serve deployment, behind Ray's own router.

    pip install 'soupmix[ray,serve]' 'ray[serve]'
    soupmix serve keys create --tenant acme --database people.db > acme.key
    python examples/ray_serve.py --database people.db --policy organisation.yaml --replicas 2

A replica is what `soupmix serve` is: an engine, the policy, and people's profiles and keys in a database that all replicas
share (PostgreSQL where they are on several machines). Replicas are alike, so any of them answers anybody.
"""

import argparse
import atexit
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from ray import serve
from starlette.types import ASGIApp

from soupmix import Store
from soupmix.backends import Limits
from soupmix.backends.local import LocalBackend
from soupmix.base import resolve
from soupmix.serve.app import application
from soupmix.serve.state import ServerConfig, Settings, open_server


def replicas(given: argparse.Namespace) -> serve.Application:
    """The deployment; a replica opens everything when it starts, on its own node."""

    def opened() -> ASGIApp:
        base, store = resolve(given.base), Store(given.store) if given.store else Store.shipped()
        limits = Limits(rows=given.rows, length=given.length)
        config = ServerConfig(
            settings=Settings(model=base.label),
            backend=lambda: LocalBackend.open(base, store, dtype=given.dtype, limits=limits),
            adapters=store,
            database=given.database,
            policies=lambda: given.policy,
        )
        held = ExitStack()
        atexit.register(held.close)
        return application(held.enter_context(open_server(config)))

    kind = serve.deployment(
        num_replicas=given.replicas,
        max_ongoing_requests=2 * given.rows,  # as many run in a replica, and as many wait there
        ray_actor_options={"num_cpus": given.cpus},
    )
    return kind(serve.ingress(opened)()).bind()


def main() -> None:
    """Serve until Ctrl-C."""
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("--database", required=True, help="file of SQLite, or URL of PostgreSQL")
    words.add_argument("--policy", type=Path, action="append", required=True, help="policy document; repeatable")
    words.add_argument("--store", help="folder of adapters; the shipped ones if not given")
    words.add_argument("--base", default="smollm2-135m-instruct")
    words.add_argument("--dtype", help="fp32, bf16 or fp16; the base's if not given")
    words.add_argument("--replicas", type=int, default=2)
    words.add_argument("--cpus", type=float, default=1.0, help="processors that Ray reserves for a replica")
    words.add_argument("--rows", type=int, default=16, help="answers that a replica makes at once")
    words.add_argument("--length", type=int, default=2048)
    words.add_argument("--port", type=int, default=8000)
    given = words.parse_args()
    serve.start(http_options={"host": "127.0.0.1", "port": given.port})
    serve.run(replicas(given), name="soups")
    sys.stderr.write(f"{given.replicas} replicas answer at http://127.0.0.1:{given.port}/v1; Ctrl-C ends them\n")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    serve.shutdown()


if __name__ == "__main__":
    main()
