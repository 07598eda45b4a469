"""What somebody wants when they speak about one thing, shrunk towards what they want in general.

Evidence of other topics counts for a share of what it says, as an exponent of its likelihood: the power prior (Ibrahim and Chen
2000, Statistical Science 15:46). Which share is chosen by how likely it makes the evidence of the topic; without any of that, and
where the topic agrees with the rest, it is all of it. That people have one profile and topics that depart from it is the idea of
Fermi and EXACT.
"""

from typing import Final

import numpy as np

from soupmix.preference.posterior import Posterior

__all__ = ["MOST_TOPICS", "SHARES", "share_of_others", "shrunk", "topics_of"]

SHARES: Final = (1.0, 0.5, 0.25, 0.1)
"""What evidence of other topics may count for."""

MOST_TOPICS: Final = 8
"""Of one person, of which weights are kept; the others are as the person is."""

_ALIKE = 0.6  # how likely it is before any evidence that a topic is like the others


def shrunk(posterior: Posterior, topic: str | None) -> Posterior:
    """The posterior for a topic: all evidence of it, and a share of the rest.

    Args:
        posterior: of all evidence.
        topic: as signals name it; None, or one without signals, gives the posterior itself.
    """
    share = share_of_others(posterior, topic)
    return posterior if topic is None or share == 1.0 else _beside(posterior, topic, 1.0, share)


def topics_of(posterior: Posterior) -> tuple[str, ...]:
    """The topics that signals name, at most `MOST_TOPICS`: those spoken about last, the last one first."""
    named = [each.topic for each in reversed(posterior.signals) if each.topic is not None]
    return tuple(dict.fromkeys(named))[:MOST_TOPICS]


def share_of_others(posterior: Posterior, topic: str | None) -> float:
    """Of `SHARES`, what evidence of everything else counts for when a topic is spoken about; 1 where nothing is known of it."""
    topics = {each.topic for each in posterior.signals}
    if topic is None or topic not in topics or len(topics) == 1:
        return 1.0
    log_priors = np.log([_ALIKE, *[(1 - _ALIKE) / (len(SHARES) - 1)] * (len(SHARES) - 1)])
    scores = [_foretold(posterior, topic, share) for share in SHARES] + log_priors
    return SHARES[int(np.argmax(scores))]


def _foretold(posterior: Posterior, topic: str, share: float) -> float:
    """Log-probability of the evidence of a topic after a share of the rest, in nats."""
    return _log_evidence(_beside(posterior, topic, 1.0, share)) - _log_evidence(_beside(posterior, topic, 0.0, share))


def _beside(posterior: Posterior, topic: str, own: float, others: float) -> Posterior:
    return posterior.copied(lambda each: own if each == topic else others)


def _log_evidence(posterior: Posterior) -> float:
    return float(np.logaddexp.reduce([posterior.log_evidence(model) for model in posterior.wants]))
