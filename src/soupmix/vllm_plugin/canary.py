"""One request before any other, answered with and without a soup: if both are alike, soups do not act, and nobody is served.

It goes the whole way that requests go, through vLLM's scheduler, its workers and its model runner, whichever it took.
"""

import time
from collections.abc import Sequence
from itertools import islice, product
from typing import Any

from soupmix.errors import PolicyRefusal, SoupmixError
from soupmix.policy import Grant, Policy
from soupmix.vllm_plugin.checking import Checker
from soupmix.vllm_plugin.row import FIELD, SoupRow

__all__ = ["check_soups_act", "loudest"]

_PROMPT = (3, 5, 7, 11)
_SALT = "soupmix canary"
_MOST_STEPS, _MOST_SCOPES = 64, 256


def loudest(policy: Policy, names: Sequence[str]) -> Grant:
    """A grant of this policy that is not of nothing, with as much of every adapter as it gives.

    Raises:
        PolicyRefusal: it gives nothing to anybody (reason "nothing-granted").
    """
    asked = {name: 1.0 for name in names if name in policy.names}
    values = {key: (*named, "other") for key, named in policy.values.items()}  # of which no document says anything
    scopes = [{}, *(dict(zip(values, each, strict=True)) for each in islice(product(*values.values()), _MOST_SCOPES))]
    for scope in scopes:
        for each in (asked, *({name: 1.0} for name in asked)):
            for source in ("explicit", "stored", "inferred"):
                try:
                    grant = policy._grant(each, scope, source)
                except PolicyRefusal:
                    continue
                if any(grant.granted.values()):
                    return grant
    raise PolicyRefusal(
        "the policy grants no weight to anybody, so it cannot be shown that soups act; start vLLM without SOUPMIX_VLLM",
        reason="nothing-granted",
    )


def check_soups_act(core: Any, checker: Checker) -> None:
    """Answer a prompt on the base, with a soup, and on the base again, in one batch.

    Args:
        core: vLLM's `EngineCore`, made and not yet serving.

    Raises:
        SoupmixError: the soup changes nothing, or changes the base's rows (reason "soups-do-not-act").
        PolicyRefusal: see `loudest`.
    """
    grant = loudest(checker.policy, [name for name, _ in checker.adapters])
    row = SoupRow.of(grant, checker.adapters, _SALT).seal(checker.setup.key, _PROMPT)
    base, soup, again = _logprobs(core, [None, row, None])
    if base != again or soup == base:
        what = "changes nothing" if soup == base else "changes the rows of others"
        raise SoupmixError(
            f"a soup inside this vLLM {what}, so its hooks do not fit and nobody is served; unset SOUPMIX_VLLM, or remove "
            "vLLM's compile cache if it was filled without soups",
            reason="soups-do-not-act",
        )


def _logprobs(core: Any, rows: Sequence[str | None]) -> list[dict[int, float]]:
    """The likeliest first tokens of a prompt under each of these rows, computed in one batch."""
    from vllm.sampling_params import SamplingParams
    from vllm.v1.engine import EngineCoreRequest

    told: dict[str, dict[int, float]] = {}
    for number, row in enumerate(rows):
        extra = None if row is None else {FIELD: row}
        request = EngineCoreRequest(
            request_id=f"soupmix-canary-{number}",
            prompt_token_ids=list(_PROMPT),
            mm_features=None,
            sampling_params=SamplingParams(max_tokens=1, temperature=0, logprobs=5, extra_args=extra),
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=_SALT if row else f"{_SALT} {number}",
            data_parallel_rank=None,
        )
        core.add_request(*core.preprocess_add_request(request))
    for _ in range(_MOST_STEPS):
        outputs, _ = core.step_fn()
        for each in (each for client in (outputs or {}).values() for each in client.outputs):
            found = each.new_logprobs
            if found is not None:
                pairs = zip(found.logprob_token_ids[0].tolist(), found.logprobs[0].tolist(), strict=True)
                told[each.request_id] = dict(pairs)
        if len(told) == len(rows) and not core.scheduler.has_requests():
            break
    return [told.get(f"soupmix-canary-{number}", {}) for number in range(len(rows))]
