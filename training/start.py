"""Where the users of a cluster model start: with those who voted alike.

Users and clusters that both start the same have to part by themselves, and where users want opposite things in equal
numbers the first steps tell them nothing: the loss is flat around that start. What users chose tells more. Here a
user's votes are the mean, over the votes, of what the frozen base model makes of `chosen` minus `rejected`; k-means
groups the users, for the number of groups (at most K) with the best silhouette. It decides only the start.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from training.features import Text, encode
from training.preferences import Preference

Floats = NDArray[np.float64]

LOGIT = 4.0
"""Of a user's own cluster against 0 for the others: 0.92 of the weight when K is 6."""

SILHOUETTE_USERS = 5000
"""Its cost is quadratic in these."""


def cluster_logits(
    preferences: Sequence[Preference], user_rows: dict[str, int], n_clusters: int, seed: int, model: str, cache: Path
) -> torch.Tensor:
    """Rows [n_users, K] to start from. Users who voted alike share a cluster; clusters may stay empty."""
    votes = user_votes(preferences, user_rows, model, cache)
    groups = group(votes, n_clusters, seed)
    return LOGIT * torch.nn.functional.one_hot(torch.from_numpy(groups).long(), n_clusters).float()


def user_votes(preferences: Sequence[Preference], user_rows: dict[str, int], model: str, cache: Path) -> Floats:
    """What users chose over what they rejected, [n_users, H], in the base model's last mean state, standardized."""
    texts = sorted({text for vote in preferences for text in _sides(vote)})
    place = {text: number for number, text in enumerate(texts)}
    states = encode(texts, cache, model).states[:, 2].astype(np.float64)
    states = (states - states.mean(0)) / (states.std(0) + 1e-6)
    total, count = np.zeros((len(user_rows), states.shape[1])), np.zeros(len(user_rows))
    for vote in preferences:
        row = user_rows[vote.user_id] - 1
        chosen, rejected = _sides(vote)
        total[row] += states[place[chosen]] - states[place[rejected]]
        count[row] += 1
    return total / np.maximum(count, 1)[:, None]


def group(votes: Floats, most: int, seed: int) -> NDArray[np.int64]:
    """The group of each user, [n_users], at most `most` of them, numbered by their first user.

    >>> group(np.array([[0.0, 1], [5, 0], [0.1, 1], [5, 0.1], [-5, 0], [-5, 0.1]]), 5, seed=0)
    array([0, 1, 0, 1, 2, 2])
    """
    candidates = [
        np.asarray(KMeans(k, n_init=10, random_state=seed).fit_predict(votes), np.int64)
        for k in range(2, min(most, len(votes) - 1) + 1)
    ]
    if not candidates:
        return np.arange(len(votes)) % most
    best = max(candidates, key=lambda groups: _silhouette(votes, groups, seed))
    _, first, group_of = np.unique(best, return_index=True, return_inverse=True)
    return np.asarray(first.argsort().argsort()[group_of], np.int64)


def _silhouette(votes: Floats, groups: NDArray[np.int64], seed: int) -> float:
    sampled = np.random.default_rng(seed).permutation(len(votes))[:SILHOUETTE_USERS]
    alike = len(set(groups[sampled].tolist())) < 2
    return -1.0 if alike else float(silhouette_score(votes[sampled], groups[sampled]))


def _sides(vote: Preference) -> tuple[Text, Text]:
    prompt = vote.chat()[-1]["content"]
    return Text(prompt, vote.chosen), Text(prompt, vote.rejected)
