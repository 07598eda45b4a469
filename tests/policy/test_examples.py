from pathlib import Path

import pytest

from soupmix.policy import Policy
from soupmix.weights import Weights

FOLDER = Path(__file__).parents[2] / "examples" / "policies"
PATHS = (FOLDER / "law.example.yaml", FOLDER / "organisation.example.yaml")


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy.load(*PATHS)


def test_marked_as_examples() -> None:
    for path in PATHS:
        assert path.read_text().startswith("# EXAMPLE. NOT LEGAL ADVICE")


def test_the_six_shipped_poles_and_nothing_to_remark(policy: Policy) -> None:
    assert set(policy.names) == {"elementary", "expert", "concise", "informative", "friendly", "unfriendly"}
    assert policy.notes == ()


@pytest.mark.parametrize(
    ("want", "audience", "granted", "rules"),
    [
        ("elementary=0.8,unfriendly=0.6", "minor", "elementary=0.8", ["no-unfriendly-minors"]),
        ("concise=0.5,unfriendly=0.9", "adult", "concise=0.5,unfriendly=0.5", ["unfriendly-capped"]),
        ("expert=1,informative=0.5", "adult", "expert=0.9,informative=0.5", ["expertise-capped"]),
        ("friendly=1", "public", "friendly=0.8", ["friendly-capped"]),
        (
            "elementary=0.7,concise=0.6,friendly=0.5",
            "public",
            "elementary=0.6,concise=0.5,friendly=0.4",
            ["public-budget"],
        ),
    ],
)
def test_people_meet_different_rules(policy: Policy, want: str, audience: str, granted: str, rules: list[str]) -> None:
    grant = policy.clamp(want, audience=audience)
    assert grant.granted == Weights(granted)
    assert [each.rule for each in grant.binding] == rules
    assert all(each.public_reason for each in grant.binding)
