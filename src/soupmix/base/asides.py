"""What torchao says when it is imported, which transformers, PEFT and trl do, needed or not: nobody asked, so nobody is told."""

import logging

__all__ = ["drop_asides"]

# logger -> how a message begins
_ASIDES = {"torchao": "Failed to load", "torch.utils._pytree": "%s is an Enum subclass"}


def drop_asides() -> None:
    """From now on tell nobody of torchao's libraries for other devices, and of how it registers its enums; all else is told."""
    for name in _ASIDES:
        logger = logging.getLogger(name)
        if _is_asked not in logger.filters:
            logger.addFilter(_is_asked)


def _is_asked(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_ASIDES[record.name])
