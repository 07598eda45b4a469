"""Judges for tests, as somebody's package would have them."""

__all__ = ["failing", "letters", "nothing"]


def letters(prompt: str, answer: str) -> float:
    """How many letters z an answer has."""
    return float(answer.count("z"))


def nothing(prompt: str, answer: str) -> float:
    """No number."""
    return float("nan")


def failing(prompt: str, answer: str) -> float:
    """It divides by zero."""
    return len(answer) / 0
