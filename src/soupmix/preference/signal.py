"""Signals: pieces of evidence of what a person wants, as they are kept. They may come from anybody, and are checked first."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from soupmix.errors import PreferenceError
from soupmix.fields import Digest, Name, problem

__all__ = ["KINDS", "MOST_SIGNALS", "Kind", "Signal"]

Kind = Literal["choice", "neither", "tie", "thumbs", "rating", "edit", "cue", "regenerate", "copy", "silence"]
KINDS: Final[dict[str, int]] = {
    "choice": 2, "neither": 2, "tie": 2, "thumbs": 1, "rating": 1,
    "edit": 2, "cue": 1, "regenerate": 1, "copy": 1, "silence": 1,
}  # fmt: skip
"""Of every kind, how many answers it is about."""

MOST_SIGNALS: Final = 10_000
"""Of one person."""

_LATEST = 253_402_300_799.0  # the year 9999
Number = Annotated[float, Field(allow_inf_nan=False, ge=-1e12, le=1e12)]
Values = Annotated[dict[Name, Number], Field(min_length=1, max_length=64)]


class Signal(BaseModel):
    """One piece of evidence: what somebody did or said about one or two measured answers.

    Attributes:
        id: a name that no other signal of the person has, so that none counts twice.
        kind: "choice" between two answers, "neither" of them, a "tie"; "thumbs" up or down; a "rating"; an "edit" of an answer; a
            "cue" in words after it, such as "shorter please"; "regenerate", "copy", or "silence" after it.
        source: who sent it, as the receiver knows it; what one source sends in one kind counts for a bounded number of answers.
        traits: digest of the `Traits` by which the answers were measured.
        answers: of each answer its measured traits, in the units of their measures. Of an edit, first what it was, then what it
            became.
        value: which answer was chosen, 0 or 1; thumbs 0 (down) or 1 (up); a rating from 0 to 1. None of other kinds.
        toward: of a cue, which way: trait -> share from -1 to 1.
        at: when, in seconds since 1970 (UTC).
        topic: what was spoken about, if wants may differ by it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: Name
    kind: Kind
    source: Name
    traits: Digest
    answers: Annotated[tuple[Values, ...], Field(min_length=1, max_length=2)]
    value: Annotated[float | None, Field(ge=0, le=1, allow_inf_nan=False)] = None
    toward: dict[Name, Annotated[float, Field(ge=-1, le=1, allow_inf_nan=False)]] = {}
    at: Annotated[float, Field(ge=0, le=_LATEST, allow_inf_nan=False)] = 0.0
    topic: Name | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(self.answers) != KINDS[self.kind]:
            raise ValueError(f"{self.kind!r} is about {KINDS[self.kind]} answers, not {len(self.answers)}")
        if (self.value is not None) != (self.kind in ("choice", "thumbs", "rating")):
            raise ValueError("a choice, thumbs and a rating have a value, and nothing else has")
        if self.kind in ("choice", "thumbs") and self.value not in (0, 1):
            raise ValueError(f"the value of {self.kind!r} is 0 or 1")
        if bool(self.toward) != (self.kind == "cue"):
            raise ValueError("a cue says which way, and nothing else does")
        return self

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> "Signal":
        """A signal from JSON that somebody else may have written.

        Raises:
            PreferenceError: it is none (reason "bad-signal").
        """
        try:
            return cls.model_validate({**content, "answers": tuple(content.get("answers") or ())})
        except (ValidationError, TypeError) as error:
            said = problem(error) if isinstance(error, ValidationError) else str(error)
            raise PreferenceError(f"this is no evidence of wants: {said}", reason="bad-signal") from None

    def to_dict(self) -> dict[str, Any]:
        """As JSON, without what is not said."""
        return self.model_dump(mode="json", exclude_defaults=True)
