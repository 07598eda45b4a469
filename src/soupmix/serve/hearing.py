"""Cues in conversations: "shorter please" is evidence of what the person of a profile wants, if the profile listens.

It is heard before the answer to it is made, so that this one is the new soup's already.
"""

import time

from soupmix.errors import Overloaded, PolicyRefusal, PreferenceError, SoupmixError
from soupmix.files import digest_parts
from soupmix.openai.errors import HttpError
from soupmix.openai.wire import ChatAsk, ChatMessage
from soupmix.preference.cues import MOST_WORDS
from soupmix.serve.evidence import Entry, Provenance
from soupmix.serve.feedback import source_of
from soupmix.serve.grants import whose
from soupmix.serve.keys import Caller
from soupmix.serve.profiles import PREFIX
from soupmix.serve.settling import NOTHING, Whose, settled
from soupmix.serve.state import ServerState

__all__ = ["hear"]

_MOST = 20_000  # characters of an answer that is measured
_PASSED_BY = ("queue-full", "replayed", "too-much-evidence", "source-full", "no-such-profile", *NOTHING)
"""Reasons for which a cue is none: a conversation is answered all the same."""


def hear(state: ServerState, caller: Caller, ask: ChatAsk, request: str) -> None:
    """Take the last message of a conversation as evidence, if it is a cue about the answer before it.

    A conversation that is sent again is heard once.

    Raises:
        SoupmixError: as `Policies.current` and `settled`.
    """
    turn = _turn(ask.messages)
    if turn is None or not ask.model.startswith(PREFIX):
        return
    try:
        profile = state.profiles.find(caller.tenant, ask.model.removeprefix(PREFIX))
        learning = state.evidence.learning(caller.tenant, profile.id)
        if not learning.listens or learning.frozen:
            return
        own = whose(state, caller, profile)
        entry = _entry(state, own, caller, ask, turn, request)
        if entry is not None:
            with state.evidence.change(caller.tenant, profile.id, None) as change:
                change.add(entry, state.settings.evidence)
            settled(state, own, anew=True)
    except (HttpError, Overloaded, PolicyRefusal, PreferenceError) as error:
        if not _is_passed_by(error):
            raise


def _is_passed_by(error: SoupmixError) -> bool:
    return error.reason in _PASSED_BY or isinstance(error, PreferenceError)


def _turn(messages: list[ChatMessage]) -> tuple[str, str, str] | None:
    """What was asked, what was answered, and what is said of it; None where no answer is spoken of."""
    if [each.role for each in messages[-3:]] != ["user", "assistant", "user"]:
        return None
    asked, answered, said = (each.text() for each in messages[-3:])
    is_short = len(said.split()) <= 2 * MOST_WORDS  # what is surely no cue waits for nobody's turn
    return (asked, answered, said) if is_short and len(answered) <= _MOST else None


def _entry(
    state: ServerState, own: Whose, caller: Caller, ask: ChatAsk, turn: tuple[str, str, str], request: str
) -> Entry | None:
    learning = state.evidence.learning(own.tenant, own.profile.id)
    setting = state.learners.setting(own.held.policy, own.profile.draft, own.attributes, learning.most)
    asked, answered, said = turn
    with state.learners.turn(own.tenant, own.profile.id):
        learner, _ = state.learners.learner(setting, ())
        toward = state.learners.read(setting, said, learner.traits)
        if not toward:
            return None
        (values,) = learner.measured(asked, [answered])
    spoken = {str(place): f"{each.role} {each.text()}" for place, each in enumerate(ask.messages)}
    name = f"c-{digest_parts('soupmix.cue.v1', spoken)[:24]}"
    now = time.time()
    topic = None if ask.soup is None else ask.soup.topic
    signal = learner.signal(
        "cue", values, id=name, source=source_of(caller), toward=toward, at=round(now, 3), topic=topic
    )
    return Entry(signal, learner.traits, Provenance(*state.learners.digests, request, int(1000 * now)))
