"""How much a text says: words, sentences, and what is left of it when all that it repeats is taken away."""

import zlib

from soupmix.evaluate.measures.reading import ReadText

__all__ = ["compressed"]


def compressed(reading: ReadText) -> float:
    """Bytes of the text by DEFLATE (RFC 1951, level 9), 0 of an empty one: to say a thing again costs next to nothing.

    Not a ratio: the share that can be saved tells how much a text repeats, which is damage, and not how long it is.
    """
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = reading.text.strip().encode("utf-8", "replace")
    return float(len(squeezer.compress(text) + squeezer.flush())) if text else 0.0
