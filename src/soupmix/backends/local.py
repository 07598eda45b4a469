"""The backend of this process: an engine, and a running batch over it."""

from collections.abc import Mapping, Sequence
from typing import Self

from soupmix.backends.protocol import Limits, Message, Tool, ToolUse, Vocabulary
from soupmix.base import Base, resolve
from soupmix.batching import Batcher
from soupmix.engine import Engine
from soupmix.engine.grammar import library
from soupmix.engine.trials import Trials
from soupmix.errors import RecipeError
from soupmix.methods import DEFAULT
from soupmix.modes import FULL, Mode
from soupmix.policy import Grant, Policy
from soupmix.store import Store

__all__ = ["LocalBackend"]


class LocalBackend(Batcher):
    """A `soupmix.backends.Backend` over an engine: a `Batcher` that reads texts and conversations, too.

    Made as a `Batcher` is. One running batch merges by one method, and a row has at most as many tokens
    as the model has positions.
    """

    @classmethod
    def open(
        cls,
        base: str | Base,
        store: Store | None,
        *,
        policy: Policy | None = None,
        dtype: str | None = None,
        device: str = "cpu",
        limits: Limits = Limits(),  # noqa: B008  # frozen
        method: str = DEFAULT,
    ) -> Self:
        """Load an engine with a compiled step, and begin to answer; see `Engine.load` and `Batcher` for arguments and errors.

        What trials of the model find right is kept (`soupmix.engine.trials`), and not tried again at the next start.
        """
        found = resolve(base) if isinstance(base, str) else base
        engine = Engine.load(found, store, policy=policy, dtype=dtype, device=device, compiled=True)
        held = dict(zip(engine.adapters.names, engine.adapters.digests, strict=True))
        engine.trials = Trials.of(found, held, engine.model, f"fused, {engine.step.why}")
        return cls(engine, limits, method=method)

    @property
    def methods(self) -> tuple[str, ...]:
        """See `Backend.methods`."""
        return (self.method,)

    @property
    def unserved(self) -> Mapping[str, RecipeError]:
        """See `Backend.unserved`."""
        return {name: each.error(name) for name, each in self.engine.adapters.unserved.items()}

    @property
    def modes(self) -> tuple[Mode, ...]:
        """See `Backend.modes`."""
        return self.engine.modes

    @property
    def vocabulary(self) -> Vocabulary:
        """See `Backend.vocabulary`."""
        return self.engine.prompts.vocabulary

    def check_schema(self) -> None:
        """See `Backend.check_schema`."""
        library()

    @property
    def tool_use(self) -> ToolUse:
        """See `Backend.tool_use`."""
        return self.engine.prompts.tool_use

    def tokens(self, said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """See `Backend.tokens`."""
        return self.engine.plain_tokens(said) if isinstance(said, str) else self.engine.prompts.chat(said, tools)

    def marker(self, text: str) -> str | None:
        """See `Backend.marker`."""
        return self.engine.prompts.marker(text)

    def identity(self, grant: Grant, method: str, tenant: str = "", mode: Mode = FULL) -> str:
        """See `Backend.identity`."""
        return self.engine.identity(grant, method, tenant, mode)
