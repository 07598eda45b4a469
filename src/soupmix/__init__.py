"""soupmix: one language model for many people, a LoRA soup per person, clamped by policy.

    store = soupmix.Store.shipped()                          adapters on disk
    policy = soupmix.Policy.load("acme.yaml", adapters=store)
    grant = policy.clamp({"elementary": 1.0})                what the policy lets through, and why
    soupmix.merge(store, grant).save_adapter("alice")        load time: a PEFT adapter, or a full model
    soupmix.extract_adapter("loha", base="smollm2-135m-instruct").save("as-lora")
    engine = soupmix.Engine.load("smollm2-135m-instruct", store, compiled=True)
    engine.generate(["Why do we sleep?"], [grant])           request time: a soup per row of the batch

Everything that these calls give and raise is here. `soupmix.audit` and `soupmix.trust` are rooms of their own.
Names are imported on first use, so `import soupmix` costs nothing and policies can be audited without torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from soupmix.version import __version__

if TYPE_CHECKING:
    from soupmix import audit, trust
    from soupmix.backends import Sampling
    from soupmix.base import Base, Layer, LayerTable, Quantisation, TensorInfo
    from soupmix.base import resolve as resolve_base
    from soupmix.engine import Completion, Engine
    from soupmix.errors import (
        AdapterError,
        AuditError,
        BaseModelError,
        EvaluationError,
        FileError,
        OutputError,
        Overloaded,
        PolicyError,
        PolicyRefusal,
        PreferenceError,
        RecipeError,
        SoupmixError,
        TrainingError,
        WeightError,
    )
    from soupmix.extract import Extracted, Extraction, LayerChange, extract_adapter
    from soupmix.findings import Finding, Verdict
    from soupmix.merge import Entries, Errors, Ingredient, ResultVerdict, Saved, Soup, Stack, merge, verify
    from soupmix.policy import Binding, DocumentRef, FeasibleSet, Grant, Policy, RuleRef, ScopedRule
    from soupmix.store import Adapter, Factors, Gram, Manifest, ManifestEntry, Store
    from soupmix.weights import Weights

__all__ = [
    "Adapter",
    "AdapterError",
    "AuditError",
    "Base",
    "BaseModelError",
    "Binding",
    "Completion",
    "DocumentRef",
    "Engine",
    "Entries",
    "Errors",
    "EvaluationError",
    "Extracted",
    "Extraction",
    "Factors",
    "FeasibleSet",
    "FileError",
    "Finding",
    "Gram",
    "Grant",
    "Ingredient",
    "Layer",
    "LayerChange",
    "LayerTable",
    "Manifest",
    "ManifestEntry",
    "OutputError",
    "Overloaded",
    "Policy",
    "PolicyError",
    "PolicyRefusal",
    "PreferenceError",
    "Quantisation",
    "RecipeError",
    "ResultVerdict",
    "RuleRef",
    "Sampling",
    "Saved",
    "ScopedRule",
    "Soup",
    "SoupmixError",
    "Stack",
    "Store",
    "TensorInfo",
    "TrainingError",
    "Verdict",
    "WeightError",
    "Weights",
    "__version__",
    "audit",
    "extract_adapter",
    "merge",
    "resolve_base",
    "trust",
    "verify",
]

_ROOMS = {
    "backends": ("Sampling",),
    "base": ("Base", "Layer", "LayerTable", "Quantisation", "TensorInfo"),
    "engine": ("Completion", "Engine"),
    "errors": (
        "AdapterError",
        "AuditError",
        "BaseModelError",
        "EvaluationError",
        "FileError",
        "OutputError",
        "Overloaded",
        "PolicyError",
        "PolicyRefusal",
        "PreferenceError",
        "RecipeError",
        "SoupmixError",
        "TrainingError",
        "WeightError",
    ),
    "extract": ("Extracted", "Extraction", "LayerChange", "extract_adapter"),
    "findings": ("Finding", "Verdict"),
    "merge": ("Entries", "Errors", "Ingredient", "ResultVerdict", "Saved", "Soup", "Stack", "verify"),
    "policy": ("Binding", "DocumentRef", "FeasibleSet", "Grant", "Policy", "RuleRef", "ScopedRule"),
    "store": ("Adapter", "Factors", "Gram", "Manifest", "ManifestEntry", "Store"),
    "weights": ("Weights",),
}
_HOMES = {name: (room, name) for room, names in _ROOMS.items() for name in names}
_HOMES["resolve_base"] = ("base", "resolve")


def __getattr__(name: str) -> Any:
    if name in ("audit", "merge", "trust"):  # rooms; the second can be called, see there
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"{__name__}.{room}"), attribute)


def __dir__() -> list[str]:
    return list(__all__)
