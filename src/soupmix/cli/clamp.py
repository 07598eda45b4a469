"""`soupmix clamp`: what a policy makes of a person's weights, and why; nothing is merged."""

import json
from typing import Literal

import click

from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.options import json_option, read_adapters
from soupmix.errors import PolicyRefusal

__all__ = ["command"]


@click.command("clamp")
@asking_options(weights_required=True)
@json_option
@click.option(
    "--metric",
    type=click.Choice(["weights", "delta"]),
    default="weights",
    help="What stays as near as possible: the weights (the default), or the merged delta.",
)
@click.option("--internal", is_flag=True, help="Also print the issuers' internal reasons, on stderr.")
@click.option("--strict", is_flag=True, help="Refuse (exit code 3) instead of clamping.")
def command(
    asking: Asking,
    as_json: bool,
    metric: Literal["weights", "delta"],
    internal: bool,
    strict: bool,
) -> None:
    """Show what a policy grants of the weights asked for, and which rules bind."""
    with asking.refusals():
        adapters = read_adapters(asking.store)
    policy = asking.policy(adapters, metric=metric)
    grant = asking.clamp(policy)
    if strict and grant.clamped:
        said = "the policy does not grant these weights as they are (--strict)"
        refusal = PolicyRefusal(said, reason="clamped", rules=grant.binding)
        asking.refused(refusal, policy)
    else:
        refusal = None
        asking.granted(grant)
    click.echo(json.dumps(grant.to_dict(), indent=2, sort_keys=True) if as_json else grant.explain())
    for rule, reason in policy.internal_reasons(grant).items() if internal else ():
        click.echo(f"soupmix: internal: {rule}: {reason}", err=True)
    if refusal is not None:
        raise refusal
