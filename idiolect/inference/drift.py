"""Does a user still want what the older votes say? If recent ones contradict them, the older ones are put aside.

Two stories are compared: that one wish explains all votes, and that the last w votes are those of another user, who
knows nothing of the first and slips as often. A change has a price, since people seldom change: only when the second
story is better all the same, for the w that is best for it, are the votes before those w outdated. A few slips in a
row look like a change that has just happened, so that it is believed when the wish is LEAST_VOTES votes old.
"""

from dataclasses import replace

import numpy as np

from idiolect.inference.priors import Prior
from idiolect.inference.voter import Voters
from idiolect.votes import Floats, Likelihood, Votes

HAZARD = 0.005
"""Prior probability that a wish changes before the next vote (Adams and MacKay 2007, arXiv 0710.3742)."""
LEAST_VOTES = 7
SPANS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 16, 24, 32, 64, 128, 256)
"""Which w are tried."""
LATEST = 8
"""Where at most one of so many latest votes contradicts the belief from all votes, no wish has changed."""


def outdated(votes: Votes, prior: Prior, likelihood: Likelihood) -> int:
    """How many of one user's votes, the oldest first, speak of somebody whom the user is no longer; mostly 0.

    `votes` [N, C] are in the order in which they were given.
    """
    n = len(votes.offsets)
    spans = np.array([w for w in SPANS if w < n], np.int64)
    if n <= LEAST_VOTES:
        return 0
    # Having no preference contradicts nothing, and among choices it does not matter that it is an answer.
    choices = replace(votes, weights=votes.weights * (votes.tied <= 0), tied=np.zeros(n))
    believed = prior.predict(prior.infer(choices, likelihood), choices, likelihood)
    if ((believed < 0.5) & (votes.tied <= 0))[-LATEST:].sum() <= 1:
        return 0
    voters = Voters.of(votes, sided=False)
    recent = np.arange(n) >= n - spans[:, None]  # [W, N]

    def evidence(weights: Floats) -> Floats:
        """[V, W] of votes that have these weights [W, N]."""
        chosen = replace(votes.over(len(weights)), weights=weights)
        return prior.evidence(chosen.over(len(voters.weights)), voters.likelihood(chosen, likelihood))

    prior_of_voters = np.log(voters.weights)[:, None]
    changed = np.logaddexp.reduce(
        prior_of_voters + evidence(votes.weights * recent) + evidence(votes.weights * ~recent), axis=0
    )
    same = np.logaddexp.reduce(prior_of_voters + evidence(votes.weights[None]), axis=0)
    odds = np.log(HAZARD) + changed - same
    best = int(odds.argmax())
    return n - int(spans[best]) if odds[best] > 0 and spans[best] >= LEAST_VOTES else 0
