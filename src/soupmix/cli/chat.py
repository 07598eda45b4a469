"""`soupmix chat`: one prompt or a conversation with a person's soup."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from soupmix.cli.auditing import Witness, audit_option
from soupmix.cli.options import (
    attribute_option,
    load_policy,
    parse_attributes,
    parse_sources,
    policy_option,
    source_option,
    store_option,
    trust_option,
    weight_option,
)
from soupmix.weights import Weights

if TYPE_CHECKING:
    from soupmix.engine import Engine, Sampling
    from soupmix.policy import Grant

__all__ = ["command"]


@click.command("chat")
@click.argument("prompt", required=False)
@weight_option()
@policy_option
@trust_option
@attribute_option
@source_option
@store_option
@audit_option
@click.option("--base", default="smollm2-135m-instruct", show_default=True, help="Base model.")
@click.option("--system", help="System prompt.")
@click.option("--method", type=click.Choice(["delta", "factor"]), default="delta", show_default=True)
@click.option("--dtype", type=click.Choice(["fp32", "bf16", "fp16"]), help="[default: that of the base]")
@click.option("--max-new-tokens", default=256, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", default=0, show_default=True)
def command(
    prompt: str | None,
    weights: tuple[str, ...],
    policies: tuple[Path, ...],
    trust: tuple[str, ...],
    attributes: tuple[str, ...],
    sources: tuple[str, ...],
    store: Path | None,
    witness: Witness,
    base: str,
    system: str | None,
    method: str,
    dtype: str | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    """Answer PROMPT, or hold a conversation read from standard input, with the soup that the policy grants."""
    from soupmix.engine import Engine, Sampling
    from soupmix.store import Store

    held = Store(store) if store else Store.shipped()
    requested, stated = Weights.parse(weights), parse_attributes(attributes)
    with witness.refusals(requested, stated):
        policy = load_policy(policies, held, trust)
    with witness.refusals(requested, stated, policy):
        grant = policy.clamp(requested, sources=parse_sources(sources), **stated)
    witness.grant(grant, signed=bool(trust))
    click.echo(grant.explain(), err=True)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    engine = Engine.load(base, held, dtype=dtype)
    messages = [{"role": "system", "content": system}] if system else []
    if prompt is not None:
        click.echo(_reply(engine, grant, [*messages, {"role": "user", "content": prompt}], sampling, method))
    else:
        _converse(engine, grant, messages, sampling, method)


def _converse(
    engine: "Engine", grant: "Grant", messages: list[dict[str, str]], sampling: "Sampling", method: str
) -> None:
    """Read a line, answer it, remember both, until the input ends."""
    if sys.stdin.isatty():
        click.echo("say something (Ctrl-D ends)", err=True)
    for line in sys.stdin:
        if line.strip():
            messages.append({"role": "user", "content": line.strip()})
            answer = _reply(engine, grant, messages, sampling, method)
            messages.append({"role": "assistant", "content": answer})
            click.echo(answer)


def _reply(engine: "Engine", grant: "Grant", messages: list[dict[str, str]], sampling: "Sampling", method: str) -> str:
    (made,) = engine.complete([messages], [grant], sampling=sampling, method=method)
    return made.text
