"""How likely a soup finds given answers: teacher-forced log-probabilities, many rows at once."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from soupmix.engine import Engine, Prompt
from soupmix.engine.decode import KeptRows
from soupmix.engine.lockstep import kept_rows
from soupmix.engine.rows import BatchWeights
from soupmix.methods import DEFAULT
from soupmix.policy import Grant

__all__ = ["Forced", "answer_log_p", "choice_log_p", "first_token_p", "text_log_p", "token_log_p"]

_Tokens = tuple[int, ...]

_TOKENS = 2048  # of a batch with its padding; the logits of more take too much memory


@dataclass(frozen=True, slots=True)
class Forced:
    """An answer that is put into the model's mouth.

    Attributes:
        prompt: a text or a conversation; a last message of the assistant is how the answer begins, and is not counted.
        answer: what is counted.
        grant: under which soup.
    """

    prompt: Prompt
    answer: str
    grant: Grant


def answer_log_p(
    engine: Engine,
    forced: Sequence[Forced],
    *,
    method: str = DEFAULT,
    most: int | None = None,
    apart: bool = False,
) -> list[Tensor]:
    """Log-probability of every token of every answer, in nats.

    Prompt and answer are read apart, as they are when the model answers: no token reaches from one into the other. Several
    answers of one soup to one prompt are computed behind one pass over the prompt, where padding changes nothing.

    Args:
        method: as in `Engine.complete`.
        most: tokens of an answer that count, from its beginning; None: all of them.
        apart: whether prompts are computed anew for every answer, so that answers under several soups are rows of one pass.

    Returns:
        One tensor per answer, in order: [tokens of the answer] float32 on the CPU, empty for an empty answer.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    read = [_tokens(engine, each, most) for each in forced]
    found: dict[int, Tensor] = {}
    alone: list[int] = []
    single = [[row] for row in range(len(read))]
    for rows in single if apart else _alike(engine, read, [each.grant for each in forced], method):
        if len(rows) == 1:
            alone += rows
        else:
            answers = [read[row][1] for row in rows]
            made = _behind(engine, read[rows[0]][0], answers, forced[rows[0]].grant, method)
            found.update(zip(rows, made, strict=True))
    for places in _batches([len(before) + len(after) for before, after in (read[row] for row in alone)], engine):
        rows = [alone[place] for place in places]
        longest = max(len(before) + len(after) for before, after in (read[row] for row in rows))
        # What stands behind an answer is not seen by it, so that padding needs no mask.
        ids = torch.tensor([_padded((*read[row][0], *read[row][1]), longest) for row in rows])
        logits = engine.logits(ids.to(engine.model.device), [forced[row].grant for row in rows], method=method)
        for place, row in enumerate(rows):
            before, after = read[row]
            found[row] = token_log_p(logits[place, len(before) - 1 : len(before) + len(after) - 1], after)
    return [found[row] for row in range(len(read))]


def text_log_p(
    engine: Engine, texts: Sequence[str], grants: Sequence[Grant], *, method: str = DEFAULT
) -> list[list[Tensor]]:
    """Log-probability of every token of texts but their first, under each grant, in nats.

    Args:
        texts: as they stand, without a chat template. method: as in `Engine.complete`.

    Returns:
        A list per grant, in order, with one tensor per text: [tokens - 1] float32 on the CPU.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    found: list[list[Tensor]] = [[] for _ in grants]
    for text in texts:
        ids = engine.prompts.tokens(text)
        size = max(_TOKENS // max(len(ids), 1), 1)
        for start in range(0, len(grants), size):
            some = grants[start : start + size]
            rows = torch.tensor([ids], dtype=torch.int64, device=engine.model.device).repeat(len(some), 1)
            for place, logits in enumerate(engine.logits(rows, some, method=method)[:, :-1]):
                found[start + place].append(token_log_p(logits, ids[1:]))
    return found


@torch.inference_mode()
def choice_log_p(
    engine: Engine,
    prompts: Sequence[Prompt],
    grants: Sequence[Grant],
    choices: Sequence[Sequence[str]],
    *,
    method: str = DEFAULT,
) -> list[list[float]]:
    """Log-probability of each of some answers to every prompt, whole, in nats.

    As the sums of `answer_log_p`, and faster where answers are many and short: a prompt is computed once, and so is what
    answers to it begin with alike.

    Args:
        prompts: as `Forced.prompt`.
        grants: one per prompt.
        choices: of every prompt its answers.

    Returns:
        One list per prompt, in order, with one number per answer; 0 for an empty one.

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    if engine.together == "alone":  # a tree is many rows
        forced = [Forced(p, text, g) for p, g, of in zip(prompts, grants, choices, strict=True) for text in of]
        sums = iter([float(each.sum()) for each in answer_log_p(engine, forced, method=method)])
        return [[next(sums) for _ in of] for of in choices]
    weights = engine.weights(grants, method)
    asked = [engine.prompts.tokens(engine.prompts.rendered(prompt)) for prompt in prompts]
    wanted = [[engine.prompts.tokens(each) if each else () for each in answers] for answers in choices]
    found: dict[int, list[float]] = {}
    for rows in _batches([len(ids) for ids in asked], engine):
        with engine.batch.serving(BatchWeights(weights[rows], method=method)):
            ends = [wanted[row] for row in rows]
            longest = max(len(ids) for each in ends for ids in (*each, ()))
            batch = kept_rows(engine, [asked[row] for row in rows], weights[rows], longest, method)
            made = _along_trees(engine, batch, ends)
        found.update(zip(rows, made, strict=True))
    return [found[row] for row in range(len(asked))]


