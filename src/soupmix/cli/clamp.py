"""`soupmix clamp`: what a policy makes of a person's weights, and why; nothing is merged."""

import click

from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.options import json_option, metric_option, print_json, read_adapters
from soupmix.errors import PolicyRefusal
from soupmix.policy import Metric

__all__ = ["command"]


@click.command("clamp")
@asking_options(weights_required=True)
@json_option
@metric_option
@click.option("--internal", is_flag=True, help="Also print the issuers' internal reasons, on stderr.")
@click.option("--strict", is_flag=True, help="Refuse (exit code 3) instead of clamping.")
def command(
    asking: Asking,
    as_json: bool,
    metric: Metric,
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
    if as_json:
        print_json(grant.to_dict())
    else:
        click.echo(grant.explain())
    for rule, reason in policy.internal_reasons(grant).items() if internal else ():
        click.echo(f"soupmix: internal: {rule}: {reason}", err=True)
    if refusal is not None:
        raise refusal
