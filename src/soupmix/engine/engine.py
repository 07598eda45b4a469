"""Request time: one model, its adapters in memory once, and a soup per row."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from soupmix.backends.protocol import Sampling, SamplingFields, Tool
from soupmix.base import Base, resolve
from soupmix.dtypes import held_code
from soupmix.engine.answers import Answering, Completion
from soupmix.engine.compiled import TORCH, EngineStep, StepChoice
from soupmix.engine.computing import Computing, Soups
from soupmix.engine.detokenizer import Detokenizer
from soupmix.engine.grammar import Grammars, Schema, each_schema
from soupmix.engine.layers import Paths, SoupGroup, check_ranks
from soupmix.engine.loading import loaded
from soupmix.engine.positions import check_fits, positions
from soupmix.engine.prompts import Prompt, Prompts, check_given, known_tokens
from soupmix.engine.rows import MIXES_ROWS, ActiveBatch, LoadedAdapters
from soupmix.engine.slot_rows import objection
from soupmix.engine.together import Company, Together, batches, company, kept_company
from soupmix.engine.trials import Trials
from soupmix.errors import BaseModelError, RecipeError
from soupmix.merge.identity import base_identity, merge_identity
from soupmix.methods import DEFAULT, METHODS, check_linear, served
from soupmix.modes import ANSWER, FULL, MODES, Mode, check_mode, each_mode
from soupmix.policy import Grant, Policy
from soupmix.policy.grant import check_grant
from soupmix.public import public
from soupmix.store.store import Store

__all__ = ["Engine"]


@public
class Engine:
    """A transformers model in which every row of a batch has its own soup. Made by `load`; may be used from any thread.

    Attributes:
        model: that of transformers; its linear layers are soup layers.
        tokenizer: that of transformers.
        adapters: the loaded adapters in the order of the weights.
        batch: the batch that the model serves now.
        base_digest: digest of the base model.
        prompts: what the tokenizer makes of prompts.
        detokenizer: what it makes of the tokens of answers.
        grammars: what answers are held to by a JSON schema.
        step: how the steps of answers are computed, and why so.
        trials: what trials of this model found before, on this machine; nothing is kept unless it is set.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        adapters: LoadedAdapters,
        batch: ActiveBatch,
        groups: dict[Paths, SoupGroup],
        base_digest: str = "",
        step: StepChoice = TORCH,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.adapters = adapters
        self.batch = batch
        self.base_digest = base_digest
        self.detokenizer = Detokenizer(tokenizer)
        self.prompts = Prompts(tokenizer, known_tokens(model, tokenizer))
        self.grammars = Grammars(self.prompts, self.detokenizer, lambda: self.ends)
        self.step = EngineStep(model, groups, batch, step)
        self.trials = Trials()
        self._groups = groups

    def __repr__(self) -> str:
        """Such as "<Engine of SmolLM2-135M-Instruct in bfloat16 on cpu, 2 adapters: concise, friendly>"."""
        name = Path(getattr(self.model.config, "_name_or_path", "")).name or self.model.config.model_type
        names = self.adapters.names
        held = f"{len(names)} adapters: {', '.join(names)}" if names else "no adapters"
        return f"<Engine of {name} in {self._dtype} on {self.model.device}, {held}>"

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
        compiled: bool = False,
    ) -> "Engine":
        """Load a base model and put the adapters of a store into it.

        An adapter that no row of this model can have (of all experts at once, of a router) is left out and told once, as a
        warning; whoever asks for it is refused by its name.

        Args:
            base: a base model by name, folder, GGUF file or hub id (see `soupmix.base.resolve`).
            store: its adapters are read, checked against the manifest, and held in memory once for everybody; None: no
                adapters.
            policy: the one policy whose grants are taken. The kernels clamp once more to those of its upper bounds that hold
                in every scope. None: grants of any policy are taken, each weight in [0, 1]; for a server that reads a new
                policy while the model stays loaded, and grants by it.
            dtype: "fp32", "bf16" or "fp16"; None: the dtype of the base. "int8" or "int4": bf16, and the weights of the base
                are held in 8 or 4 bits, a scale for every 32, which needs `compiled` steps; adapters are not.
            device: "cpu", "cuda" or "cuda:N".
            fused: compute layers that share an input together, on the CPU with weights in oneDNN's layout: faster, and equal
                to transformers' own layers up to rounding. False: a row without a soup is equal to them bit for bit.
            compiled: compute answers by `soupmix_kernels.compiled` where that can be done; `step` says whether. Rows then
                have the same bits in every batch. Weights are held row by row, and not in oneDNN's layout.

        Raises:
            BaseModelError: the base cannot be found or has no such layers, or it is quantised and cannot be computed here or
                in this dtype; or steps cannot be compiled, and are asked for in "int8" or "int4" ("not-compiled").
            AdapterError: an adapter is damaged or was trained on another base.
            RecipeError: unknown dtype, or a device that is not there ("device").
        """
        found = resolve(base) if isinstance(base, str) else base
        with ThreadPoolExecutor(1) as alone:
            return cls(*alone.submit(loaded, found, store, policy, dtype, device, fused, compiled).result())

    def generate(
        self,
        prompts: Sequence[Prompt],
        grants: Sequence[Grant],
        *,
        method: str = DEFAULT,
        mode: Mode | Sequence[Mode] = FULL,
        schema: Schema | Sequence[Schema | None] | None = None,
        **sampling: Unpack[SamplingFields],
    ) -> list[str]:
        """The texts of `complete`, whose arguments and errors these are; `sampling` are the fields of `Sampling`."""
        made = self.complete(prompts, grants, sampling=Sampling(**sampling), method=method, mode=mode, schema=schema)
        return [each.text for each in made]

    def complete(
        self,
        prompts: Sequence[Prompt],
        grants: Sequence[Grant],
        *,
        sampling: Sampling | None = None,
        method: str = DEFAULT,
        mode: Mode | Sequence[Mode] = FULL,
        schema: Schema | Sequence[Schema | None] | None = None,
        batch_size: int = 64,
        streams: Sequence[int] | None = None,
    ) -> list[Completion]:
        """Answer every prompt with the soup of its own grant, in one left-padded batch per `batch_size` rows.

        Args:
            prompts: texts, or conversations as lists of {"role", "content"}; a last message of the assistant is continued.
            grants: one per prompt; a grant of nothing is the bare base.
            sampling: how tokens are chosen, and how many at most; None: greedily, 256.
            method: how adapters are merged, one of `soupmix.methods.served`; the exact sum of deltas if not given.
            mode: where soups act, for all prompts or one for each: "full", on every token, or "answer": the prompt runs on the
                bare base, the answer on the soup (from which token on says `soupmix.engine.prompts.Prompts.bare`).
            schema: JSON schema that answers are valid against unless they are cut at their most tokens, for all prompts or one
                or None for each; None: answers are free. Needs the extra `json`; see `soupmix.engine.grammar`.
            batch_size: most rows that are computed at once; prompts of similar length are put together, and those of another
                length apart where padding changes what this model computes.
            streams: one per prompt, what is added to `Sampling.seed` for its random numbers; None: its place. Prompts of one
                stream are answered with the same luck.

        Returns:
            One `Completion` per prompt, in order. A row's answer does not depend on the other rows.

        Raises:
            RecipeError: there are not as many grants, modes, schemas or streams as prompts (reason "lengths"), a prompt is empty
                ("empty-prompt"), or one has with its answer more tokens than the model has positions ("too-long"); a schema is
                none that answers can be held to ("schema"), or the library for it is missing ("no-json-extra").
            BaseModelError: the model makes no answers token by token (reason "cannot-generate"), found out at the first call.
            RecipeError, BaseModelError: as `chat_tokens`.
            RecipeError, PolicyRefusal, PolicyError, AdapterError, TypeError: see `weights`, and `check_mode`.
        """
        streams = range(len(prompts)) if streams is None else streams
        check_given(prompts, grants, streams)
        modes = each_mode(mode, len(prompts))
        held = [self.grammars.of(each) for each in each_schema(schema, len(prompts))]
        for each in set(modes):
            self.check_mode(each)
        weights, how = self.weights(grants, method), sampling or Sampling()
        read = [self.prompts.filled(number, prompt) for number, prompt in enumerate(prompts)]
        for ids in read:
            check_fits(len(ids), how.max_new_tokens, self.positions)
        done: dict[int, Completion] = {}
        for rows in batches(self.together, list(map(len, read)), batch_size):
            soups = Soups(weights[rows], [self.bare(read[i], modes[i]) for i in rows], method)
            given, luck, own = [read[i] for i in rows], [streams[i] for i in rows], [held[i] for i in rows]
            made = self._answering.whole(given, soups, sampling=how, streams=luck, grammars=own)
            done.update(zip(rows, made, strict=True))
        return [done[i] for i in range(len(read))]

    def stream(
        self,
        prompt: Prompt,
        grant: Grant,
        *,
        method: str = DEFAULT,
        mode: Mode = FULL,
        schema: Schema | None = None,
        **sampling: Unpack[SamplingFields],
    ) -> Iterator[str]:
        """One answer as it is made: parts of its text, some of them empty, together what `generate` gives.

        Arguments and errors, which come at once, are those of `generate` for one prompt. Other calls may come between two parts.
        """
        check_given([prompt], [grant], [0])
        self.check_mode(mode)
        how, weights, grammar = Sampling(**sampling), self.weights([grant], method), self.grammars.of(schema)
        ids = self.prompts.filled(0, prompt)
        check_fits(len(ids), how.max_new_tokens, self.positions)
        soups = Soups(weights, [self.bare(ids, mode)], method)
        return self._answering.parts(ids, soups, sampling=how, grammar=grammar)

    def bare(self, prompt: tuple[int, ...], mode: Mode) -> int:
        """How many tokens of a prompt, the first ones, run on the bare base in a mode; see `Prompts.bare`."""
        return self.prompts.bare(prompt) if mode == ANSWER else 0

    @property
    def modes(self) -> tuple[Mode, ...]:
        """Those of `soupmix.modes` that this engine computes in, "full" first."""
        return (FULL,) if self.adapters.names and self.together == "alone" else MODES

    def check_mode(self, mode: Mode) -> None:
        """Raise RecipeError if there is no such mode (reason "mode"), or not for this model ("mixes-rows")."""
        check_mode(mode)
        if mode != FULL and mode not in self.modes:
            why = "needs layers that show which token they compute, and this model's do not"
            raise RecipeError(f"mode '{mode}' {why}; ask in mode '{FULL}'", reason=MIXES_ROWS)

    @property
    def positions(self) -> int | None:
        """Most tokens of prompt and answer together, as the model's config says; None: it says nothing."""
        return positions(self.model.config)

    @property
    def together(self) -> Together:
        """Which rows may be computed in one batch: "padded" (any), "equal" (of one length) or "alone"; tried when first asked."""
        return self._tried.together

    @property
    def noise(self) -> float:
        """How far two right ways to compute the same logits are apart in this model; see `soupmix.engine.likeness`."""
        return self._tried.noise

    @cached_property
    def _tried(self) -> Company:
        return kept_company(self.trials, lambda: company(self.model, self.batch, self.prompts.size))

    def weights(self, grants: Sequence[Grant], method: str) -> Tensor:
        """What grants say of the loaded adapters: the one way from grants to what this engine computes.

        Returns:
            The weight of every adapter [grants, K] fp32, on the device of the model.

        Raises:
            RecipeError: the method is unknown ("method"), or not defined for these adapters ("ranks-differ"); or no row can have
                an adapter of a grant ("experts", "not-linear", "read-directly").
            TypeError: a grant is none at all.
            PolicyError: a grant is not as a policy of this process gave it (reason "not-granted"), or is of another policy than
                the one that the engine was loaded under ("other-policy").
            PolicyRefusal: a method that is not linear under a rule that bounds the norm ("norm-not-linear").
            AdapterError: a grant is for an adapter that is not loaded, or for other content of it ("digest-mismatch").
        """
        self.check_method(method)
        for grant in grants:
            check_grant(grant, "the engine")
            check_linear(method, grant.norm_rule)
        rows = [self.adapters.weights(grant) for grant in grants]
        return torch.tensor(rows, device=self.model.device).view(len(grants), len(self.adapters.names))

    def check_method(self, method: str) -> None:
        """Raise RecipeError if the method is unknown ("method"), or not defined for these adapters ("ranks-differ")."""
        if method not in served():
            known = method in METHODS
            why = "makes adapters and models at load time, and no row can have it" if known else "is not known"
            raise RecipeError(f"method '{method}' {why}; choose one of {', '.join(served())}", reason="method")
        check_ranks(self._groups, method)

    def identity(self, grant: Grant, method: str, tenant: str = "", mode: Mode = FULL) -> str:
        """The identity of what is computed under a grant; see `soupmix.merge.identity`.

        Raises:
            TypeError, PolicyError: the grant is none, or not as a policy of this process gave it (reason "not-granted").
            RecipeError: there is no such mode (reason "mode").
        """
        check_grant(grant, "the engine")
        return merge_identity(
            base_digest=self.base_digest,
            weights=grant.weighted,
            method=method,
            dtype=self._code,
            policy_digest=grant.policy_digest,
            tenant_salt=tenant,
            mode=mode,
        )

    def base_identity(self, tenant: str = "") -> str:
        """The key of what the bare base computes of prompts, in mode "answer"; see `soupmix.merge.identity`."""
        return base_identity(base_digest=self.base_digest, dtype=self._code, tenant_salt=tenant)

    def chat_tokens(self, prompt: Prompt, tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids of a prompt or conversation, with the chat template, as `complete` reads it, and with tools.

        Raises:
            RecipeError: the prompt is empty (reason "empty-prompt"), the template does not take it ("bad-conversation"), or the
                model has no tokens for it ("cannot-encode", "no-such-token").
            BaseModelError: there is no chat template ("no-template"), or none that can be used ("bad-template",
                "template-limit").
        """
        return self.prompts.tokens(self.prompts.rendered(prompt, tools))

    def plain_tokens(self, text: str) -> tuple[int, ...]:
        """Token ids of a text as it stands, without the chat template; first the one that the tokenizer begins texts with.

        Raises:
            RecipeError: the model has no tokens for it ("cannot-encode", "no-such-token").
        """
        return self.prompts.plain(text)

    @property
    def _answering(self) -> Answering:
        return Answering(self._computing, self.detokenizer, self.ends)

    @cached_property
    def _computing(self) -> Computing:
        self.step.settle(lambda: objection(self.model, self.batch, self.step, self.prompts.size, self.noise))
        return Computing(self.model, self.batch, self.step)

    @property
    def _dtype(self) -> str:
        return self.step.held or str(self.model.dtype).removeprefix("torch.")

    @property
    def _code(self) -> str:
        """The dtype in identities: blocks of a GGUF file are others than those nearest to what bf16 has of them."""
        return held_code(self._dtype) + ("-gguf" if self.step.exact else "")

    @cached_property
    def ends(self) -> frozenset[int]:
        """Token ids that end an answer: those that the generation config, the tokenizer and the chat template know of."""
        return self.prompts.ends(getattr(self.model, "generation_config", None))

    def logits(self, ids: Tensor, grants: Sequence[Grant], *, method: str = DEFAULT) -> Tensor:
        """Logits of token ids without padding, a soup per row.

        Args:
            ids: [rows, length] int64, on the device of the model.
            grants: one per row.
            method: as in `complete`.

        Returns:
            [rows, length, vocabulary] in the dtype of the model; in fp32 by compiled steps.

        Raises:
            RecipeError, PolicyRefusal, PolicyError, AdapterError, TypeError: see `weights`.
            IndexError, ValueError: there is no such token.
        """
        weights = self.weights(grants, method)
        if len(weights) > 1 and bool((weights != weights[0]).any()) and self._mixes_rows:
            rows = range(len(weights))
            return torch.cat([self._computing.logits(ids[[row]], weights[[row]], method) for row in rows])
        return self._computing.logits(ids, weights, method)

    @property
    def _mixes_rows(self) -> bool:
        try:
            return self.together == "alone"
        except BaseModelError:  # it makes no answers, so nothing was found out
            return True
