"""When the policy is read again: on SIGHUP, on an operator's order, and before signed sets are too old to believe."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from soupmix.errors import SoupmixError
from soupmix.openai.errors import HttpError
from soupmix.serve.logs import tell
from soupmix.serve.policies import Reload
from soupmix.serve.refusals import Refusals
from soupmix.serve.state import ServerState

__all__ = ["reload_policy", "reload_quietly", "watch"]

_EVERY = 60.0
_BEFORE = timedelta(hours=1)


def reload_policy(state: ServerState) -> Reload:
    """Read the policy again.

    Raises:
        HttpError: 409 and the reason of what is wrong; the policy before stays in force.
    """
    try:
        done = state.policies.reload()
    except SoupmixError as error:
        state.metrics.reloads.labels("refused").inc()
        tell("policy refused", level=logging.ERROR, reason=error.reason, problem=str(error))
        raise HttpError(
            f"the policy before stays in force: {error}", status=409, reason=error.reason or "bad-policy"
        ) from error
    state.metrics.reloads.labels("loaded").inc()
    tell("policy loaded", before=done.before, now=done.now, notes=list(done.notes))
    return done


def _flush(refusals: Refusals) -> None:
    try:
        refusals.flush()
    except SoupmixError as error:  # they stay counted, and are tried again
        tell("refusals not recorded", level=logging.ERROR, reason=error.reason)


def reload_quietly(state: ServerState) -> None:
    """Read the policy again; what is wrong with it is in the log."""
    try:
        reload_policy(state)
    except HttpError:
        return


async def watch(state: ServerState) -> None:
    """Once a minute: write the counts of refusals that are due; read signed sets again in their last hour until renewed."""
    while True:
        await asyncio.sleep(_EVERY)
        if state.refusals is not None:
            await asyncio.to_thread(_flush, state.refusals)
        expires = state.policies.held.expires
        if expires is not None and datetime.now(UTC) >= expires - _BEFORE:
            await asyncio.to_thread(reload_quietly, state)
