"""`soupmix ask`: weights inside the policy that are expected to reach a reading grade, a length, a style; nothing is merged."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.options import json_option, metric_option, print_json, read_adapters
from soupmix.errors import RecipeError
from soupmix.policy import Metric

if TYPE_CHECKING:
    from soupmix.surface import Proposal, Surface

__all__ = ["command"]

_NUMBER = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]{1,9})?")


@click.command("ask")
@click.argument("targets", nargs=-1, required=True, metavar="MEASURE=NUMBER...")
@asking_options()
@json_option
@metric_option
def command(targets: tuple[str, ...], asking: Asking, as_json: bool, metric: Metric) -> None:
    """Find weights that reach targets, such as grade=7 words=60, as far as the policy lets them.

    ADAPTER=50% asks for half of what an adapter does alone. -w gives adapters of other dimensions a weight besides.
    What soups do is foretold by the surface.json of the store, which `soupmix evaluate` fits.
    """
    from soupmix.store.manifest import shipped_root
    from soupmix.surface import Surface, ask

    with asking.refusals():
        adapters = read_adapters(asking.store)
        surface = Surface.beside(asking.store or shipped_root(), adapters)
        values = _targets(targets, surface)
    policy = asking.policy(adapters, metric=metric)
    with asking.refusals(policy):
        found = ask(
            surface, policy, values, beside=asking.weights, attributes=asking.attributes, sources=asking.sources
        )
    asking.granted(found.grant)
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)


def _targets(texts: Sequence[str], surface: "Surface") -> dict[str, float]:
    """Targets by measure, from MEASURE=NUMBER and ADAPTER=SHARE% texts.

    Raises:
        RecipeError: a text is neither ("bad-target"), or a measure is asked for twice ("duplicate-target").
        EvaluationError: as `Surface.part_of_effect`.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, number = text.partition("=")
        share = number.endswith("%")
        if not equals or not _NUMBER.fullmatch(number.removesuffix("%")):
            raise RecipeError(
                f"{text[:80]!a} is no target; write MEASURE=NUMBER, for example grade=7, or ADAPTER=50%",
                reason="bad-target",
            )
        value = float(number.removesuffix("%"))
        measure, value = surface.part_of_effect(name, value / 100) if share else (name, value)
        if measure in found:
            raise RecipeError(f"{measure!r} is asked for twice; ask for it once", reason="duplicate-target")
        found[measure] = value
    return found


def _print(found: "Proposal") -> None:
    click.echo(str(found.weights) or "no weights: the bare base")
    click.echo()
    rows: list[tuple[str, ...]] = [("", "asked", "expected", "95 % of it", "90 % of answers", "within the policy")]
    for name, each in found.targets.items():
        expected = each.expected
        lows = (expected.low, expected.answers_low, each.least)
        highs = (expected.high, expected.answers_high, each.most)
        value, *ends = _alike((expected.value, *lows, *highs))
        within = (f"{low} to {high}" for low, high in zip(ends[:3], ends[3:], strict=True))
        rows.append((name, f"{each.asked:.4g}", value, *within))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in found.notes:
        click.echo(f"\n{note}")


def _alike(values: Sequence[float]) -> list[str]:
    """Numbers of one measure with as many decimals as their size calls for: none beyond 100, two where all are below 2."""
    largest = max(map(abs, values))
    decimals = 2 if largest < 2 else 1 if largest < 100 else 0
    return [f"{value:.{decimals}f}" for value in values]
