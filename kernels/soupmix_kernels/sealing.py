"""What keeps a class to its one maker: no kinds of it, none from the state of another. `soupmix.sealing` does so above."""

from typing import NoReturn, TypeVar

__all__ = ["sealed"]

_Class = TypeVar("_Class", bound=type)


def sealed(kind: _Class) -> _Class:
    """Close what Python gives every class besides its constructor: subclasses, pickles, `__setstate__`; a copy is the object.

    The constructor must refuse before it sets anything.
    """

    def refuse(*_: object, **__: object) -> NoReturn:
        raise TypeError(f"{kind.__name__} has no subclasses, and none comes from a pickle or from the state of another")

    def same(self: object, *_: object) -> object:
        return self

    closed = {"__init_subclass__": classmethod(refuse), "__reduce__": refuse, "__setstate__": refuse}
    for name, method in {**closed, "__copy__": same, "__deepcopy__": same}.items():
        setattr(kind, name, method)
    return kind
