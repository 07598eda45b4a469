"""Weights: what a person asked for, as integer millionths, so that policy arithmetic is exact."""

import re
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import ROUND_HALF_EVEN, Context, Decimal
from functools import lru_cache
from itertools import repeat
from types import MappingProxyType
from typing import Final, NoReturn, Self

from soupmix.errors import WeightError
from soupmix.public import public

__all__ = ["MILLION", "Weights", "check_name", "decimal_text", "to_micro", "twins"]

MILLION: Final = 1_000_000
"""Millionths in a weight of 1."""

_LARGEST: Final = 1000
_MOST_NAMES: Final = 1000
_LONGEST_TEXT: Final = 200_000
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)
_NUMBER = re.compile(r"-?(?:[0-9]{1,32}(?:\.[0-9]{1,32})?|\.[0-9]{1,32})", re.ASCII)
_SHORT = re.compile(r"(-?[0-9]{1,3})(?:\.([0-9]{1,6}))?", re.ASCII)
_MILLIONTH = Decimal("0.000001")
_EXACT = Context(prec=28, rounding=ROUND_HALF_EVEN)

type_of_number = int | float | str | Decimal


def check_name(text: str) -> str:
    """Return `text` if it is an adapter name: `[a-z0-9][a-z0-9_-]{0,62}`, ASCII.

    Raises:
        WeightError: it is not (reason "bad-name").
    """
    if not isinstance(text, str) or not _is_name(text):
        raise WeightError(
            f"{_shown(text)} is not a name; a name has 1 to 63 of a-z, 0-9, '-', '_' and starts with a letter or digit",
            reason="bad-name",
        )
    return text


@lru_cache(_MOST_NAMES)  # of the few adapters that there are, again and again
def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def twins(named: Iterable[tuple[str, str]]) -> tuple[str, str] | None:
    """The first two names of one adapter among (name, digest) pairs, or None: what a rule says of one would not hold for both."""
    first: dict[str, str] = {}
    for name, digest in named:
        if digest in first:
            return first[digest], name
        first[digest] = name
    return None


def to_micro(value: object, what: str, *, exact: bool = False) -> int:
    """A number as integer millionths, rounded half-even.

    Text follows one ASCII grammar, `-?digits[.digits]`; a float counts as its shortest decimal (0.3 is 300000).

    Args:
        value: int, float, str or Decimal.
        what: how a message calls the number, for example "weight 'friendly'".
        exact: refuse instead of rounding.

    Raises:
        WeightError: not a number (reason "bad-number"), larger than 1000 in magnitude (reason "too-large"),
            or finer than a millionth where `exact` forbids rounding (reason "too-fine").
    """
    number = _decimal(value, what)
    if number.copy_abs() > _LARGEST:
        raise WeightError(
            f"{what} = {_shown(value)} is beyond the {_LARGEST} that any weight may be", reason="too-large"
        )
    rounded = number.quantize(_MILLIONTH, context=_EXACT)
    if exact and rounded != number:
        raise WeightError(f"{what} = {_shown(value)} is finer than a millionth; round it yourself", reason="too-fine")
    return int(rounded.scaleb(6, context=_EXACT))


def _decimal(value: object, what: str) -> Decimal:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int) and not isinstance(value, bool):
        # An int beyond the limit is cut to just above it: its full decimal text may be refused by Python itself.
        return Decimal(max(-_LARGEST - 1, min(value, _LARGEST + 1)))
    if isinstance(value, float | Decimal):
        number = value if isinstance(value, Decimal) else Decimal(float.__repr__(value))
        if number.is_finite():
            return number
    raise WeightError(
        f"{what} = {_shown(value)} is not a plain decimal number; write it as in 0.3 or -1", reason="bad-number"
    )


def decimal_text(micro: int) -> str:
    """The shortest exact decimal of so many millionths: 900000 is "0.9", -1 is "-0.000001"."""
    whole, rest = divmod(abs(micro), MILLION)
    fraction = f".{rest:06d}".rstrip("0") if rest else ""
    return f"{'-' if micro < 0 else ''}{whole}{fraction}"


