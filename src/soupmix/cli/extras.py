"""What a command needs beside the base wheel: looked for before it works for minutes, without importing any of it."""

from importlib.util import find_spec

from soupmix.errors import SoupmixError

__all__ = ["need"]

_EXTRAS = {
    "extract": ("peft",),
    "plot": ("matplotlib",),
    "train": ("datasets", "peft", "trl", "vaderSentiment", "wordfreq"),
}
"""Extra in pyproject.toml -> the modules that it brings."""


def need(extra: str, work: str) -> None:
    """Raise SoupmixError (reason "no-extra") unless all of an extra is installed; `work` begins the message."""
    missing = [name for name in _EXTRAS[extra] if find_spec(name) is None]
    if missing:
        raise SoupmixError(
            f"{work} needs {', '.join(missing)}, which {'is' if len(missing) == 1 else 'are'} not installed: pip install "
            f"'soupmix[{extra}]'",
            reason="no-extra",
        )
