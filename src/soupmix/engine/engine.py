"""Request time: one model, one bank of adapters, and a soup per row."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from soupmix.base import Base, chat_text, load_model, load_tokenizer, resolve
from soupmix.dtypes import WORDS, dtype_code, torch_dtype
from soupmix.engine.bank import Bank
from soupmix.engine.decode import Tokens, decode
from soupmix.engine.insert import Paths, factor_ready, insert
from soupmix.engine.layers import SoupGroup
from soupmix.engine.party import METHODS
from soupmix.engine.rows import Rows
from soupmix.engine.sampling import Sampling
from soupmix.errors import AdapterError, RecipeError
from soupmix.merge.identity import merge_identity
from soupmix.policy import Grant, Policy
from soupmix.policy.grant import check_grant
from soupmix.policy.linear import check_linear
from soupmix.store.store import Store

__all__ = ["Completion", "Engine", "Message", "Prompt"]

Message = Mapping[str, str]
Prompt = str | Sequence[Message]


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer: its text, how many tokens it took, and whether it ended by itself (not at the cap)."""

    text: str
    tokens: int
    finished: bool


class Engine:
    """A transformers model whose every row is its own person."""

    def __init__(
        self, model: Any, tokenizer: Any, bank: Bank, rows: Rows, groups: dict[Paths, SoupGroup], base_digest: str = ""
    ) -> None:
        self.model, self.tokenizer, self.bank, self.base_digest = model, tokenizer, bank, base_digest
        self.rows, self._groups = rows, groups

    @classmethod
    def load(
        cls,
        base: str | Base,
        store: Store | None,
        *,
        policy: Policy | None = None,
        dtype: str | None = None,
        device: str = "cpu",
        fused: bool = True,
    ) -> "Engine":
        """Load a base model and put the adapters of a store into it.

        Args:
            base: a base model by name, folder, GGUF file or hub id (see `soupmix.base.resolve`).
            store: its adapters are read, checked against the manifest, and held once for everybody; None: no adapters.
            policy: only its grants are taken, and its upper bounds that hold in every scope are held again inside the
                kernels, as the last line. Without one, grants of any policy are taken, each weight in [0, 1]: for a server
                that reads its policy again while the model stays, and grants by the one in force.
            dtype: "fp32", "bf16" or "fp16"; by default the dtype of the base.
            device: a torch device.
            fused: compute projections that share an input together, on the CPU with weights in oneDNN's layout: faster,
                and equal to transformers' own layers up to rounding. False: without a soup equal bit for bit.

        Raises:
            BaseModelError: the base cannot be found or has no such layers.
            AdapterError: an adapter is damaged or was trained on another base.
            RecipeError: unknown dtype.
        """
        found = resolve(base) if isinstance(base, str) else base
        with ThreadPoolExecutor(1) as alone:
            return alone.submit(cls._load, found, store, policy, dtype, device, fused).result()

    @classmethod
    def _load(
        cls, found: Base, store: Store | None, policy: Policy | None, dtype: str | None, device: str, fused: bool
    ) -> "Engine":
        """In a thread that ends: OpenMP keeps workers for every thread that ever computed, and libgomp's stop spinning as
        soon as there are more than processors. A loading thread that lives on costs a running batch two fifths of its speed.
        """
        adapters = [store.load(name) for name in store.names] if store else []
        for adapter in adapters:
            if adapter.base_digest != found.digest:
                raise AdapterError(
                    f"adapter '{adapter.name}' was trained on base {adapter.base_digest}, "
                    f"but '{found.name}' is {found.digest}; use the base it was trained on",
                    reason="wrong-base",
                )
        model, tokenizer = _load_model(found, dtype)
        model = model.to(device)
        bank = Bank.of(adapters, policy)
        rows = Rows(bank, torch.device(device))
        return cls(model, tokenizer, bank, rows, insert(model, adapters, rows, fused=fused), found.digest)

    def generate(
        self, prompts: Sequence[Prompt], grants: Sequence[Grant], *, method: str = "delta", **sampling: Any
    ) -> list[str]:
        """Answer every prompt with the soup of its own grant; see `complete`."""
        return [c.text for c in self.complete(prompts, grants, sampling=Sampling(**sampling), method=method)]

    def complete(
        self,
        prompts: Sequence[Prompt],
        grants: Sequence[Grant],
        *,
        sampling: Sampling | None = None,
        method: str = "delta",
        batch_size: int = 64,
    ) -> list[Completion]:
        """Answer every prompt with the soup of its own grant, in one left-padded batch per `batch_size` rows.

        Args:
            prompts: texts, or conversations as lists of {"role", "content"}; a last message of the assistant is continued.
            grants: one per prompt; a grant of nothing is the bare base.
            method: how adapters are merged, "delta" (exact sum of deltas) or "factor" (A and B averaged, Jang et al. 2023).

        Returns:
            One `Completion` per prompt, in order. A row's answer does not depend on the other rows.

        Raises:
            RecipeError: lengths differ, a prompt is empty, or `factor` with adapters of different ranks.
            PolicyRefusal: `factor` under a rule that bounds the norm (reason "norm-not-linear").
            AdapterError: a grant is for an adapter that this engine does not hold.
            PolicyError: a grant is of another policy than the one the engine was loaded under (reason "other-policy").
            PolicyError: a grant is not as a policy of this process gave it ("not-granted"). TypeError: it is none at all.
        """
        self._check(prompts, grants, method)
        weights = torch.tensor([self.bank.row(grant) for grant in grants], device=self.model.device).view(
            len(grants), len(self.bank.names)
        )
        texts = [self._render(prompt) for prompt in prompts]
        order = sorted(range(len(texts)), key=lambda i: (len(texts[i]), i))
        done: dict[int, Completion] = {}
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            with self.rows.serving(weights[batch], method):
                tokens = self._decode([texts[i] for i in batch], batch, sampling or Sampling())
            done.update(zip(batch, map(self._completion, tokens), strict=True))
        return [done[i] for i in range(len(texts))]

    def _check(self, prompts: Sequence[Prompt], grants: Sequence[Grant], method: str) -> None:
        if len(prompts) != len(grants):
            raise RecipeError(f"{len(prompts)} prompts need as many grants, not {len(grants)}", reason="lengths")
        for number, prompt in enumerate(prompts):
            if not prompt:
                raise RecipeError(f"prompt {number} is empty; say something", reason="empty-prompt")
        self._check_grants(grants, method)

    def _check_grants(self, grants: Sequence[Grant], method: str) -> None:
        self.check_method(method)
        for grant in grants:
            check_grant(grant, "the engine")
            check_linear(method, grant.norm_rule)

    def check_method(self, method: str) -> None:
        """Raise RecipeError if the method is unknown, or if it is `factor` and adapters have different ranks."""
        if method not in METHODS:
            raise RecipeError(f"method '{method}' is not known; choose one of {', '.join(METHODS)}", reason="method")
        if method == "factor":
            factor_ready(self._groups)

    def identity(self, grant: Grant, method: str, tenant: str = "") -> str:
        """The merge identity of what is computed here under a grant; see `soupmix.merge.identity`. Raises as `complete` does."""
        check_grant(grant, "the engine")
        return merge_identity(
            base_digest=self.base_digest,
            weights=grant.weighted,
            method=method,
            dtype=dtype_code(str(self.model.dtype).removeprefix("torch.")),
            policy_digest=grant.policy_digest,
            tenant_salt=tenant,
        )

    def tokens(self, prompt: Prompt) -> tuple[int, ...]:
        """Token ids of a prompt or conversation, as `complete` reads it. Raises RecipeError (reason "empty-prompt")."""
        if not prompt:
            raise RecipeError("the prompt is empty; say something", reason="empty-prompt")
        return self.plain_tokens(self._render(prompt))

    def plain_tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as it stands, without the chat template."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _render(self, prompt: Prompt) -> str:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        opener = messages.pop()["content"] if messages[-1]["role"] == "assistant" else ""
        return chat_text(self.tokenizer, messages) + opener

    def _decode(self, texts: list[str], streams: list[int], sampling: Sampling) -> list[Tokens]:
        batch = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(self.model.device)
        ids, mask = batch["input_ids"], batch["attention_mask"]
        return decode(self.model, ids, mask, sampling=sampling, streams=streams, stop=self.ends, keep=self.rows.keep)

    @property
    def ends(self) -> frozenset[int]:
        """Token ids that end an answer."""
        end = self.model.generation_config.eos_token_id
        return frozenset(end if isinstance(end, list) else [end])

    def _completion(self, tokens: Tokens) -> Completion:
        text = self.tokenizer.decode(list(tokens.ids), skip_special_tokens=True).strip()
        return Completion(text, len(tokens.ids), tokens.finished)

    def logits(self, ids: Tensor, grants: Sequence[Grant], *, method: str = "delta") -> Tensor:
        """Logits [rows, length, vocabulary] of unpadded token ids [rows, length], a soup per row. Raises as `complete`."""
        self._check_grants(grants, method)
        rows = [self.bank.row(grant) for grant in grants]
        weights = torch.tensor(rows, device=self.model.device).view(len(grants), len(self.bank.names))
        with torch.inference_mode(), self.rows.serving(weights, method):
            result: Tensor = self.model(input_ids=ids).logits
        return result


def _load_model(base: Base, dtype: str | None) -> tuple[Any, Any]:
    from transformers.utils import logging

    if dtype is not None and dtype not in WORDS.values():
        raise RecipeError(f"dtype '{dtype}' is not known; choose one of {', '.join(WORDS.values())}", reason="dtype")
    logging.disable_progress_bar()
    model = load_model(base.folder, torch_dtype(dtype_code(dtype)) if dtype else "auto").eval()
    tokenizer = load_tokenizer(base.folder)
    tokenizer.padding_side = "left"
    return model.requires_grad_(False), tokenizer
