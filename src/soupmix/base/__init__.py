"""Base models: from a name, a folder, a GGUF file or a hub id to a clean safetensors folder with a digest."""

from soupmix.base.asides import drop_asides
from soupmix.base.cache import cache_root
from soupmix.base.held import read_held
from soupmix.base.layers import Layer, LayerTable
from soupmix.base.loading import load_model, load_tokenizer
from soupmix.base.quantisation import Quantisation
from soupmix.base.resolver import KNOWN, Base, KnownBase, hub_id, resolve
from soupmix.base.safetensors import TensorInfo, read_tensors, tensors_digest
from soupmix.base.template import chat_text, unasked
from soupmix.base.whereabouts import base_of, remember_base

__all__ = [
    "KNOWN",
    "Base",
    "KnownBase",
    "Layer",
    "LayerTable",
    "Quantisation",
    "TensorInfo",
    "base_of",
    "cache_root",
    "chat_text",
    "hub_id",
    "load_model",
    "load_tokenizer",
    "read_held",
    "read_tensors",
    "remember_base",
    "resolve",
    "tensors_digest",
    "unasked",
]

drop_asides()
