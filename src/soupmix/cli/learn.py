"""`soupmix learn`: what somebody wants, from what they choose and say, as a profile of weights inside the policy."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from soupmix.backends import TALKING
from soupmix.cli.asking import Asking, asking_options
from soupmix.cli.options import (
    PATH,
    base_option,
    chat_template_option,
    dtype_option,
    json_option,
    method_option,
    open_base,
    open_store,
    print_json,
    read_adapters,
)
from soupmix.cli.profiles import LearntProfile, read_profile, write_profile
from soupmix.cli.wanting import CUES, allowing, measurable, measuring_of, reach_of, reader_of, sources_of

if TYPE_CHECKING:
    from rich.console import Console

    from soupmix.backends.local import LocalBackend
    from soupmix.cli.learning import LearningSession
    from soupmix.engine import Engine
    from soupmix.policy import Grant, Policy
    from soupmix.preference import Learner
    from soupmix.weights import Weights

__all__ = ["command"]

_LENGTH = 4096


def _profile_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--profile",
        metavar="FILE",
        type=PATH,
        help="Where it is kept.  [default: profile.json in the folder for user data]",
    )(command)


@click.group("learn", invoke_without_command=True)
@click.pass_context
@asking_options()
@_profile_option
@base_option()
@chat_template_option
@dtype_option
@method_option
@click.option(
    "--say", is_flag=True, help="Talk instead of answering questions: what you say of answers is what is learnt."
)
@click.option(
    "--prompt",
    "prompts",
    multiple=True,
    metavar="TEXT",
    help="What is asked; repeatable.  [default: shipped prompts]",
)
@click.option("--questions", default=20, show_default=True, type=click.IntRange(1), help="At most so many.")
@click.option(
    "--enough",
    default=0.05,
    show_default=True,
    type=click.FloatRange(0, 1),
    help="Expected loss that ends it.",
)
@click.option("--topic", metavar="NAME", help="What all of it is about, if wants may differ by that.")
@click.option(
    "--cues",
    default="rules",
    show_default=True,
    type=click.Choice(CUES),
    help="With --say, what reads what you say of an answer: rules, the model where they read nothing, or it alone.",
)
@click.option("--translate", is_flag=True, help="Take evidence that was learnt with other adapters or another base.")
@click.option("--max-new-tokens", default=160, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=TALKING.seed, show_default=True)
def command(context: click.Context, asking: Asking, profile: Path | None, translate: bool, **options: Any) -> None:
    """Find out what you want: which of two answers is better, one key each.

    With --say, talk: after each turn what you said of the answer is learnt, and the next one is of the new soup. Weights of -w
    are explicit: nothing that is learnt changes them. `soupmix chat --profile` and `merge --profile` take what comes out.
    """
    if context.invoked_subcommand is not None:
        return
    from rich.console import Console

    from soupmix.cli.learning import ask_questions, drawn, listen

    path, console, backends = profile or _default(), Console(), list["LocalBackend"]()
    learner, policy = _opened(path, asking, translate=translate, engine=lambda: backends[0].engine)
    with closing(_backend(asking, policy, options)) as backend:
        backends.append(backend)
        session = _session(backend, learner, policy, asking, path, console, options)
        if options["say"]:
            listen(session, _lines())
        else:
            ask_questions(session, options["prompts"] or _shipped(), _keys(), options["questions"])
    console.print(drawn(learner, options["topic"]))
    kept = (
        f"kept in {path}; use it with --profile {path}" if path.exists() else "nothing was learnt, so nothing is kept"
    )
    click.echo(f"soupmix: {kept}", err=True)


@command.command("show")
@asking_options()
@_profile_option
@click.option("--topic", metavar="NAME", help="When this is spoken about.")
@json_option
def show(asking: Asking, profile: Path | None, topic: str | None, as_json: bool) -> None:
    """Show what was learnt, the weights that follow, and which evidence moved what."""
    from rich.console import Console

    from soupmix.cli.learning import drawn, explained

    learner, _ = _opened(profile or _default(), asking, must=True)
    if as_json:
        print_json(_told(learner, topic))
        return
    console = Console()
    console.print(drawn(learner, topic))
    console.print(explained(learner, topic))


@command.command("forget")
@click.argument("ids", nargs=-1, metavar="[ID...]")
@asking_options()
@_profile_option
@click.option("--all", "everything", is_flag=True, help="All of it: the file is deleted.")
def forget(ids: tuple[str, ...], asking: Asking, profile: Path | None, everything: bool) -> None:
    """Forget evidence, by the IDs that `learn show` prints: as if it had never been learnt."""
    path = profile or _default()
    if bool(ids) == everything:
        raise click.UsageError("name the evidence that is to be forgotten, or say --all")
    if everything:
        read_profile(path)  # nothing else is deleted
        path.unlink()
        return
    learner, policy = _opened(path, asking, must=True)
    learner.forget(*ids)
    _keep(path, learner, policy, asking)


@command.command("export")
@_profile_option
def export(profile: Path | None) -> None:
    """Print all evidence as JSON, with the digests of base and adapters."""
    click.echo(read_profile(profile or _default()).wants, nl=False)


def _default() -> Path:
    from soupmix.store.places import data_root

    return data_root() / "profile.json"


def _no_engine() -> "Engine":
    raise AssertionError("nothing is measured here")


def _opened(
    path: Path,
    asking: Asking,
    *,
    must: bool = False,
    translate: bool = False,
    engine: "Callable[[], Engine]" = _no_engine,
) -> "tuple[Learner, Policy]":
    """The learner of a file, or a new one. Raises as `reach_of`, `read_profile` and `Learner.imported`."""
    from soupmix.preference import Learner
    from soupmix.preference.kept import traits_kept

    kept = read_profile(path) if must or path.exists() else None
    reach, policy = reach_of(asking)
    if kept is None:
        return Learner(reach, measuring_of(asking, policy, reach.traits, engine)), policy
    theirs, here = traits_kept(kept.wants), measurable(asking, policy, read_adapters(asking.store))
    if theirs.of == reach.traits.of and {each.key for each in theirs.axes} <= here:
        reach, policy = reach_of(asking, theirs)  # of several measures that do, the ones that were taken before
    measure = measuring_of(asking, policy, reach.traits, engine)
    return Learner.imported(kept.wants, reach, measure, translate=translate), policy


def _keep(path: Path, learner: "Learner", policy: "Policy", asking: Asking) -> None:
    weights = learner.weights()
    topics = {topic: learner.weights(topic) for topic in learner.topics if learner.others(topic) < 1}
    names = dict.fromkeys(name for each in (weights, *topics.values()) for name in each)
    sources = {name: "explicit" if name in asking.weights else "inferred" for name in names}
    write_profile(path, LearntProfile(weights, sources, policy.digest, learner.export(), topics))


def _backend(asking: Asking, policy: "Policy", options: Mapping[str, Any]) -> "LocalBackend":
    from soupmix.backends import Limits
    from soupmix.backends.local import LocalBackend

    store = open_store(asking.store)
    named = open_base(options["base"], options["chat_template"], store)
    limits = Limits(rows=8, length=_LENGTH)
    return LocalBackend.open(
        named, store, policy=policy, dtype=options["dtype"], limits=limits, method=options["method"]
    )


def _session(
    backend: "LocalBackend",
    learner: "Learner",
    policy: "Policy",
    asking: Asking,
    path: Path,
    console: "Console",
    options: Mapping[str, Any],
) -> "LearningSession":
    from soupmix.cli.learning import LearningSession

    sources = sources_of(asking, open_store(asking.store))

    def allow(weights: "Weights") -> "Grant":
        with asking.refusals(policy):
            grant = policy._grant(weights, asking.attributes, sources)
        asking.granted(grant)
        return grant

    return LearningSession(
        backend,
        allow,
        learner,
        lambda: _keep(path, learner, policy, asking),
        replace(TALKING, max_new_tokens=options["max_new_tokens"], temperature=0.7, seed=options["seed"]),
        options["method"],
        console,
        options["topic"],
        options["enough"],
        reader_of(options["cues"], lambda: backend.engine, allowing(asking, policy, open_store(asking.store))),
    )


def _shipped() -> list[str]:
    from soupmix.evaluate import held_out_prompts

    return [each.text for each in held_out_prompts()]


def _keys() -> Iterator[str]:
    """What is pressed in a terminal, or the lines of a pipe."""
    if not sys.stdin.isatty():
        yield from _lines()
        return
    while True:
        yield click.getchar().lower()


def _lines() -> Iterator[str]:
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "").strip()
        except EOFError:
            return


def _told(learner: "Learner", topic: str | None) -> dict[str, Any]:
    return {
        "posterior": learner.posterior(topic).to_dict(),
        "weights": learner.weights(topic).decimals(),
        "expected_loss": learner.regret(topic),
        "alarms": [{"kind": each.kind, "text": each.text, "since": each.since} for each in learner.alarms],
        "evidence": [each.to_dict() for each in learner.explain(topic)],
    }
