"""Where the users of a cluster model start: with those who voted alike, and with words that they like.

Users and clusters that both start the same have to part by themselves, and where users want opposite things in equal
numbers the first steps tell them nothing: the loss is flat around that start. What users chose tells more. Here a
user's votes are the mean, over the votes, of what the frozen base model makes of `chosen` minus `rejected`; k-means
groups the users, for the number of groups (at most K) with the best silhouette. It decides only the start.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import silhouette_score

from idiolect.bank import NO_REPLY
from idiolect.learning import WEIGHTS
from idiolect.prompt.chat import encode as token_ids
from idiolect_training.data.preferences import Preference
from idiolect_training.fit.policy import Policy
from idiolect_training.reward_track.features import Text, encode

Floats = NDArray[np.float64]

LOGIT = 4.0
"""Of a user's own cluster against 0 for the others: 0.92 of the weight when K is 6."""

PRIOR_TOKENS = 500.0
"""Weight of what everybody says, when words of a cluster are compared."""

USER_VOTES = 48
"""Of each user, at most so many votes are looked at: what users have in common shows in fewer."""

SILHOUETTE_USERS = 5000
"""Its cost is quadratic in these."""


def cluster_logits(
    preferences: Sequence[Preference], user_rows: dict[str, int], n_clusters: int, seed: int, model: str, cache: Path
) -> torch.Tensor:
    """Rows [n_users, K] to start from. Users who voted alike share a cluster; clusters may stay empty."""
    votes = user_votes(preferences, user_rows, model, cache)
    groups = group(votes, n_clusters, seed)
    return LOGIT * torch.nn.functional.one_hot(torch.from_numpy(groups).long(), n_clusters).float()


def cluster_words(
    preferences: Sequence[Preference], user_rows: dict[str, int], logits: torch.Tensor, policy: Policy
) -> torch.Tensor:
    """Vocabulary ids [K, T_u] for the clusters' soft tokens to start from; those of an empty cluster are -1.

    They are the tokens that tell a cluster's chosen replies from its rejected ones best, by the z-score of the log odds
    ratio (Monroe, Colaresi and Quinn 2008, equation 22). Clusters that like the same share such tokens: what the policy
    learns to read in one of them it reads in all.
    """
    n_clusters, n_words = logits.shape[1], policy.n_user_tokens
    counts = np.zeros((n_clusters, 2, len(policy.model.get_input_embeddings().weight)))
    for vote in preferences:
        if vote.kind == "tie":
            continue
        cluster = int(logits[user_rows[vote.user_id] - 1].argmax())
        for side, reply in enumerate((vote.chosen, vote.rejected)):
            ids = token_ids(reply, policy.tokenizer)
            np.add.at(counts[cluster, side], ids, WEIGHTS[vote.kind])
    prior = counts.sum((0, 1)) / max(counts.sum(), 1) * PRIOR_TOKENS
    smooth = counts + prior + 1e-9
    odds = np.log(smooth) - np.log(smooth.sum(-1, keepdims=True) - smooth)
    z = (odds[:, 0] - odds[:, 1]) / np.sqrt((1 / smooth).sum(1))
    words = np.argsort(-z, axis=1)[:, :n_words]
    words[counts.sum((1, 2)) == 0] = -1
    return torch.from_numpy(words)


def user_votes(preferences: Sequence[Preference], user_rows: dict[str, int], model: str, cache: Path) -> Floats:
    """What users chose over what they rejected, [n_users, H], in the base model's last mean state, standardized.

    A thumb is over the mean of all replies, which is 0. Ties say of no side that it was chosen, and are left out.
    """
    seen: Counter[str] = Counter()
    some = []
    for vote in preferences:
        if vote.kind == "tie":
            continue
        seen[vote.user_id] += 1
        if seen[vote.user_id] <= USER_VOTES:
            some.append(vote)
    texts = sorted({text for vote in some for text in _sides(vote) if text.reply != NO_REPLY})
    place = {text: number for number, text in enumerate(texts)}
    states = encode(texts, cache, model).states[:, 2].astype(np.float64)
    states = (states - states.mean(0)) / (states.std(0) + 1e-6)
    states = np.concatenate([states, np.zeros_like(states[:1])])  # last: what a thumb is over
    total, count = np.zeros((len(user_rows), states.shape[1])), np.zeros(len(user_rows))
    for vote in some:
        row = user_rows[vote.user_id] - 1
        chosen, rejected = _sides(vote)
        total[row] += WEIGHTS[vote.kind] * (states[place.get(chosen, -1)] - states[place.get(rejected, -1)])
        count[row] += WEIGHTS[vote.kind]
    each: Floats = total / np.where(count, count, 1)[:, None]
    return each


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
