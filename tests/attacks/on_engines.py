"""Attacks through what an engine is given: grants of somebody else, and layers that are not what they seem."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from soupmix.engine.layers import insert
from soupmix.engine.rows import ActiveBatch, LoadedAdapters
from soupmix.errors import BaseModelError, PolicyError, SoupmixError
from soupmix.policy import Policy
from soupmix.policy.documents import Document
from soupmix.store import Store
from tests.attacks.attack import Attack
from tests.attacks.on_stores import store
from tests.support.adapter_folder import MODULES

__all__ = ["ATTACKS"]


def _under(held: Store, *, at_least: str) -> Policy:
    approved = [{"name": each.name, "digest": each.digest} for each in held]
    rules = [
        {"rule": "approve", "adapters": approved},
        {"rule": "require", "adapter": "friendly", "at_least": at_least},
    ]
    document = {"tier": "organisation", "issuer": "acme", "version": "1", "rules": rules}
    return Policy.assemble([("acme.yaml", Document.model_validate(document))], held)


def _grant(name: str, tries: str, granting: Callable[[Store], Policy]) -> Attack:
    """Bring a grant of one policy to an engine of another."""

    def run(where: Path) -> None:
        held = Store(store(where))
        loaded = LoadedAdapters.of([held.load(each) for each in held.names], _under(held, at_least="0.8"))
        loaded.weights(granting(held).clamp({}))

    return Attack(name, tries, run, PolicyError, "other-policy")


def _layer(name: str, tries: str, spoil: Callable[[nn.Linear], nn.Linear], error: type[SoupmixError]) -> Attack:
    """Put adapters on a layer that is not plain."""

    def run(where: Path) -> None:
        held = Store(store(where))
        adapters = [held.load(each) for each in held.names]
        model = nn.Module()
        for path in MODULES:
            within = model
            for part in path.split(".")[:-1]:
                within.add_module(part, getattr(within, part, nn.Module()))
                within = getattr(within, part)
            setattr(within, path.rpartition(".")[2], spoil(nn.Linear(32, 32, bias=False)))
        insert(model, adapters, ActiveBatch(LoadedAdapters.of(adapters), torch.device("cpu")), fused=True)

    return Attack(name, tries, run, error, "quantised")


def _as(dtype: torch.dtype) -> Callable[[nn.Linear], nn.Linear]:
    def spoil(linear: nn.Linear) -> nn.Linear:
        linear.weight = nn.Parameter(linear.weight.data.to(dtype), requires_grad=False)
        return linear

    return spoil


ATTACKS = (
    _grant("grant-of-no-policy", "weights that nobody's rules were asked for", lambda held: Policy.open(held)),
    _grant(
        "grant-of-another-policy", "the rules of a policy that allows more", lambda held: _under(held, at_least="0.1")
    ),
    _layer("layer-of-int8", "adapters rounded to whole numbers", _as(torch.int8), BaseModelError),
    _layer("layer-of-float8", "adapters rounded to eight bits", _as(torch.float8_e4m3fn), BaseModelError),
)
