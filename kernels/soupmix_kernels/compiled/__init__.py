"""A whole step of a decoder in one call of a small C++ library, where a processor's own calls would cost more than its memory.

`Decoder` says what a model computes, `CompiledStep` computes it over keys and values in slots, and `library` makes the library
when it is first used. `CompiledSoup` computes the soups of one layer,
for models whose steps others compute. torch's own path stays beside it: reference, fallback and oracle.
"""

from soupmix_kernels.compiled.blocks import BITS, KINDS, Blocks
from soupmix_kernels.compiled.build import INSTRUCTIONS, CannotCompile, instructions, library, made_for
from soupmix_kernels.compiled.decoder import ACTIVATIONS, Decoder, DecoderLayer, Product
from soupmix_kernels.compiled.pages import LargePages
from soupmix_kernels.compiled.soup import CompiledSoup, SoupLibrary
from soupmix_kernels.compiled.step import CompiledStep

__all__ = [
    "ACTIVATIONS",
    "BITS",
    "INSTRUCTIONS",
    "KINDS",
    "Blocks",
    "CannotCompile",
    "CompiledSoup",
    "CompiledStep",
    "Decoder",
    "DecoderLayer",
    "LargePages",
    "Product",
    "SoupLibrary",
    "instructions",
    "library",
    "made_for",
]
