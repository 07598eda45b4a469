"""One thing about a result that is not as recorded."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as recorded.

    Attributes:
        kind: "output-changed", "output-missing", "output-unknown", "provenance-differs", "signature-missing",
            "signature-wrong", "signature-differs", "adapter-changed", "base-changed" or "rebuild-differs".
        subject: the file, adapter or base. message: one sentence.
    """

    kind: str
    subject: str
    message: str
