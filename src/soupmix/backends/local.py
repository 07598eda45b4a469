"""The backend of this process: an engine, and a running batch over it."""

from collections.abc import Callable, Sequence
from typing import Self

from soupmix.backends.protocol import Delta, Limits, Message, Request, State, Ticket, Vocabulary
from soupmix.base import Base
from soupmix.batching import Batcher, LoopName
from soupmix.engine import Engine
from soupmix.errors import BaseModelError, RecipeError
from soupmix.methods import DEFAULT
from soupmix.policy import Grant, Policy
from soupmix.store import Store

__all__ = ["LocalBackend"]


class LocalBackend:
    """A `soupmix.backends.Backend` over an engine. A context manager, which closes at the end.

    Attributes:
        limits, methods, vocabulary: see `Backend`. One running batch merges by one method. A row has at most as many tokens
            as the model has positions.

    Args:
        engine: a loaded engine. limits: how much runs and waits at once. method: how adapters are merged.
        loop: see `Batcher`; None: what a trial finds right for the engine's model.

    Raises:
        BaseModelError: the running loop is asked for and not right for this model (reason "unsupported-attention"), or no
            loop is ("cannot-generate").
        RecipeError: an unknown method, or one that needs adapters of one rank, where ranks differ.
    """

    def __init__(
        self,
        engine: Engine,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        *,
        method: str = DEFAULT,
        loop: LoopName | None = None,
    ) -> None:
        self.methods, self.vocabulary = (method,), _vocabulary(engine)
        self._engine, self._batcher = (
            engine,
            Batcher(engine, limits, method=method, loop=loop),
        )  # last: it starts a thread
        self.limits = self._batcher.limits

    @classmethod
    def open(
        cls,
        base: str | Base,
        store: Store | None,
        *,
        policy: Policy | None = None,
        dtype: str | None = None,
        limits: Limits = Limits(),  # noqa: B008  # frozen
        method: str = DEFAULT,
    ) -> Self:
        """Load an engine, and begin to answer. Arguments and errors are those of `Engine.load` and of the class."""
        return cls(Engine.load(base, store, policy=policy, dtype=dtype), limits, method=method)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Such as "<LocalBackend: <Batcher of 64 rows x 2048 tokens, method M: 3 running, 0 waiting>>"."""
        return f"<LocalBackend: {self._batcher!r}>"

    def tokens(self, said: str | Sequence[Message]) -> tuple[int, ...]:
        """See `Backend.tokens`."""
        if isinstance(said, str):
            return self._engine.plain_tokens(said)
        try:
            return self._engine.chat_tokens(said)
        except BaseModelError as error:
            if error.reason != "no-template":
                raise
            raise RecipeError(str(error), reason=error.reason) from error  # it is for the request to ask otherwise

    def marker(self, text: str) -> str | None:
        """See `Backend.marker`."""
        return self._engine.prompts.marker(text)

    def identity(self, grant: Grant, method: str, tenant: str = "") -> str:
        """See `Backend.identity`."""
        return self._engine.identity(grant, method, tenant)

    def share(self, prefix: tuple[int, ...]) -> None:
        """See `Backend.share`."""
        self._batcher.share(prefix)

    def check_room(self) -> None:
        """See `Backend.check_room`."""
        self._batcher.check_room()

    def submit(self, request: Request, sink: Callable[[Delta], None]) -> Ticket:
        """See `Backend.submit`."""
        return self._batcher.submit(request, sink)

    def state(self) -> State:
        """See `Backend.state`."""
        return self._batcher.state()

    def close(self, *, drain: float = 0.0) -> None:
        """See `Backend.close`."""
        self._batcher.close(drain=drain)


def _vocabulary(engine: Engine) -> Vocabulary:
    return Vocabulary(engine.prompts.size, max(map(len, engine.tokenizer.get_vocab()), default=1))
