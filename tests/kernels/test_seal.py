"""The seal of coefficients: no public name gives the kernels a coefficient that was not clamped."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import soupmix_kernels as kernels
from soupmix_kernels import Coefficients, Part, Pool, RowCoefficients, Update

ROWS = torch.zeros(1, dtype=torch.int32)


def pool() -> Pool:
    parts = [[Part(0, torch.ones(16, 32), torch.ones(8, 16), 1.0)]]
    return Pool.stack(parts, [8], inputs=32, dtype=torch.float32, device=torch.device("cpu"))


def clamped() -> Coefficients:
    return pool().coefficients(torch.ones(1, 1), torch.zeros(1), torch.ones(1))


def large() -> dict[str, torch.Tensor]:
    return {"values": torch.full((1, 16), 99.0), "rejected": torch.zeros(1, dtype=torch.int32)}


def begun_anew(made: Any, *said: object) -> Any:
    """`made` after a constructor that fails."""
    with pytest.raises(TypeError):
        made.__init__(*said)
    return made


def from_state(kind: type, *state: object) -> Any:
    made = object.__new__(kind)
    made.__setstate__(list(state))
    return made


def subclass() -> Any:
    class Lenient(Coefficients):  # type: ignore[misc]
        def __post_init__(self, seal: object) -> None:
            pass

    return Lenient(**large())


def subclass_with_its_own_constructor() -> Any:
    class Lenient(Coefficients):  # type: ignore[misc]
        def __init__(self) -> None:
            for name, value in large().items():
                object.__setattr__(self, name, value)

    return Lenient()


def rows_of_a_subclass() -> Any:
    class Lenient(RowCoefficients):  # type: ignore[misc]
        def __post_init__(self, coefficients: Any) -> None:
            object.__setattr__(self, "values", coefficients)
            object.__setattr__(self, "gathered", kernels.cpu.gather(coefficients, self.rows))

    return Lenient(large()["values"], ROWS)  # type: ignore[arg-type]


def gathered(kind: Callable[..., Any] = SimpleNamespace) -> Any:
    values = large()["values"]
    return kind(rows=ROWS, values=values, gathered=kernels.cpu.gather(values, ROWS))


WAYS: dict[str, Callable[[], Any]] = {
    "constructor": lambda: Coefficients(**large()),
    "constructor with a seal": lambda: Coefficients(**large(), seal=object()),
    "a blank one, and its constructor": lambda: begun_anew(object.__new__(Coefficients), *large().values()),
    "a clamped one, and its constructor": lambda: begun_anew(clamped(), *large().values()),
    "replace": lambda: replace(clamped(), **large()),
    "__setstate__": lambda: from_state(Coefficients, *large().values()),
    "pickle": lambda: pickle.loads(pickle.dumps(clamped())),
    "__reduce_ex__": lambda: clamped().__reduce_ex__(2),
    "subclass": subclass,
    "subclass with its own constructor": subclass_with_its_own_constructor,
    "another class of the same names": lambda: SimpleNamespace(**large()),
}
WAYS_OF_ROWS: dict[str, Callable[[], Any]] = {
    "subclass": rows_of_a_subclass,
    "another class of the same names": gathered,
    "__setstate__": lambda: gathered(lambda **said: from_state(RowCoefficients, *said.values())),
    "a made one, and its constructor": lambda: begun_anew(RowCoefficients(clamped(), ROWS), large()["values"], ROWS),
    "pickle": lambda: pickle.loads(pickle.dumps(RowCoefficients(clamped(), ROWS))),
}


def update() -> Update:
    return Update(pool().A, pool().B, clamped())


def update_of_a_subclass() -> Any:
    class Lenient(Update):  # type: ignore[misc]
        def __post_init__(self, coefficients: Any) -> None:
            object.__setattr__(self, "values", coefficients)
            object.__setattr__(self, "factors", (self.B * coefficients, self.A))

    return Lenient(pool().A, pool().B, large()["values"])  # type: ignore[arg-type]


def update_look_alike(kind: Callable[..., Any] = SimpleNamespace) -> Any:
    A, B, values = pool().A, pool().B, large()["values"]
    return kind(A=A, B=B, values=values, factors=(B * values, A))


WAYS_OF_UPDATES: dict[str, Callable[[], Any]] = {
    "constructor": lambda: Update(pool().A, pool().B, large()["values"]),  # type: ignore[arg-type]
    "subclass": update_of_a_subclass,
    "another class of the same names": update_look_alike,
    "__setstate__": lambda: update_look_alike(lambda **said: from_state(Update, *said.values())),
    "a made one, and its constructor": lambda: begun_anew(update(), pool().A, pool().B, large()["values"]),
    "replace": lambda: replace(update(), coefficients=large()["values"]),
    "pickle": lambda: pickle.loads(pickle.dumps(update())),
}


def added(c: Any) -> float:
    """The largest that a layer adds by these."""
    return kernels.soup_linear_(torch.zeros(1, 8), torch.ones(1, 32), pool(), c).max().item()


def merged(c: Any) -> float:
    """The largest that a merge by these gives."""
    return kernels.merge(torch.zeros(8, 32), pool().A, pool().B, c).max().item()


def merged_by(update: Any) -> float:
    return kernels.merge_rows_(torch.zeros(8, 32), update).max().item()


def largest(use: Callable[[], float]) -> float:
    """What comes out; 0 where it is refused."""
    try:
        return use()
    except (AttributeError, TypeError):
        return 0.0


def test_what_is_clamped_passes() -> None:
    made = clamped()
    assert copy.copy(made) is copy.deepcopy(made) is made
    assert added(RowCoefficients(made, ROWS)) == 16 * 32
    assert merged(made) == merged_by(update()) == 16


@pytest.mark.parametrize("way", WAYS)
def test_no_public_way_gives_coefficients(way: str) -> None:
    assert largest(lambda: added(RowCoefficients(WAYS[way](), ROWS))) <= 16 * 32
    assert largest(lambda: merged(WAYS[way]())) <= 16


@pytest.mark.parametrize("way", WAYS_OF_ROWS)
def test_no_public_way_gives_coefficients_of_rows(way: str) -> None:
    assert largest(lambda: added(WAYS_OF_ROWS[way]())) <= 16 * 32


@pytest.mark.parametrize("way", WAYS_OF_UPDATES)
def test_no_public_way_gives_an_update_of_other_coefficients(way: str) -> None:
    assert largest(lambda: merged_by(WAYS_OF_UPDATES[way]())) <= 16
