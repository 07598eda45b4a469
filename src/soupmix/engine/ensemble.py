"""Answers that an ensemble makes: several rows, each with its own prompt and soup, whose log-probabilities are mixed."""

from collections.abc import Sequence
from dataclasses import dataclass

from soupmix.backends.protocol import Sampling
from soupmix.engine.answers import Completion
from soupmix.engine.beam import Search, SegmentBeam
from soupmix.engine.decode import Tokens, decode_rows
from soupmix.engine.engine import Engine
from soupmix.engine.lockstep import Lockstep
from soupmix.engine.mixing import Mixture
from soupmix.engine.positions import check_fits
from soupmix.engine.prompts import Prompt
from soupmix.errors import RecipeError
from soupmix.methods import DEFAULT
from soupmix.policy import Grant

__all__ = ["Ensemble", "Member", "complete_ensembles", "search_ensembles"]

_Read = tuple[tuple[int, ...], ...]
"""Token ids of the prompts of an ensemble."""


@dataclass(frozen=True, slots=True)
class Member:
    """One row of an ensemble.

    Attributes:
        prompt: as in `Engine.complete`. grant: its soup.
        share: what its log-probabilities are multiplied by in the mix; 0: it only goes along.
        score: what its log-probabilities of the tokens drawn are multiplied by in the score of a candidate.
    """

    prompt: Prompt
    grant: Grant
    share: float = 1.0
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Ensemble:
    """Who makes one answer.

    A token is drawn by softmax(sum of share x log-probability), so shares that sum to 1 are a geometric mean, and one member of
    share 1 answers as it does alone.

    Attributes:
        members: one at least; the text of the answer is what it adds to the prompt of the first.
        cut: a token is possible if the first member finds it at least so many times as likely as its likeliest; 0: any is.
    """

    members: tuple[Member, ...]
    cut: float = 0.0


def complete_ensembles(
    engine: Engine,
    ensembles: Sequence[Ensemble],
    *,
    sampling: Sampling,
    streams: Sequence[int],
    method: str = DEFAULT,
) -> list[Completion]:
    """Answer as every ensemble, all in one batch where the model allows that.

    Args:
        ensembles: one per answer.
        sampling: how tokens are chosen of the mix; `top_k` and `top_p` are of it too.
        streams: one per ensemble, see `Engine.complete`.
        method: likewise.

    Returns:
        One `Completion` per ensemble, in order; it does not depend on the others.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    if not ensembles:
        return []
    read, batch = _begun(engine, ensembles, sampling, method)
    made = decode_rows(batch, sampling=sampling, streams=streams, stop=engine.ends, mix=_mix(ensembles))
    return [_completion(engine, ids, tokens) for ids, tokens in zip(read, made, strict=True)]


def search_ensembles(
    engine: Engine,
    ensembles: Sequence[Ensemble],
    beam: SegmentBeam,
    *,
    sampling: Sampling,
    streams: Sequence[int],
    method: str = DEFAULT,
) -> list[tuple[Completion, int]]:
    """The best of several answers of every ensemble by the scores of its members; see `soupmix.engine.beam.search`.

    Args:
        beam: how many are tried. ensembles, sampling, streams, method: as `complete_ensembles`.

    Returns:
        One `Completion` per ensemble, in order, with how many tokens of candidates were drawn for it.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    if not ensembles:
        return []
    read, batch = _begun(engine, ensembles, sampling, method)
    scores = [tuple(member.score for member in each.members) for each in ensembles]
    made = Search(
        batch, _mix(ensembles), scores, sampling=sampling, streams=streams, stop=engine.ends, beam=beam
    ).found()
    return [(_completion(engine, ids, each.tokens), each.candidates) for ids, each in zip(read, made, strict=True)]


def _mix(ensembles: Sequence[Ensemble]) -> Mixture:
    shares = tuple(tuple(member.share for member in each.members) for each in ensembles)
    return Mixture(shares, tuple(each.cut for each in ensembles))


def _begun(
    engine: Engine, ensembles: Sequence[Ensemble], sampling: Sampling, method: str
) -> tuple[list[_Read], Lockstep]:
    """The prompts of every ensemble, and the rows of all members."""
    weights = engine.weights([member.grant for each in ensembles for member in each.members], method)
    read = [tuple(map(engine.chat_tokens, [member.prompt for member in each.members])) for each in ensembles]
    rows = [ids for each in read for ids in each]
    for ids in rows:
        if not ids:
            raise RecipeError("a prompt has no token of this model; say something else", reason="empty-prompt")
        check_fits(len(ids), sampling.max_new_tokens, engine.positions)
    return read, Lockstep(engine, rows, weights, sampling.max_new_tokens, method)


def _completion(engine: Engine, read: _Read, tokens: Tokens) -> Completion:
    return Completion(engine.detokenizer.added(read[0], tokens.ids), len(tokens.ids), tokens.finished)
