"""`soupmix clamp`: what a policy makes of a person's weights, and why; nothing is merged."""

import json
from pathlib import Path

import click

from soupmix.cli.options import (
    attribute_option,
    json_option,
    load_policy,
    parse_attributes,
    policy_option,
    read_adapters,
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
@store_option
@json_option
@click.option("--strict", is_flag=True, help="Refuse (exit code 3) instead of clamping.")
def command(
    weights: tuple[str, ...],
    policies: tuple[Path, ...],
    trust: tuple[str, ...],
    attributes: tuple[str, ...],
    store: Path | None,
    as_json: bool,
    strict: bool,
) -> None:
    """Show what a policy grants of the weights asked for, and which rules bind."""
    requested = Weights.parse(weights)
    stated = parse_attributes(attributes)
    grant = load_policy(policies, read_adapters(store), trust).clamp(requested, **stated)
    click.echo(json.dumps(grant.to_dict(), indent=2, sort_keys=True) if as_json else grant.explain())
    if strict and grant.clamped:
        raise PolicyRefusal("the policy does not grant these weights as they are (--strict)", reason="clamped")
