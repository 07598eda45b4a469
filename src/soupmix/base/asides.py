"""What torchao and bitsandbytes say when they are imported, which transformers, PEFT and trl do, needed or not: nobody asked.

bitsandbytes asks for a kernel of somebody else's on processors with products of bf16, and only there says that it has none.
"""

import logging

__all__ = ["drop_asides"]

# logger -> how a message begins
_ASIDES = {
    "torchao": "Failed to load",
    "torch.utils._pytree": "%s is an Enum subclass",
    "bitsandbytes.backends.cpu.ops": "Failed to load CPU gemm_4bit_forward",
}


def drop_asides() -> None:
    """From now on tell nobody what torchao and bitsandbytes do without, nor of torchao's enums; all else is told."""
    for name in _ASIDES:
        logger = logging.getLogger(name)
        if _is_asked not in logger.filters:
            logger.addFilter(_is_asked)


def _is_asked(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_ASIDES[record.name])