@torch.inference_mode()
def first_token_p(
    engine: Engine,
    prompts: Sequence[Prompt],
    grants: Sequence[Grant],
    sets: Sequence[Collection[int]],
    *,
    method: str = DEFAULT,
) -> Tensor:
    """Chance that the first token of an answer is one of some tokens.

    Args:
        prompts: as `Forced.prompt`. grants: one per prompt. sets: of token ids.

    Returns:
        [prompts, sets] float32 on the CPU, each in [0, 1].

    Raises:
        RecipeError, PolicyRefusal, PolicyError, AdapterError, BaseModelError, TypeError: as `Engine.complete`.
    """
    weights = engine.weights(grants, method)
    asked = [engine.prompts.tokens(engine.prompts.rendered(prompt)) for prompt in prompts]
    found = torch.zeros(len(asked), len(sets))
    for rows in _batches([len(ids) for ids in asked], engine):
        batch = kept_rows(engine, [asked[row] for row in rows], weights[rows], 0, method)
        with engine.batch.serving(BatchWeights(weights[rows], method=method)):
            chances = batch.logits().float().softmax(-1)
        for number, ids in enumerate(sets):
            found[rows, number] = chances[:, sorted(ids)].sum(-1).cpu()
    return found


def _alike(
    engine: Engine, read: Sequence[tuple[_Tokens, _Tokens]], grants: Sequence[Grant], method: str
) -> list[list[int]]:
    """Rows of one prompt under one soup; each by itself where rows of other lengths may not be computed together."""
    if engine.together != "padded":
        return [[row] for row in range(len(read))]
    weights = engine.weights(grants, method).tolist() if grants else []
    found: dict[tuple[_Tokens, tuple[float, ...]], list[int]] = {}
    for row, (before, _) in enumerate(read):
        found.setdefault((before, tuple(weights[row])), []).append(row)
    return list(found.values())


@torch.inference_mode()
def _behind(engine: Engine, asked: _Tokens, answers: Sequence[_Tokens], grant: Grant, method: str) -> list[Tensor]:
    """Log-probability of every token of answers to one prompt, which is computed once for as many of them as fit."""
    found: dict[int, Tensor] = {}
    device, weights = engine.model.device, engine.weights([grant], method)
    for rows in _batches([len(each) for each in answers], engine):
        longest = max(len(answers[row]) for row in rows)
        copies = torch.zeros(len(rows), dtype=torch.int64, device=device)
        batch = kept_rows(engine, [asked], weights, longest, method)
        with engine.batch.serving(BatchWeights(weights, method=method)):
            logits = batch.logits()[copies, None]
            if longest > 1:
                batch.keep(copies)
                engine.batch.keep(copies)
                ids = torch.tensor([_padded(answers[row] or (0,), longest)[:-1] for row in rows], device=device)
                logits = torch.cat([logits, batch.logits_along(ids)], 1)
        found.update((row, token_log_p(logits[place], answers[row])) for place, row in enumerate(rows))
    return [found[row] for row in range(len(answers))]


def _along_trees(engine: Engine, batch: KeptRows, wanted: Sequence[Sequence[_Tokens]]) -> list[list[float]]:
    """Level by level of the trees that the answers to each prompt make; a node is a row of the batch."""
    device = engine.model.device
    found = [[0.0] * len(answers) for answers in wanted]
    nodes: list[tuple[int, _Tokens]] = [(row, ()) for row in range(len(wanted))]
    depth = 0
    while nodes:
        at = {node: place for place, node in enumerate(nodes)}
        log_p = batch.logits().float().log_softmax(-1)
        ends = [(row, n, ids) for row, each in enumerate(wanted) for n, ids in enumerate(each) if len(ids) > depth]
        places = torch.tensor([at[row, ids[:depth]] for row, _, ids in ends], dtype=torch.int64, device=device)
        tokens = torch.tensor([ids[depth] for _, _, ids in ends], dtype=torch.int64, device=device)
        for (row, number, _), value in zip(ends, log_p[places, tokens].tolist(), strict=True):
            found[row][number] += value
        depth += 1
        nodes = sorted({(row, ids[:depth]) for row, _, ids in ends if len(ids) > depth})
        if nodes:
            parents = torch.tensor([at[row, ids[:-1]] for row, ids in nodes], device=device)
            batch.keep(parents)
            engine.batch.keep(parents)
            batch.add(torch.tensor([ids[-1] for _, ids in nodes], device=device), parents >= 0)
    return found


def _tokens(engine: Engine, forced: Forced, most: int | None) -> tuple[tuple[int, ...], tuple[int, ...]]:
    before = engine.prompts.tokens(engine.prompts.rendered(forced.prompt))
    return before, engine.prompts.tokens(forced.answer)[:most] if forced.answer else ()


def _batches(lengths: Sequence[int], engine: Engine) -> Iterator[list[int]]:
    """Which rows to compute together, given how many tokens they have: of similar length, and as many as fit.

    Where padding changes what this model computes, they are of one length, or each is alone.
    """
    rows: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        full = (len(rows) + 1) * lengths[row] > _TOKENS or engine.together == "alone"
        if rows and (full or (engine.together == "equal" and lengths[row] != lengths[rows[0]])):
            yield rows
            rows = []
        rows.append(row)
    if rows:
        yield rows


def _padded(ids: Sequence[int], length: int) -> list[int]:
    return [*ids, *[ids[-1]] * (length - len(ids))]


def token_log_p(logits: Tensor, ids: Sequence[int]) -> Tensor:
    """Log-probability of each token: logits [length at least, vocabulary], ids one a row; [length] float32, CPU, nats."""
    chosen = torch.tensor(ids, dtype=torch.int64, device=logits.device)[:, None]
    return logits[: len(ids)].float().log_softmax(-1).gather(-1, chosen)[:, 0].cpu()
