"""What backends have in common whose answers are made in other processes: prompts are read here, by the base's tokenizer."""

from collections.abc import Sequence

from soupmix.backends.protocol import Message, Tool, ToolUse, Vocabulary
from soupmix.base import Base
from soupmix.engine.prompts import Prompts
from soupmix.merge.identity import merge_identity
from soupmix.modes import FULL, Mode
from soupmix.policy import Grant
from soupmix.policy.grant import check_grant

__all__ = ["ReadsHere"]


class ReadsHere:
    """Those parts of a `Backend` that need a tokenizer and no model; `_maker` says in errors who merges."""

    _maker: str
    _prompts: Prompts
    _base: Base
    _dtype: str

    @property
    def vocabulary(self) -> Vocabulary:
        """See `Backend.vocabulary`."""
        return self._prompts.vocabulary

    @property
    def tool_use(self) -> ToolUse:
        """See `Backend.tool_use`."""
        return self._prompts.tool_use

    def tokens(self, said: str | Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """See `Backend.tokens`."""
        return self._prompts.plain(said) if isinstance(said, str) else self._prompts.chat(said, tools)

    def marker(self, text: str) -> str | None:
        """See `Backend.marker`."""
        return self._prompts.marker(text)

    def identity(self, grant: Grant, method: str, tenant: str = "", mode: Mode = FULL) -> str:
        """See `Backend.identity`."""
        check_grant(grant, self._maker)
        return merge_identity(
            base_digest=self._base.digest,
            weights=grant.weighted,
            method=method,
            dtype=self._dtype,
            policy_digest=grant.policy_digest,
            tenant_salt=tenant,
            mode=mode,
        )
