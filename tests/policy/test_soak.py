"""A short run of what `make soak` does a million times."""

from tests.policy.soak import soak


def test_random_policies_and_requests() -> None:
    found = soak(1500, seed=7)
    assert found["proved"] + found["refused: no whole point"] == 1500
    assert found["clamped"] > 500
    assert found["policies"] > 25
