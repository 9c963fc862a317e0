"""Does a user still want what the older votes say? If recent ones contradict them, the older ones are put aside.

The test is the running log-loss: over the last w votes, how many nats more does the belief from the votes before them
lose than the generic user, who knows nothing of this one? A belief that is right loses more than ALARM_NATS with a
probability of at most exp(-ALARM_NATS), since the ratio of likelihoods is a martingale (Ville's inequality).
"""

import numpy as np

from idiolect.inference import Likelihood, Prior, Votes

ALARM_NATS = 4.0
SPANS = tuple(int(w) for w in np.unique(np.geomspace(2, 512, 17).round()))
"""How many recent votes are held against the older ones: every length up to a factor of the square root of 2."""


def outdated(votes: Votes, prior: Prior, likelihood: Likelihood) -> int:
    """How many of one user's votes, the oldest first, speak of somebody whom the user is no longer; mostly 0.

    `votes` [N, C] are in the order in which they were given.
    """
    n = len(votes.offsets)
    spans = np.array([w for w in SPANS if w < n], np.int64)
    if not len(spans):
        return 0
    recent = np.arange(n) >= n - spans[:, None]  # [W, N]
    before = Votes(
        np.broadcast_to(votes.slopes, (len(spans), *votes.slopes.shape)),
        np.broadcast_to(votes.offsets, recent.shape),
        votes.weights * ~recent,
    )
    known = prior.predict(prior.infer(before, likelihood), before, likelihood)
    generic = prior.predict(prior.infer(Votes.none(votes.slopes.shape[-1]), likelihood), votes, likelihood)
    loss = (recent * votes.weights * (np.log(generic) - np.log(known))).sum(-1)
    worst = int(loss.argmax())
    return n - int(spans[worst]) if loss[worst] > ALARM_NATS else 0