@public
class Weights(Mapping[str, int]):
    """Adapter names with weights in integer millionths; immutable, hashable, sorted by name; they hold what was
    checked, and nothing that anybody else holds."""

    __slots__ = ("_micro",)

    _micro: MappingProxyType[str, int]

    def __init__(self, given: "Mapping[str, type_of_number] | str | Sequence[str] | Weights" = ()) -> None:
        """Weights from a mapping of numbers, from text "elementary=0.9,friendly=0.3", or from several such texts.

        Every number is rounded half-even to a millionth. Whether a name exists is for the policy to say.

        Raises:
            WeightError: a bad name or number, a name given twice, text that is not `name=number`, or more than 1000
                names (reason "too-many").
            TypeError: these weights were made before.
        """
        if hasattr(self, "_micro"):
            raise TypeError("weights are immutable; make new ones instead")
        read = given._micro if isinstance(given, Weights) else MappingProxyType(dict(sorted(_read(given).items())))
        object.__setattr__(self, "_micro", read)

    @classmethod
    def from_micro(cls, micro: Mapping[str, int]) -> Self:
        """Weights that are integer millionths already.

        Raises:
            WeightError: a bad name, something that is not an integer, a magnitude beyond 1000, or more than 1000 names.
        """
        _check_many(len(micro))
        for name, value in micro.items():
            if not isinstance(value, int) or isinstance(value, bool) or abs(value) > _LARGEST * MILLION:
                raise WeightError(
                    f"weight {_shown(name)} = {_shown(value)} is not an integer number of millionths up to "
                    f"{_LARGEST * MILLION}",
                    reason="bad-number",
                )
        return cls.unchecked({check_name(name): int(value) for name, value in micro.items()})

    @classmethod
    def unchecked(cls, micro: Mapping[str, int]) -> Self:
        """Weights from names and millionths that were checked before; a copy."""
        made = cls.__new__(cls)
        object.__setattr__(made, "_micro", MappingProxyType(dict(sorted(micro.items()))))
        return made

    def nonzero(self) -> "Weights":
        """These weights without the zeros."""
        return Weights.unchecked({name: micro for name, micro in self._micro.items() if micro})

    def copy(self) -> "Weights":
        """The same weights, sharing nothing with these."""
        made = Weights.__new__(Weights)
        object.__setattr__(made, "_micro", MappingProxyType(self._micro.copy()))
        return made

    def pairs(self) -> tuple[tuple[str, int], ...]:
        """(name, millionths), sorted by name."""
        return tuple(self._micro.items())

    def along(self, names: Sequence[str]) -> tuple[int, ...]:
        """The millionths of these names in their order, 0 where none are given."""
        return tuple(map(self._micro.get, names, repeat(0)))

    def floats(self) -> dict[str, float]:
        """The nearest floats, for the edge where arithmetic stops being exact."""
        return {name: micro / MILLION for name, micro in self.items()}

    def decimals(self) -> dict[str, str]:
        """Shortest exact decimals, for example {"elementary": "0.9"}."""
        return {name: decimal_text(micro) for name, micro in self.items()}

    def __getitem__(self, name: str) -> int:
        return self._micro[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._micro)

    def __len__(self) -> int:
        return len(self._micro)

    def __hash__(self) -> int:
        return hash(frozenset(self._micro.items()))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("weights are immutable; make new ones instead")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("weights are immutable; make new ones instead")

    def __reduce__(self) -> tuple[object, tuple[dict[str, int]]]:
        return Weights.from_micro, (dict(self._micro),)

    def __str__(self) -> str:
        return ",".join(f"{name}={text}" for name, text in self.decimals().items())

    def __repr__(self) -> str:
        return f"Weights({self})"


def _read(given: "Mapping[str, type_of_number] | str | Sequence[str]") -> dict[str, int]:
    """Names and millionths of what a caller gave."""
    if isinstance(given, Mapping):
        _check_many(len(given))
        return {check_name(name): _weight(name, value) for name, value in given.items()}
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise WeightError(
            f"weights are a mapping from names to numbers or text such as 'elementary=0.9', not {_shown(given)}",
            reason="bad-weights",
        )
    if sum(map(len, texts)) > _LONGEST_TEXT:
        raise WeightError(
            f"weights are given in more than {_LONGEST_TEXT} characters; name at most {_MOST_NAMES} adapters",
            reason="too-many",
        )
    micro: dict[str, int] = {}
    for item in (item for text in texts for item in text.split(",")):
        name, value = _split(item.strip(" "))
        if name in micro:
            raise WeightError(f"weight {name!r} is given twice; give every name once", reason="duplicate-name")
        micro[name] = _weight(name, value)
    _check_many(len(micro))
    return micro


def _check_many(count: int) -> None:
    if count > _MOST_NAMES:
        raise WeightError(f"{count} weights are given; name at most {_MOST_NAMES} adapters", reason="too-many")


def _weight(name: str, value: object) -> int:
    """As `to_micro`; at a third of the time for text and floats below 1000 with up to six decimals, as most are."""
    text = value if type(value) is str else repr(value) if type(value) is float else ""
    short = _SHORT.fullmatch(text)
    if short is None and text.endswith("%"):
        raise WeightError(
            f"weight {name!r} = {_shown(text)} is not a plain decimal number but a share of an effect: -w of a command and "
            "requests to a server take those, where the store has a surface.json; here write a weight as in 0.3",
            reason="bad-number",
        )
    if short is None:
        return to_micro(value, f"weight {name!r}")
    whole, rest = short.groups("")
    return int(whole + rest.ljust(6, "0"))


def _split(item: str) -> tuple[str, str]:
    name, equals, value = item.partition("=")
    if not equals:
        raise WeightError(
            f"{_shown(item)} is not a weight; write name=number, for example friendly=0.3", reason="bad-weights"
        )
    return check_name(name), value


def _shown(value: object) -> str:
    """A value as a message may show it: one short line, ASCII."""
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**12:
        return "a huge integer"
    scalar = value is None or isinstance(value, str | int | float | Decimal)
    text = str(value) if scalar else reprlib.repr(value)  # of a list or object only as much as is shown
    text = text if len(text) <= 60 else text[:57] + "..."
    return ascii(text) if isinstance(value, str) else ascii(text)[1:-1]
