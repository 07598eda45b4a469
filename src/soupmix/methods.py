"""The ways to merge adapters, one entry a method. Commands, recipes, cards, engine and server all read this list.

To add one, write its function from adapters to a merged update in `soupmix.merge.methods`, and an entry here. Functions stand as
references, "module:name", so that the list can be read without torch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final, Literal

from soupmix.errors import PolicyRefusal, RecipeError
from soupmix.options import Option, Options, check_inside, checked

__all__ = [
    "DEFAULT",
    "METHODS",
    "Method",
    "RequestOp",
    "check_linear",
    "find_method",
    "one_of",
    "options_of",
    "request_op",
    "resolve",
    "served",
]

_JANG: Final = "arXiv 2310.11564"
_ON_DELTAS: Final = (
    "PEFT prunes A and B apart under this name, and whole deltas under `{0}_svd`; that one is meant here. "
)
_WEIGHTS: Final = (
    "mergekit divides by the weights that agree (`normalize`, which is false here, so that no clamp is undone). "
)


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

    Twice the weights are twice the update, whatever the method (but for `factor`, four times), so that none gives back what was
    taken from all weights alike. What one adapter has of it is its weight in `delta` alone.

    Attributes:
        name: as commands, recipes and identities have it. title: what it is, in a few words.
        card: what model cards say of it, Markdown. equation: the merged update of one layer; c_k = w_k s_k is weight times
            scaling. paper: where it comes from, or None.
        is_linear: whether its merge is the weighted sum of deltas, so that the weights alone tell its norm.
        form: what comes out of a layer, "factors", which an adapter holds as they are, or "entries" of a whole matrix, which an
            adapter approximates.
        options: what it can be asked for, besides `soupmix.options.LAYERS`, which every method has.
        load: reference of a function (module path, parts, **options) -> merged update, see `soupmix.merge.methods`.
        warn: reference of a function from weighted adapters to sentences that say why the result may mean little, or None.
        request: how it merges at request time, per row; None if it merges at load time only.
        spellings: what recipes of mergekit call it -> whether mergekit normalises it where nothing is said.
        differs: where PEFT and mergekit mean something else by the name, Markdown, one sentence or more.
    """

    name: str
    title: str
    card: str
    equation: str
    paper: str | None = None
    is_linear: bool
    form: Literal["factors", "entries"] = "factors"
    options: tuple[Option, ...] = ()
    load: str
    warn: str | None = None
    request: RequestOp | None = None
    spellings: Mapping[str, bool] = field(default_factory=dict)
    differs: str = ""


