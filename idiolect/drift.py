"""Does a user still want what the older votes say? If recent ones contradict them, the older ones are put aside.

Two stories are compared: that one wish explains all votes, and that the last w votes are those of another user, who
knows nothing of the first. When the second is better by ALARM_NATS of evidence, for the w that is best for it, the
votes before those w are outdated.
"""

import numpy as np
from numpy.typing import NDArray

from idiolect.inference import Prior
from idiolect.votes import Floats, Likelihood, Votes

ALARM_NATS = 3.0
SPANS = (2, 3, 4, 6, 8, 12, 16, 24, 32, 64, 128, 256)
"""Which w are tried."""
LATEST = 8
"""Where at most one of so many latest votes contradicts the belief from all votes, no wish has changed."""


def outdated(votes: Votes, prior: Prior, likelihood: Likelihood) -> int:
    """How many of one user's votes, the oldest first, speak of somebody whom the user is no longer; mostly 0.

    `votes` [N, C] are in the order in which they were given.
    """
    n = len(votes.offsets)
    spans = np.array([w for w in SPANS if w < n], np.int64)
    if not len(spans):
        return 0
    belief = prior.infer(votes, likelihood)
    if (prior.predict(belief, votes, likelihood)[-LATEST:] < 0.5).sum() <= 1:
        return 0
    recent = np.arange(n) >= n - spans[:, None]  # [W, N]

    def evidence(which: NDArray[np.bool_]) -> Floats:
        slopes = np.broadcast_to(votes.slopes, (len(spans), *votes.slopes.shape))
        offsets = np.broadcast_to(votes.offsets, recent.shape)
        return prior.evidence(Votes(slopes, offsets, votes.weights * which), likelihood)

    changed = evidence(recent) + evidence(~recent) - prior.evidence(votes, likelihood)
    best = int(changed.argmax())
    return n - int(spans[best]) if changed[best] > ALARM_NATS else 0
