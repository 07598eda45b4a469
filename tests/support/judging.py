"""Judges for tests, as somebody's package would have them."""

__all__ = ["letters", "nothing"]


def letters(prompt: str, answer: str) -> float:
    """How many letters z an answer has."""
    return float(answer.count("z"))


def nothing(prompt: str, answer: str) -> float:
    """No number."""
    return float("nan")
