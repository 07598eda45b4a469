"""soupmix: one language model for many people, a LoRA soup per person, clamped by policy."""

__version__ = "0.1.0"
