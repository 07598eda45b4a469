"""`soupmix chat`: one prompt or a conversation with a person's soup."""

import sys
from collections.abc import Callable
from pathlib import Path

import click

from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.options import (
    base_option,
    chat_template_option,
    dtype_option,
    method_option,
    mode_option,
    open_base,
    open_store,
)
from soupmix.modes import Mode, explained

__all__ = ["command"]


@click.command("chat")
@click.argument("prompt", required=False)
@asking_options()
@base_option()
@chat_template_option
@click.option("--system", help="System prompt.")
@method_option
@mode_option
@dtype_option
@click.option("--max-new-tokens", default=256, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=0.0, show_default=True, help="0 is greedy.")
@click.option("--seed", default=0, show_default=True)
def command(
    prompt: str | None,
    asking: Asking,
    base: str,
    chat_template: Path | None,
    system: str | None,
    method: str,
    mode: Mode,
    dtype: str | None,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> None:
    """Answer PROMPT, or hold a conversation read from standard input, with the soup that the policy grants."""
    from soupmix.base import unasked
    from soupmix.engine import Engine, Sampling

    store = open_store(asking.store)
    policy = asking.policy(store)
    grant = asking.clamp(policy, method)
    asking.granted(grant, mode=mode)
    click.echo(explained(grant.explain(), mode), err=True)
    sampling = Sampling(max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    engine = Engine.load(open_base(base, chat_template), store, policy=policy, dtype=dtype)
    added = "" if system else unasked(engine.tokenizer)
    if added:
        click.echo(f"soupmix: note: the model's chat template says to it, unasked: {added[:300]!r}", err=True)
    messages = [{"role": "system", "content": system}] if system else []

    def reply(messages: list[dict[str, str]]) -> str:
        # granted anew each time: a policy may end while somebody talks
        (made,) = engine.complete(
            [messages], [asking.clamp(policy, method)], sampling=sampling, method=method, mode=mode
        )
        return made.text.strip()

    if prompt is not None:
        click.echo(reply([*messages, {"role": "user", "content": prompt}]))
    else:
        _converse(reply, messages)


def _converse(reply: Callable[[list[dict[str, str]]], str], messages: list[dict[str, str]]) -> None:
    """Read a line, answer it, remember both, until the input ends."""
    if sys.stdin.isatty():
        click.echo("say something (Ctrl-D ends)", err=True)
    for line in sys.stdin:
        if line.strip():
            messages.append({"role": "user", "content": line.strip()})
            answer = reply(messages)
            messages.append({"role": "assistant", "content": answer})
            click.echo(answer)
