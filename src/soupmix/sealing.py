"""What keeps a class to its one maker. Private names are no wall, as docs/threats.md says; this is against public ones."""

from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

__all__ = ["sealed"]

_Class = TypeVar("_Class", bound=type)


def sealed(maker: str, away: str) -> Callable[[_Class], _Class]:
    """Close all that Python gives a dataclass to make one: constructor, subclasses, pickles, `__setstate__`; a copy is itself.

    The constructor refuses before it sets anything, so who catches the error has changed nothing.

    Args:
        maker: what an error says of who makes one.
        away: what an error says to whoever pickles one.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise TypeError(maker)

    def stay(self: object) -> NoReturn:
        raise TypeError(away)

    def same(self: object, *_: object) -> object:
        return self

    methods: dict[str, Any] = {
        "__init__": refuse,
        "__init_subclass__": classmethod(refuse),
        "__setstate__": refuse,
        "__reduce__": stay,
        "__copy__": same,
        "__deepcopy__": same,
    }

    def close(kind: _Class) -> _Class:
        for name, method in methods.items():
            setattr(kind, name, method)
        return kind

    return close


def _by_maker(kind: type[Any], **fields: object) -> Any:
    """One of a sealed class with these fields: for its one maker, and nobody else."""
    made = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(made, name, value)
    return made
