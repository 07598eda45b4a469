"""Which arms `soupmix evaluate` asks: soups of a store, and what they are compared with."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from soupmix.cli.options import PATH, ServedMethod, parse_attributes, parse_sources
from soupmix.methods import DEFAULT

if TYPE_CHECKING:
    from soupmix.evaluate.soups import Arm
    from soupmix.policy import FeasibleSet, Policy
    from soupmix.store import Store

__all__ = ["AGAINST", "arms_of", "arms_options", "feasible"]

_SOUPS = ("singles", "pairs", "corners", "lattice", "vertices", "people")
_OF_SOUPS = {"mod", "activated"}  # words of --against that answer for every soup
AGAINST = ("prompt", "prompt+soup", "few-shot", "mod", "activated", "contrast", "best-of-n", "uniform")
"""Words of `--against`; those of `soupmix.evaluate.against`, without importing it."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Words(click.ParamType[tuple[str, ...]]):
    """Some of these words, with commas."""

    name = "words"

    def __init__(self, known: Sequence[str]) -> None:
        self._known = known

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        found = tuple(dict.fromkeys(each.strip() for each in value.split(",") if each.strip()))
        for word in found:
            if word not in self._known:
                self.fail(f"{word!r} is none of {', '.join(self._known)}", param, ctx)
        return found


_OPTIONS = (
    click.option(
        "--soups",
        type=_Words(_SOUPS),
        metavar="WORDS",
        default="singles,pairs,corners",
        show_default=True,
        help=f"Which soups, with commas: {', '.join(_SOUPS)}. The last two are of what --policy lets through.",
    ),
    click.option(
        "--strength",
        "strengths",
        multiple=True,
        metavar="NUMBER",
        default=("0.5", "0.7", "1"),
        help="Weight of every adapter of a soup; repeatable.  [default: 0.5, 0.7, 1]",
    ),
    click.option(
        "--people", "count", default=16, show_default=True, type=click.IntRange(1, 2000), help="How many people."
    ),
    click.option(
        "--against",
        type=_Words(AGAINST),
        metavar="WORDS",
        default="prompt,uniform",
        show_default=True,
        help=f"What else answers, beside the bare base, with commas: {', '.join(AGAINST)}.",
    ),
    click.option(
        "--against-strength",
        "other_strengths",
        multiple=True,
        metavar="NUMBER",
        help="For mod and activated, which answer for every soup: of soups at this strength; repeatable.  [default: the "
        "first --strength]",
    ),
    click.option(
        "--preferences", metavar="FILE", type=PATH, help="JSON of poles and the system prompts that ask for them."
    ),
    click.option("--examples", metavar="FILE", type=PATH, help="JSON of poles and examples of them, for few-shot."),
    click.option(
        "--method",
        "methods",
        multiple=True,
        type=ServedMethod(),
        default=(DEFAULT,),
        show_default=True,
        help="How soups are merged; repeatable.",
    ),
)


def arms_options(command: _Command) -> _Command:
    """The options that say which arms are asked."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def arms_of(store: "Store", preferences: Mapping[str, str], options: Mapping[str, Any]) -> "tuple[Arm, ...]":
    """The bare base, what soups are compared with, and the soups."""
    from soupmix.evaluate.against import Compared, compared, without_examples
    from soupmix.evaluate.preferences import read_examples, shipped_examples
    from soupmix.evaluate.soups import BASE, Arm, unique, with_methods
    from soupmix.weights import Weights

    _check_used(options)
    made = _selected(store, options)
    soups = unique(arm for word in options["soups"] for arm in made[word]())
    given = options["examples"]
    examples = read_examples(given) if given else shipped_examples()
    of = _selected(store, {**options, "strengths": options["other_strengths"] or options["strengths"][:1]})
    others = unique(arm for word in options["soups"] for arm in of[word]()) if _OF_SOUPS & {*options["against"]} else ()
    compare = Compared(soups, store.manifest.adapters, preferences, examples, others)
    if "few-shot" in options["against"] and (left := without_examples(compare)):
        click.echo(f"soupmix: note: few-shot leaves out {', '.join(left)}; give examples of it by --examples", err=True)
    against = compared(options["against"], compare)
    return unique([Arm(BASE, Weights({})), *against, *with_methods(soups, options["methods"])])


def _check_used(options: Mapping[str, Any]) -> None:
    for option, given, words in (
        ("--against-strength", options["other_strengths"], sorted(_OF_SOUPS, reverse=True)),
        ("--examples", options["examples"], ["few-shot"]),
    ):
        if given and not {*words} & {*options["against"]}:
            word = " or ".join(words)
            raise click.UsageError(
                f"{option} is of {word}, which --against {','.join(options['against'])} does not name: add {word} to it, "
                f"or leave {option} out"
            )


def _selected(store: "Store", options: Mapping[str, Any]) -> "dict[str, Callable[[], list[Arm]]]":
    """How the soups of each word are made."""
    from soupmix.evaluate import soups

    dimensions, strengths = soups.dimensions(store), tuple(dict.fromkeys(options["strengths"]))

    return {
        "singles": lambda: soups.singles(dimensions, strengths),
        "pairs": lambda: soups.pairs(dimensions, strengths),
        "corners": lambda: soups.corners(dimensions, strengths),
        "lattice": lambda: soups.lattice(dimensions, strengths),
        "vertices": lambda: soups.vertices(feasible(options)),
        "people": lambda: soups.people(feasible(options), options["count"], options["seed"]),
    }


def feasible(options: Mapping[str, Any]) -> "FeasibleSet":
    """What the policy lets through."""
    policy: Policy = options["policy"]()
    return policy.feasible(sources=parse_sources(options["sources"]), **parse_attributes(options["attributes"]))