_DELTA: Final = Method(
    name="delta",
    title="exact sum of deltas",
    card="`delta`: the exact weighted sum of the adapters' deltas.",
    equation="sum_k c_k B_k A_k",
    is_linear=True,
    load="soupmix.merge.methods.delta:stack",
    request=RequestOp(op="soup_linear_", coefficients="delta"),
    spellings={"task_arithmetic": False, "linear": True},
    differs="PEFT calls it `cat`; its `linear` keeps cross terms, as `factor` does.",
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

_SEED: Final = Option(name="seed", help="of what is drawn", kind="whole", default=0)
_DENSITY: Final = Option(
    name="density", help="share of every delta's entries that is kept", kind="share", default=0.5, is_open=True
)
_RESCALE: Final = Option(
    name="rescale",
    help="by what the kept entries grow: one over their probability, what keeps the sum of sizes, or nothing",
    kind="choice",
    default="probability",
    choices=("probability", "l1", "none"),
)
_ELECT: Final = Option(
    name="elect",
    help="which sign an entry gets: that of the weighted sum, or of most adapters",
    kind="choice",
    default="mass",
    choices=("mass", "count"),
)
_NORMALIZE: Final = Option(
    name="normalize",
    help="divide every entry by the share of all weights that agree on its sign",
    kind="flag",
    default=False,
)
_EPSILON: Final = Option(
    name="epsilon",
    help="how far the largest and smallest entries of a row are from the density",
    kind="share",
    default=0.1,
)
_GAMMA: Final = Option(name="gamma", help="share of the largest entries that is dropped", kind="share", default=0.01)
_ELECTED: Final = (_ELECT, _NORMALIZE)
_YU: Final = "DARE, Yu et al. 2024, arXiv 2311.03099"
_YADAV: Final = "TIES-Merging, Yadav et al. 2023, arXiv 2306.01708"
_DEEP: Final = "DELLA-Merging, Deep et al. 2024, arXiv 2406.11617"
_DAVARI: Final = "Model Breadcrumbs, Davari and Belilovsky 2023, arXiv 2312.06795"
_ELECTION: Final = "s = sign(sum_k w_k x_k); entries with that sign: sum_k w_k x_k [sign(x_k) = s]"
_DRAWS: Final = "Which entries are drawn differs from either, as seeds and generators do. "


def _sparse(name: str, title: str, says: str, **fields: Any) -> Method:
    """An entry for a method that keeps some entries of every delta d_k = s_k B_k A_k and adds what is kept, x_k."""
    said: dict[str, Any] = {"is_linear": False, "form": "entries", "spellings": {name: False}} | fields
    return Method(
        name=name, title=title, card=f"`{name}`: {says}.", load=f"soupmix.merge.methods.sparse:{name}", **said
    )


_SPARSE: Final = (
    _sparse(
        "magnitude_prune",
        "the largest entries added",
        "the largest entries of every delta, added by weight",
        equation="sum_k w_k x_k, x_k = the largest entries of d_k",
        options=(_DENSITY,),
        spellings={},
        differs=_ON_DELTAS.format("magnitude_prune"),
    ),
    _sparse(
        "ties",
        "largest entries that agree on a sign",
        "the largest entries of every delta, those that agree with the elected sign added by weight",
        equation=f"x_k = the largest entries of d_k; {_ELECTION}",
        paper=_YADAV,
        options=(_DENSITY, *_ELECTED),
        spellings={"ties": True},
        differs=_ON_DELTAS.format("ties")
        + "PEFT elects the sign before it weighs, and divides by the number of adapters that agree. "
        + _WEIGHTS,
    ),
    _sparse(
        "dare_linear",
        "drawn entries, rescaled and added",
        "entries of every delta drawn by chance, rescaled, and added by weight",
        equation="sum_k w_k x_k, x_k = d_k m_k / density, m_k ~ Bernoulli(density)",
        paper=_YU,
        options=(_DENSITY, _RESCALE, _SEED),
        differs=_ON_DELTAS.format("dare_linear") + _DRAWS + "mergekit rescales to the sum of sizes (`rescale: l1`).",
    ),
    _sparse(
        "dare_ties",
        "drawn entries that agree on a sign",
        "entries of every delta drawn by chance and rescaled, those that agree with the elected sign added by weight",
        equation=f"x_k = d_k m_k / density, m_k ~ Bernoulli(density); {_ELECTION}",
        paper=f"{_YU}; {_YADAV}",
        options=(_DENSITY, _RESCALE, *_ELECTED, _SEED),
        differs=_ON_DELTAS.format("dare_ties") + _DRAWS + _WEIGHTS,
    ),
    _sparse(
        "della",
        "entries drawn by size that agree on a sign",
        "entries of every delta drawn, larger ones more likely, those that agree with the elected sign added by weight",
        equation=f"x_k = d_k m_k / p_k, p_k from density - epsilon to density + epsilon by rank in the row; {_ELECTION}",
        paper=_DEEP,
        options=(_DENSITY, _EPSILON, _RESCALE, *_ELECTED, _SEED),
        spellings={"della": True},
        differs=_DRAWS + _WEIGHTS + "mergekit rescales to the sum of sizes (`rescale: l1`).",
    ),
    _sparse(
        "della_linear",
        "entries drawn by size, added",
        "entries of every delta drawn, larger ones more likely, rescaled, and added by weight",
        equation="sum_k w_k x_k, x_k as of della",
        paper=_DEEP,
        options=(_DENSITY, _EPSILON, _RESCALE, _SEED),
        differs=_DRAWS + "mergekit rescales to the sum of sizes (`rescale: l1`).",
    ),
    _sparse(
        "breadcrumbs",
        "neither the largest nor the smallest entries, added",
        "every delta without its largest and smallest entries, added by weight",
        equation="sum_k w_k x_k, x_k = d_k without its gamma largest and 1 - density - gamma smallest entries",
        paper=_DAVARI,
        options=(_DENSITY, _GAMMA),
    ),
    _sparse(
        "breadcrumbs_ties",
        "neither largest nor smallest entries, those that agree on a sign",
        "every delta without its largest and smallest entries, those that agree with the elected sign added by weight",
        equation=f"x_k as of breadcrumbs; {_ELECTION}",
        paper=f"{_DAVARI}; {_YADAV}",
        options=(_DENSITY, _GAMMA, *_ELECTED),
        differs=_WEIGHTS,
    ),
)

_OTHERS: Final = (
    Method(
        name="svd",
        title="best sum of a low rank",
        card="`svd`: the best approximation, of a lower rank, of the weighted sum of deltas.",
        equation="U_r S_r V_r^T of sum_k c_k B_k A_k = U S V^T",
        paper="Eckart and Young 1936, Psychometrika 1",
        is_linear=False,
        options=(
            Option(
                name="svd_rank",
                help="of every layer; that of the largest adapter if not given",
                kind="whole",
                default=None,
                low=1,
            ),
        ),
        load="soupmix.merge.methods.svd:stack",
        differs="PEFT's `svd` is the same, by a dense decomposition.",
    ),
    Method(
        name="slerp",
        title="from one delta to another on a sphere",
        card="`slerp`: two deltas, spherical interpolation in every layer.",
        equation="(w_1 + w_2) (sin((1-t) a) d_1 + sin(t a) d_2) / sin(a), t = w_2 / (w_1 + w_2), a the angle between d_1 and d_2",
        paper="Shoemake 1985, SIGGRAPH 19(3)",
        is_linear=False,
        load="soupmix.merge.methods.spherical:slerp",
        differs="mergekit interpolates whole weights with a global angle; here, deltas.",
    ),
    Method(
        name="karcher",
        title="mean of directions on a sphere",
        card="`karcher`: in every layer the weighted Riemannian mean of the deltas' directions, with the weighted mean of norms.",
        equation="(sum_k w_k |d_k|) u, u = argmin sum_k w_k angle(u, d_k)^2 over |u| = 1",
        paper="Karcher 1977, Communications on Pure and Applied Mathematics 30",
        is_linear=False,
        load="soupmix.merge.methods.spherical:karcher",
        differs="mergekit takes the mean of whole weights, without weights of the models; here, of deltas.",
    ),
    Method(
        name="model_stock",
        title="sum, shortened by the angles between deltas",
        card="`model_stock`: the weighted sum of deltas, shortened in every layer by how far they are apart.",
        equation="t sum_k w_k d_k, t = K c / (1 + (K - 1) c), c the mean cosine of pairs, at least 0",
        paper="Model Stock, Jang et al. 2024, arXiv 2403.19522",
        is_linear=False,
        load="soupmix.merge.methods.stock:stack",
        differs="mergekit takes three models or more and no weights, which is 1/K each here.",
    ),
    Method(
        name="sce",
        title="entries that vary most, weighted by their size",
        card="`sce`: the entries that vary most, averaged by how large each delta is, without the signs of the minority.",
        equation="sum_k q_k x_k m_k / sum_k q_k m_k, q_k = |x_k|^2, x_k = w_k d_k where entries vary most, m_k = agrees",
        paper="FuseChat, Wan et al. 2024, arXiv 2408.07990",
        is_linear=False,
        form="entries",
        options=(
            Option(name="select", help="share of the entries that is kept", kind="share", default=1.0, is_open=True),
        ),
        load="soupmix.merge.methods.sce:merged",
        differs="mergekit's `select_topk`, and no weights, which is 1 each here.",
    ),
    Method(
        name="knots",
        title="merged in the space that the deltas share",
        card="`knots`: all deltas in one basis, merged there entry by entry.",
        equation="[d_1 ... d_K] = U S [V_1 ... V_K]; U merged(w_k, S V_k), merged as of `inner`",
        paper="KnOTS, Stoica et al. 2024, arXiv 2410.19735",
        is_linear=False,
        options=(
            Option(
                name="inner",
                help="how it merges there",
                kind="choice",
                default="ties",
                choices=("ties", "dare_linear", "dare_ties"),
            ),
            _DENSITY,
            _RESCALE,
            *_ELECTED,
            _SEED,
        ),
        load="soupmix.merge.methods.knots:stack",
        differs="The released code gives the first weight to all tasks; here, each its own.",
    ),
)


METHODS: Final = {method.name: method for method in (_DELTA, _FACTOR, *_OTHERS, *_SPARSE)}
"""Every method by its name."""

DEFAULT: Final = _DELTA.name


def find_method(name: str) -> Method:
    """The entry of a method. Raises `RecipeError` for a name that is none ("unknown-method")."""
    if name not in METHODS:
        near = get_close_matches(str(name), METHODS, n=1)
        guess = f", did you mean {near[0]!r}?" if near else ":"
        raise RecipeError(
            f"unknown merge method {name!r}{guess} use {one_of(map(repr, METHODS))}", reason="unknown-method"
        )
    return METHODS[name]


def options_of(name: str, given: Options) -> dict[str, Any]:
    """All options of a method with their values, see `soupmix.options.checked`, which also says what is raised."""
    found = checked(name, find_method(name).options, given)
    if "inner" in found:
        check_inside(name, find_method(name).options, found, find_method(found["inner"]).options)
    return found


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
    """Refuse a method under a rule that bounds the norm, which cannot be held to it.

    What is merged at load time only is measured then, and shortened (see `soupmix.merge.bound`).

    Args:
        name: of the method. rule: the rule in words, or None if there is none.

    Raises:
        RecipeError: there is no such method ("unknown-method").
        PolicyRefusal: rows merge by it, and not to the weighted sum of deltas, so that the rule would bound nothing
            ("norm-not-linear").
    """
    method = find_method(name)
    if rule is not None and not method.is_linear and method.request is not None:
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
