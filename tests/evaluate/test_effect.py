"""Means with intervals."""

import random

from soupmix.evaluate import interval


def test_intervals_cover_the_mean_of_their_population() -> None:
    draw = random.Random(1)
    hits = 0
    for seed in range(100):
        found = interval([draw.gauss(3.0, 1.0) for _ in range(40)], resamples=400, seed=seed)
        hits += found.low <= 3.0 <= found.high
    assert 85 <= hits <= 100
