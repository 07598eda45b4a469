"""The posterior against other people's samplers and estimators; `pip install --group oracles`, which brings no torch."""

import numpy as np
import pytest

from soupmix.preference import Posterior, Prior
from tests.support.wanting import choice, traits

pytestmark = pytest.mark.slow


def answers(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """[count, 3] how much better the preferred answer of each pair was, and [count, 2, 3] the pairs, preferred first."""
    draw = np.random.default_rng(seed)
    pairs = draw.standard_normal((count, 2, 3))
    want = np.array([0.6, 0.3, 0.1])
    first = draw.random(count) < 1 / (1 + np.exp(-4 * (pairs[:, 0] - pairs[:, 1]) @ want))
    pairs[~first] = pairs[~first, ::-1]
    return pairs[:, 0] - pairs[:, 1], pairs


def test_means_and_spreads_are_those_of_nuts() -> None:
    """Shares from Dirichlet(1), sharpness and floor known: Hamiltonian Monte Carlo on the same model."""
    numpyro = pytest.importorskip("numpyro", reason="not installed: the group `oracles`")
    import jax
    from numpyro import distributions as dist
    from numpyro.infer import MCMC, NUTS

    off, pairs = answers(12, 3)

    def model() -> None:
        want = numpyro.sample("want", dist.Dirichlet(np.ones(3)))
        chance = 0.05 + 0.9 * jax.nn.sigmoid(4.0 * (off @ want))
        numpyro.sample("said", dist.Bernoulli(chance), obs=np.ones(len(off)))

    sampler = MCMC(NUTS(model), num_warmup=1000, num_samples=8000, progress_bar=False)
    sampler.run(jax.random.PRNGKey(0))
    drawn = np.asarray(sampler.get_samples()["want"])

    of = traits(3)
    posterior = Posterior(of, Prior(4.0, 0.0, (0.05,), careless=0.0), models=("linear",), particles=8192)
    posterior.learn(*(choice(of, f"a{n}", one, other) for n, (one, other) in enumerate(pairs)))
    assert posterior.mean() == pytest.approx(drawn.mean(0), abs=0.01)
    assert posterior.covariance() == pytest.approx(np.cov(drawn.T), abs=0.003)
    assert posterior.intervals(0.9) == pytest.approx(np.quantile(drawn, [0.05, 0.95], axis=0).T, abs=0.02)


def test_worths_of_single_answers_rank_as_those_of_choix() -> None:
    """Each trait is one of four answers, so that a direction of wants is their Bradley-Terry worths (Maystre's choix, MAP)."""
    choix = pytest.importorskip("choix", reason="not installed: the group `oracles`")
    draw, worths = np.random.default_rng(2), np.array([1.2, 0.4, -0.4, -1.2])
    pairs = [tuple(draw.choice(4, 2, replace=False)) for _ in range(120)]
    won = [(a, b) if draw.random() < 1 / (1 + np.exp(worths[b] - worths[a])) else (b, a) for a, b in pairs]
    estimated = choix.ilsr_pairwise(4, won, alpha=0.05)

    of = traits(4, signed=True)
    posterior = Posterior(of, models=("linear",), particles=8192)
    posterior.learn(*(choice(of, f"a{n}", np.eye(4)[a], np.eye(4)[b]) for n, (a, b) in enumerate(won)))
    mean = posterior.mean() - posterior.mean().mean()
    estimated = estimated - estimated.mean()
    assert mean / np.linalg.norm(mean) == pytest.approx(estimated / np.linalg.norm(estimated), abs=0.08)
