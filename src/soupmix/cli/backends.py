"""Who answers: the engine of this process, vLLM, or a Ray cluster. Options of `soupmix serve` and `soupmix batch`."""

import functools
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import click

from soupmix.cli.options import PATH, device_option
from soupmix.errors import SoupmixError
from soupmix.methods import DEFAULT

if TYPE_CHECKING:
    from soupmix.backends import Backend, Limits
    from soupmix.backends.vllm_server import ServedPolicy
    from soupmix.base import Base
    from soupmix.policy import Policy
    from soupmix.store import Store

__all__ = ["AskedBackend", "backend_options", "batch_backend_options", "opener"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class AskedBackend:
    """Which backend a command line asks for.

    Attributes:
        name: "local", "vllm" or "ray". url, key: of a vLLM server that runs already. python, arguments: of one that is started.
        workers: of a Ray cluster. inside: "local" or "vllm", who answers in each of them.
        device: where the engine of this process computes.
    """

    name: str = "local"
    url: str | None = None
    key: Path | None = None
    python: str = sys.executable
    arguments: tuple[str, ...] = ()
    workers: int = 2
    inside: Literal["local", "vllm"] = "local"
    device: str = "cpu"

    @property
    def settings(self) -> dict[str, str]:
        """What results depend on, where it is not what it is if nobody says."""
        kind = self.device.partition(":")[0]
        name = self.name if self.inside == "local" else f"{self.name} of {self.inside}"
        return ({} if name == "local" else {"backend": name}) | ({} if kind == "cpu" else {"device": kind})


def backend_options(command: _Command) -> _Command:
    """`--backend NAME` and what belongs to it; the command gets `asked: AskedBackend`."""

    @click.option(
        "--backend",
        "name",
        type=click.Choice(("local", "vllm")),
        default="local",
        show_default=True,
        help="Who computes answers: this process, or vLLM.",
    )
    @device_option
    @_vllm_options
    @functools.wraps(command)
    def with_backend(*given: Any, name: str, device: str, vllm: AskedBackend, **options: Any) -> Any:
        asked = replace(vllm, name=name, device=device)
        _check(asked)
        return command(*given, asked=asked, **options)

    return cast("_Command", with_backend)


def batch_backend_options(command: _Command) -> _Command:
    """`backend_options` with Ray among the backends."""

    @click.option(
        "--backend",
        "name",
        type=click.Choice(("local", "vllm", "ray")),
        default="local",
        show_default=True,
        help="Who computes answers: this process, vLLM, or the Ray cluster of RAY_ADDRESS, one on this machine if unset.",
    )
    @click.option(
        "--ray-workers", "workers", default=2, show_default=True, type=click.IntRange(1), help="Of a Ray cluster."
    )
    @click.option(
        "--ray-inside",
        "inside",
        type=click.Choice(("local", "vllm")),
        default="local",
        show_default=True,
        help="Who computes answers in each of them: its own process, or a vLLM that it starts.",
    )
    @device_option
    @_vllm_options
    @functools.wraps(command)
    def with_backend(
        *given: Any, name: str, workers: int, inside: Any, device: str, vllm: AskedBackend, **options: Any
    ) -> Any:
        asked = replace(vllm, name=name, workers=workers, inside=inside, device=device)
        _check(asked)
        return command(*given, asked=asked, **options)

    return cast("_Command", with_backend)


def _vllm_options(command: _Command) -> _Command:
    """The command gets `vllm: AskedBackend`."""

    @click.option("--vllm", "url", metavar="URL", help="vLLM server that runs already, with soupmix's plug-in.")
    @click.option("--vllm-key", "key", metavar="FILE", type=PATH, help="Key that this server and soupmix share.")
    @click.option(
        "--vllm-python",
        "python",
        metavar="FILE",
        default=sys.executable,
        show_default="this one",
        help="Python with vLLM and soupmix, by which a server is started if none is named.",
    )
    @click.option(
        "--vllm-argument",
        "arguments",
        metavar="TEXT",
        multiple=True,
        help="Further argument of a vLLM server that is started; repeatable.",
    )
    @functools.wraps(command)
    def with_vllm(
        *given: Any, url: str | None, key: Path | None, python: str, arguments: tuple[str, ...], **options: Any
    ) -> Any:
        return command(*given, vllm=AskedBackend("vllm", url, key, python, arguments), **options)

    return cast("_Command", with_vllm)


def _check(asked: AskedBackend) -> None:
    if asked.name != "local" and asked.device != "cpu":
        raise click.UsageError(f"--device is of this process; --backend {asked.name} computes where its workers are")
    if asked.inside != "local" and asked.name != "ray":
        raise click.UsageError("--ray-inside goes with --backend ray")
    if asked.name != "vllm" and (asked.url or asked.key):
        raise click.UsageError("--vllm and --vllm-key go with --backend vllm")
    if asked.arguments and "vllm" not in {asked.name, asked.inside}:
        raise click.UsageError("--vllm-argument goes with --backend vllm, and with --ray-inside vllm")
    if (asked.url is None) != (asked.key is None):
        raise click.UsageError("--vllm URL and --vllm-key FILE go together: a server that runs already has a key")
    if asked.url is not None and asked.arguments:
        raise click.UsageError("--vllm-argument is for a server that is started here; leave out --vllm")


def opener(
    asked: AskedBackend,
    base: "Base",
    store: "Store",
    limits: "Limits",
    *,
    dtype: str | None,
    method: str,
    served: Callable[[], "ServedPolicy"],
    policy: "Policy | None" = None,
) -> "Callable[[], AbstractContextManager[Backend]]":
    """What opens the backend that is asked for.

    Args:
        served: what a vLLM server that is started holds to. policy: the one whose grants are taken; None: those of any.

    Raises:
        click.UsageError: vLLM is asked for another method than the exact sum.
    """
    if asked.name != "local" and method != DEFAULT:
        raise click.UsageError(f"--backend {asked.name} merges by {DEFAULT}; leave --method out")
    given = _Given(base, store, limits, dtype, served, policy)
    if asked.name == "ray":
        return lambda: _ray(asked, given)
    if asked.name == "vllm":
        return lambda: _vllm(asked, given)
    from soupmix.backends.local import LocalBackend

    how: Mapping[str, Any] = {"dtype": dtype, "device": asked.device, "limits": limits, "method": method}
    return lambda: LocalBackend.open(base, store, policy=policy, **how)


@dataclass(frozen=True, slots=True)
class _Given:
    """What every backend is opened with, see `opener`."""

    base: "Base"
    store: "Store"
    limits: "Limits"
    dtype: str | None
    served: Callable[[], "ServedPolicy"]
    policy: "Policy | None"


def _vllm(asked: AskedBackend, given: _Given) -> "AbstractContextManager[Backend]":
    try:
        from soupmix.backends.vllm import VllmBackend
        from soupmix.backends.vllm_started import started_vllm
    except ModuleNotFoundError as error:
        raise SoupmixError("asking vLLM needs httpx: pip install 'soupmix[vllm]'", reason="no-vllm-extra") from error
    from soupmix.vllm_plugin.row import read_key

    how: Mapping[str, Any] = {"dtype": given.dtype, "policy": given.policy, "limits": given.limits}
    if asked.url is not None and asked.key is not None:
        return VllmBackend(asked.url, read_key(asked.key), given.base, tuple(given.store), **how)
    begun: Mapping[str, Any] = {"python": asked.python, "arguments": asked.arguments}
    return started_vllm(given.base, given.store, given.served(), **how, **begun)


def _ray(asked: AskedBackend, given: _Given) -> "AbstractContextManager[Backend]":
    try:
        from soupmix.backends.ray import Inside, RayBackend
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SoupmixError(
            "a Ray cluster needs ray, which is not installed: pip install 'soupmix[ray]'", reason="no-ray-extra"
        ) from error
    if given.policy is None:
        raise click.UsageError("--backend ray answers under one policy, and none was made; use it with `soupmix batch`")
    held = given.served()
    inside = Inside(asked.inside, asked.arguments)
    how: Mapping[str, Any] = {"workers": asked.workers, "inside": inside, "dtype": given.dtype, "limits": given.limits}
    return RayBackend(given.base, given.store, given.policy, held.documents, trust=held.trust, **how)
