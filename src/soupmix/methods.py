"""The ways to merge adapters, one entry a method. Commands, recipes, cards, engine and server all read this list.

To add one, write its function from adapters to a stack in `soupmix.merge.methods`, and an entry here. Functions stand as
references, "module:name", so that the list can be read without torch.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal

from soupmix.errors import PolicyRefusal, RecipeError

__all__ = [
    "DEFAULT",
    "METHODS",
    "Method",
    "RequestOp",
    "check_linear",
    "find_method",
    "one_of",
    "request_op",
    "resolve",
    "served",
]

_JANG: Final = "arXiv 2310.11564"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestOp:
    """How a method merges inside the forward pass.

    Attributes:
        op: function of `soupmix_kernels` that adds the soup of every row.
        coefficients: what a rank column counts, as `soupmix_kernels.Pool.coefficients` calls it.
        one_rank: why all adapters of a layer need the same rank, and no scaling may be negative; None if they need not.
    """

    op: str
    coefficients: Literal["delta", "factor"]
    one_rank: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One way to merge adapters by weights.

    Attributes:
        name: as commands, recipes and identities have it. title: what it is, in a few words.
        card: what model cards say of it, Markdown. equation: the merged update of one layer; c_k = w_k s_k is weight times
            scaling. paper: where it comes from, or None.
        is_linear: whether its merge is the weighted sum of deltas, which is all that a rule on the norm can bound.
        load: reference of a function (module path, parts) -> `Stack`, see `soupmix.merge.methods`.
        warn: reference of a function from weighted adapters to sentences that say why the result may mean little, or None.
        request: how it merges at request time; None if it merges at load time only.
    """

    name: str
    title: str
    card: str
    equation: str
    paper: str | None = None
    is_linear: bool
    load: str
    warn: str | None = None
    request: RequestOp | None = None


_DELTA: Final = Method(
    name="delta",
    title="exact sum of deltas",
    card="`delta`: the exact weighted sum of the adapters' deltas.",
    equation="sum_k c_k B_k A_k",
    is_linear=True,
    load="soupmix.merge.methods.delta:stack",
    request=RequestOp(op="soup_linear_", coefficients="delta"),
)
_FACTOR: Final = Method(
    name="factor",
    title="A and B averaged apart",
    card=f"`factor`: A and B averaged separately, as the code of Personalized Soups ({_JANG}) does. Cross terms remain.",
    equation="(sum_k w_k sqrt(s_k) B_k) (sum_k w_k sqrt(s_k) A_k)",
    paper=f"Personalized Soups, Jang et al. 2023, {_JANG}",
    is_linear=False,
    load="soupmix.merge.methods.factor:stack",
    warn="soupmix.merge.methods.factor:warnings",
    request=RequestOp(op="soup_linear_factor_", coefficients="factor", one_rank="averages A and B themselves"),
)

METHODS: Final = {method.name: method for method in (_DELTA, _FACTOR)}
"""Every method by its name."""

DEFAULT: Final = _DELTA.name


def find_method(name: str) -> Method:
    """The entry of a method. Raises `RecipeError` for a name that is none ("unknown-method")."""
    if name not in METHODS:
        known = one_of(f"'{method.name}' ({method.title})" for method in METHODS.values())
        raise RecipeError(f"unknown merge method {name!r}: use {known}", reason="unknown-method")
    return METHODS[name]


def request_op(name: str) -> RequestOp:
    """How a method of `served` merges in the forward pass."""
    op = METHODS[name].request
    if op is None:
        raise RecipeError(f"method {name!r} merges at load time only: use {one_of(served())}", reason="method")
    return op


def served() -> tuple[str, ...]:
    """The names of the methods that merge at request time."""
    return tuple(name for name, method in METHODS.items() if method.request is not None)


def check_linear(name: str, rule: str | None) -> None:
    """Refuse a method under a rule that bounds the norm.

    Args:
        name: of the method. rule: the rule in words, or None if there is none.

    Raises:
        RecipeError: there is no such method ("unknown-method").
        PolicyRefusal: its merge is not the weighted sum of deltas, so that the rule would bound nothing ("norm-not-linear").
    """
    method = find_method(name)
    if rule is not None and not method.is_linear:
        raise PolicyRefusal(
            f"method {name} was asked for, and {rule} bounds the norm of the merged delta, which it can do only where that is "
            f"the weighted sum of the adapters' deltas; use method {one_of(each for each in METHODS if METHODS[each].is_linear)}",
            reason="norm-not-linear",
        )


def resolve(reference: str) -> Any:
    """What a reference "module:name" names; imports the module."""
    module, _, name = reference.partition(":")
    return getattr(import_module(module), name)


def one_of(texts: Iterable[str]) -> str:
    """ "a", "a or b", "a, b or c"."""
    *most, last = texts
    return f"{', '.join(most)} or {last}" if most else last
