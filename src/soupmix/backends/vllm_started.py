"""A vLLM server and the backend that asks it, begun and ended together."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from soupmix.backends.protocol import Limits
from soupmix.backends.vllm import VllmBackend
from soupmix.backends.vllm_server import ServedPolicy, vllm_server
from soupmix.base import Base
from soupmix.base.loading import empty_model
from soupmix.dtypes import dtype_or
from soupmix.engine.positions import positions
from soupmix.policy import Policy
from soupmix.store import Store

__all__ = ["started_vllm"]


@contextmanager
def started_vllm(
    base: Base,
    store: Store,
    served: ServedPolicy,
    *,
    dtype: str | None = None,
    policy: Policy | None = None,
    limits: Limits = Limits(),  # noqa: B008  # frozen
    python: str = sys.executable,
    arguments: Sequence[str] = (),
) -> Iterator[VllmBackend]:
    """A backend over a server that is started for it alone.

    Args:
        served: what the server holds to. python, arguments: as of `vllm_server`. dtype, policy, limits: as of `VllmBackend`.

    Raises:
        SoupmixError, BaseModelError: as `vllm_server` and `VllmBackend`.
    """
    config = empty_model(base.folder).config
    code, most = dtype_or(dtype, config.dtype), positions(config)
    limits = replace(limits, length=min(limits.length, most or limits.length))
    server = vllm_server(base, store.folder, served, dtype=code, limits=limits, python=python, arguments=arguments)
    adapters = tuple(store)
    with (
        server as (url, key),
        VllmBackend(url, key, base, adapters, dtype=dtype, policy=policy, limits=limits) as backend,
    ):
        yield backend
