"""`soupmix clamp`: what a policy makes of a person's weights, and why; nothing is merged."""

import json
from pathlib import Path
from typing import Literal

import click

from soupmix.cli.auditing import Witness, audit_option
from soupmix.cli.options import (
    attribute_option,
    json_option,
    load_policy,
    parse_attributes,
    parse_sources,
    policy_option,
    read_adapters,
    source_option,
    store_option,
    trust_option,
    weight_option,
)
from soupmix.errors import PolicyRefusal
from soupmix.weights import Weights

__all__ = ["command"]


@click.command("clamp")
@weight_option(required=True)
@policy_option
@trust_option
@attribute_option
@source_option
@store_option
@audit_option
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
    weights: tuple[str, ...],
    policies: tuple[Path, ...],
    trust: tuple[str, ...],
    attributes: tuple[str, ...],
    sources: tuple[str, ...],
    store: Path | None,
    witness: Witness,
    as_json: bool,
    metric: Literal["weights", "delta"],
    internal: bool,
    strict: bool,
) -> None:
    """Show what a policy grants of the weights asked for, and which rules bind."""
    requested = Weights.parse(weights)
    stated = parse_attributes(attributes)
    with witness.refusals(requested, stated):
        policy = load_policy(policies, read_adapters(store), trust, metric=metric)
    with witness.refusals(requested, stated, policy):
        grant = policy.clamp(requested, sources=parse_sources(sources), **stated)
    if strict and grant.clamped:
        refusal = PolicyRefusal("the policy does not grant these weights as they are (--strict)", reason="clamped")
        witness.refusal(refusal, requested, stated, policy)
    else:
        refusal = None
        witness.grant(grant, signed=bool(trust))
    click.echo(json.dumps(grant.to_dict(), indent=2, sort_keys=True) if as_json else grant.explain())
    for rule, reason in policy.internal_reasons(grant).items() if internal else ():
        click.echo(f"soupmix: internal: {rule}: {reason}", err=True)
    if refusal is not None:
        raise refusal
