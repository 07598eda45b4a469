"""The seal of soups: no public name gives one of another grant or of other tensors but `merge`."""

import contextlib
import copy
import dataclasses
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from soupmix.merge import Soup


def fields_of(soup: Soup) -> dict[str, Any]:
    return {each.name: getattr(soup, each.name) for each in dataclasses.fields(Soup)}


def other(soup: Soup) -> dict[str, Any]:
    """All that a forged soup would say."""
    return fields_of(soup) | {"method": "forged", "modules": {}}


def begun_anew(soup: Soup) -> Soup:
    with contextlib.suppress(TypeError):
        soup.__init__(**other(soup))  # type: ignore[misc]
    return soup


def from_state(soup: Soup) -> Soup:
    made = object.__new__(Soup)
    made.__setstate__(list(other(soup).values()))  # type: ignore[attr-defined]
    return made


def subclass(soup: Soup) -> Soup:
    class Lenient(Soup):  # type: ignore[misc]
        def __post_init__(self, seal: object = None) -> None:
            pass

    return Lenient(**other(soup))


def emptied(soup: Soup) -> Soup:
    soup.modules.clear()  # type: ignore[attr-defined]
    return soup


WAYS: dict[str, Callable[[Soup], Any]] = {
    "constructor": lambda soup: Soup(**other(soup)),
    "constructor of a merged one": begun_anew,
    "replace": lambda soup: dataclasses.replace(soup, modules={}),
    "__setstate__": from_state,
    "pickle": lambda soup: pickle.loads(pickle.dumps(soup)),
    "subclass": subclass,
    "its modules": emptied,
}


@pytest.mark.parametrize("way", WAYS)
def test_no_public_way_gives_another_soup(way: str, soup: Soup) -> None:
    before = fields_of(soup) | {"modules": dict(soup.modules)}
    try:
        made = WAYS[way](soup)
    except (AttributeError, TypeError):
        made = soup
    assert made is soup
    assert fields_of(soup) | {"modules": dict(soup.modules)} == before


def test_a_copy_is_the_soup(soup: Soup) -> None:
    assert copy.copy(soup) is copy.deepcopy(soup) is soup
