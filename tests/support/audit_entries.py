"""Entries for the tests of the audit room."""

from soupmix.audit import Record
from soupmix.weights import Weights

NOON = 1_700_000_000


def entry(number: int, person: str | None = "anna") -> Record:
    """The grant of some request."""
    return Record(
        "grant",
        person=person,
        requested=Weights.from_micro({"elementary": 900_000, "friendly": number}),
        granted=Weights.from_micro({"elementary": 500_000, "friendly": number}),
        attributes={"audience": "minor"},
        policy=f"sha256:{'a' * 64}",
        binding=("organisation/Acme/calm",),
        merge=f"sha256:{number:064x}",
    )
