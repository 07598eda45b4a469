"""Documents to begin with: the examples that come with soupmix, and one that approves the adapters of a store."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from soupmix.policy.adapters import AdapterRef

__all__ = ["approving", "example_documents"]

_ENDING = ".example.yaml"
_NOT_DOCUMENTS = ("cases",)  # tests of documents
_HEAD = """\
# Written by `soupmix policy init`. NOT LEGAL ADVICE; bounded weights do not make an output lawful or safe.
# Every document can only take away. An adapter that is not approved here, by the digest of its files, has weight 0.
tier: organisation
issuer: write here who you are
version: 1
rules:
"""


def example_documents() -> Mapping[str, Path]:
    """Name of an example -> its file: inside the installed package, else in the checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "examples"
    root = installed if installed.is_dir() else package.parents[1] / "examples" / "policies"
    found = {path.name.removesuffix(_ENDING): path for path in sorted(root.glob(f"*{_ENDING}"))}
    return {name: path for name, path in found.items() if name not in _NOT_DOCUMENTS}


def approving(adapters: Iterable[AdapterRef]) -> bytes:
    """A document of an organisation that approves just these adapters, by digest, and leaves the rest to its issuer."""
    listed = [
        {"name": each.name, "digest": each.digest, "dimension": each.dimension, "pole": each.pole} for each in adapters
    ]
    rule = {"id": "approved", "rule": "approve", "adapters": listed}
    text = yaml.safe_dump([rule], sort_keys=False, width=120)
    return (_HEAD + text).encode()
