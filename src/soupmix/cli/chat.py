"""`soupmix chat`: one prompt or a conversation with a person's soup."""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import click

from soupmix.backends import TALKING
from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.loras import beside_the_store, lora_option
from soupmix.cli.options import (
    base_option,
    chat_template_option,
    device_option,
    held_option,
    method_option,
    mode_option,
    open_base,
    open_store,
)
from soupmix.modes import Mode, explained

__all__ = ["command"]

_LENGTH = 4096  # tokens of a conversation


@click.command("chat")
@click.argument("prompt", required=False)
@asking_options(profile=True)
@lora_option
@base_option()
@chat_template_option
@click.option("--system", help="System prompt.")
@method_option
@mode_option
@held_option
@device_option
@click.option("--max-new-tokens", default=TALKING.max_new_tokens, show_default=True, type=click.IntRange(1))
@click.option("--temperature", default=TALKING.temperature, show_default=True, help="0 is greedy.")
@click.option("--seed", default=TALKING.seed, show_default=True)
@click.option("--lines", is_flag=True, help="Every line of standard input is a turn of a conversation.")
def command(
    prompt: str | None,
    asking: Asking,
    loras: tuple[str, ...],
    base: str | None,
    chat_template: Path | None,
    system: str | None,
    method: str,
    mode: Mode,
    dtype: str | None,
    device: str,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    lines: bool,
) -> None:
    """Answer PROMPT with the soup that the policy grants; without it, talk.

    What comes through a pipe or from a file stands behind PROMPT (`cat art.txt | soupmix chat "Summarise this:"`), or is the
    prompt. In a terminal /help says what can be said beside: other weights, why, and more.
    """
    from soupmix.backends import Limits
    from soupmix.backends.local import LocalBackend
    from soupmix.base import unasked
    from soupmix.cli.conversation import Conversation, converse

    said = _said(prompt, lines)
    sampling = replace(TALKING, max_new_tokens=max_new_tokens, temperature=temperature, seed=seed)
    with ExitStack() as stack:
        with beside_the_store(asking, loras, base) as (asked, found):
            store = open_store(asked.store)
            policy = asked.policy(store)
            grant = asked.clamp(policy, method)
            asked.granted(grant, mode=mode)
            click.echo(explained(grant.explain(), mode), err=True)
            named, limits = open_base(found, chat_template, store), Limits(rows=1, length=_LENGTH)
            backend = LocalBackend.open(
                named, store, policy=policy, dtype=dtype, device=device, limits=limits, method=method
            )
            stack.callback(backend.close)
        if added := "" if system else unasked(backend.engine.tokenizer):
            click.echo(f"soupmix: note: the model's chat template says to it, unasked: {added[:300]!r}", err=True)
        messages = [{"role": "system", "content": system}] if system else []
        # granted anew each time: a policy may end while somebody talks
        allow = lambda weights: replace(asked, weights=weights).clamp(policy, method)  # noqa: E731
        talk = Conversation(backend, allow, asked.weights, sampling, method, mode, messages)
        if said is None:
            converse(talk)
            return
        for each in said:
            click.echo("".join(talk.answer(each)).strip())


def _said(prompt: str | None, lines: bool) -> Iterator[str] | None:
    """What is asked, in turns; None: a person types it."""
    if lines:
        if prompt is not None:
            raise click.UsageError("--lines takes every turn from standard input; leave PROMPT out")
        return (line.strip() for line in sys.stdin if line.strip())
    if prompt is None and sys.stdin.isatty():
        return None
    beside = sys.stdin.read().strip() if prompt is None or _is_given() else ""
    whole = "\n\n".join(each for each in (prompt, beside) if each)
    if not whole:
        raise click.UsageError("standard input is empty, and there is no PROMPT: say something")
    return iter([whole])


def _is_given() -> bool:
    """Whether somebody put something there to be read: a pipe or a file, and not just no terminal."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(kind) or stat.S_ISREG(kind)
