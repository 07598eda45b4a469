"""`python -m tests.support.methods_page > docs/methods.md`: every way of merging, from the registry."""

from collections.abc import Iterator
from textwrap import wrap

from soupmix.methods import DEFAULT, METHODS, Method
from soupmix.options import Option

HEAD = f"""\
# Ways of merging

Made by `python -m tests.support.methods_page > docs/methods.md` from [methods.py](../src/soupmix/methods.py).

`soupmix merge --method ties --density 0.3 -w friendly=0.5,concise=0.4 OUT`, or in a recipe `method: ties` with
`options: {{density: 0.3}}`. In Python `merge(store, grant, method="ties", options={{"density": 0.3}})`. `{DEFAULT}`,
the exact weighted sum of deltas, is the one that everything else of soupmix is about.

What holds for all of them:

- **The policy clamps first.** A method sees granted weights. Twice the weights are twice the update (but for `factor`,
  four times), so that none gives back what was taken from all weights alike. What was taken from one adapter alone is
  exact in `{DEFAULT}` only: by `normalize`, `slerp` and `karcher` an adapter can act by more than its own weight, as
  agreement and directions count there. So where policy documents bound the weights, `normalize` is refused
  (`above-weight`), and every layer in which `slerp` or `karcher` would do so is shortened until none does; without
  documents a warning says by how much they do (.5 and .5 of two unrelated adapters act as .71 each). A rule on
  the norm binds what comes out: where that is longer than the weighted sum of deltas, which the clamp holds to the
  rule, it is shortened to it, and said so.
- **Only what is linear in stacked columns is served per row.** The other methods make an adapter or a model at load
  time; the engine refuses them by a sentence.
- **Factors or entries.** Where a method gives factors, an adapter of it is exact. Where it gives the entries of whole
  matrices, a model is exact, and an adapter is the best approximation of a rank (that of all adapters together, or
  `--rank`), whose loss is told, in the report, on the card and on stderr.
- **Deltas, not files.** All methods work on s B A, whatever the ranks, alphas and initialisations. Adapters that change
  more than factors of linear layers are for `{DEFAULT}` alone.
- **Seeds.** What is drawn for an adapter in a layer depends on the seed, its digest and the layer's path, and on
  nothing else that is merged.
- **The record holds all of it.** Method and options, defaults too, are part of the merge identity, the recipe, the card
  and the provenance, and `soupmix verify` repeats them.

Every method is held to a float64 reference of its equation (`tests/merge/test_ways.py`), those that PEFT has to its
`add_weighted_adapter` (`test_methods_peft.py`), and all that recipes of mergekit are read for to mergekit's own command
(0.1.5) on the same recipe (`make test-mergekit`, an environment of its own): the entries of the model within 1e-6, but
for two a tensor at most, which may lie at the very threshold. Of `dare_*` and `della*` that holds where all entries are
kept. Where they are drawn, generators differ: held to mergekit are how often an entry is kept, by its rank in the row,
and what a kept one becomes.

What they cost beside PEFT and mergekit is in [methods_bench.md](methods_bench.md), what they do to answers in
[methods_do.md](methods_do.md).

In equations d_k = s_k B_k A_k is the delta of an adapter in a layer, w_k its granted weight there, c_k = w_k s_k.
"""

LAYERS = f"""\
## Weights per layer and per kind of module

Every method has the option `layers`, in recipes: which part of its weight an adapter has in a module. The first rule of
the adapter whose `filter` is in the module's path counts, else the first of `"*"`; a list of values is spread evenly
over the layers, with straight lines between them, as mergekit's gradients are. The last layer is the last one that any
adapter with a weight changes: where none of them changes the end of the model, the list ends before it. Values are from
0 to 1: a layer takes from a granted weight and never adds to it. Under a rule on the norm `layers` is refused where an
adapter is a DoRA (`norm-not-linear`): the norm of what its gains do needs the base, which no adapter holds.

```yaml
weights: {{friendly: 0.5, concise: 0.4}}
method: {DEFAULT}
options:
  layers:
    friendly: [{{filter: mlp, value: [0, 1, 1]}}, {{value: 0.5}}]
    "*": [{{filter: self_attn, value: 0.8}}]
```
"""

CALIBRATED = """\
## Calibrated weights

Bone Soup (Xie et al. 2025, arXiv 2502.10762) maps what is asked for to coefficients. Here that map comes before the
policy, not behind it: `-w friendly=50%` asks for the weight with half of the adapter's effect, by the fitted map of the
store (`surface.json`, [ask.md](ask.md)), and the policy then clamps this weight as any other. Behind the clamp it would
raise weights that a policy has bounded.
"""


RECIPES = """\
## Recipes of mergekit, and lists of adapters

A file with `merge_method` is read as mergekit reads it, for the names below, over sources `base+lora`: what is behind
the plus names an adapter of the store by its last part. Weights, `density`, `epsilon`, `gamma`, `lambda`, `normalize`
and `rescale` are honoured, with mergekit's defaults, gradients and filters; `dtype` is what is written, as soups are
computed in fp32 and rounded once. Whatever else stands there is an error that names the field. What comes out is a
full model unless `--as` says otherwise, and the policy clamps its weights as it does any others.

Where the same recipe gives another model here than there:

- What `dare_*` and `della*` draw: the distribution is mergekit's, the draw is not. Here it depends on the seed, the
  adapter's digest and the layer.
- Entries of the same size at the threshold of `ties` and `breadcrumbs`: here all of them are kept, there as many as the
  density says.
- Weights: numbers of 0 or more, rounded to millionths, and clamped by the policy. mergekit takes any number.

`lora: [{id: friendly, scale: 0.5}]`, as servers of adapters have it, is another spelling of `weights`.

"""


def page() -> str:
    """The whole page."""
    return (
        "\n".join(
            [HEAD, *_table(), "", *_sections(), LAYERS, RECIPES + "\n".join(_spellings()) + "\n", CALIBRATED.rstrip()]
        )
        + "\n"
    )


def _table() -> Iterator[str]:
    yield "| method | what it is | gives | served per row |"
    yield "|---|---|---|---|"
    for name, method in METHODS.items():
        yield f"| [`{name}`](#{name}) | {method.title} | {method.form} | {'yes' if method.request else 'no'} |"


def _spellings() -> Iterator[str]:
    yield "| in mergekit | here | normalised there where nothing is said |"
    yield "|---|---|---|"
    for name, method in METHODS.items():
        for spelling, normalized in method.spellings.items():
            yield f"| `{spelling}` | `{name}` | {'yes' if normalized else 'no'} |"


def _sections() -> Iterator[str]:
    for method in METHODS.values():
        yield f"## {method.name}\n"
        said = method.card.partition(": ")[2]
        yield _wrapped(said[0].upper() + said[1:]) + "\n"
        yield f"    {method.equation}\n"
        yield from _facts(method)


def _facts(method: Method) -> Iterator[str]:
    if method.paper is not None:
        yield _wrapped(f"From {method.paper}.") + "\n"
    if method.differs:
        yield _wrapped(f"Elsewhere: {method.differs.strip()}") + "\n"
    if method.options:
        yield "| option | what it does | values | if not given |"
        yield "|---|---|---|---|"
        for option in method.options:
            yield f"| `{option.name}` | {option.help} | {option.allowed()} | {_default(option)} |"
        yield ""


def _default(option: Option) -> str:
    return "" if option.default is None else f"`{str(option.default).lower()}`"


def _wrapped(text: str) -> str:
    return "\n".join(wrap(text, 118, break_long_words=False, break_on_hyphens=False))


if __name__ == "__main__":
    print(page(), end="")
