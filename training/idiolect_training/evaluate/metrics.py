"""Measures of a trained policy: pure functions of margins and cluster weights."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import adjusted_rand_score

Floats = NDArray[np.floating[Any]]


def accuracy_by_user(user_ids: Sequence[str], margins: Floats) -> dict[str, float]:
    """Share of each user's pairs whose margin is above 0; a tie counts one half.

    >>> accuracy_by_user(["ada", "ada", "bob"], np.array([0.3, -1.0, 0.0]))
    {'ada': 0.5, 'bob': 0.5}
    """
    right: dict[str, list[float]] = defaultdict(list)
    for user_id, margin in zip(user_ids, margins, strict=True):
        right[user_id].append(0.5 + 0.5 * float(np.sign(margin)))
    return {user_id: float(np.mean(values)) for user_id, values in sorted(right.items())}


def summarize(by_user: Mapping[str, float]) -> dict[str, Any]:
    """Mean over users (each user counts once), and the user served worst."""
    worst = min(by_user, key=by_user.__getitem__)
    return {"mean": float(np.mean(list(by_user.values()))), "worst": by_user[worst], "worst_user": worst}


def calibration(probabilities: Floats, n_bins: int = 10) -> dict[str, Any]:
    """How far P(vote) can be believed: expected calibration error, Brier score and log-loss.

    `probabilities` are P(chosen preferred), [n]. The label is always "chosen", so errors are taken on the confidence
    max(p, 1 - p) against whether the preferred side was right; bins are of equal width over [0.5, 1].
    """
    confidence, right = np.maximum(probabilities, 1 - probabilities), probabilities > 0.5
    bins = np.minimum((2 * (confidence - 0.5) * n_bins).astype(int), n_bins - 1)
    filled = [
        {"share": float(here.mean()), "confidence": float(confidence[here].mean()), "right": float(right[here].mean())}
        for here in (bins == b for b in np.unique(bins))
    ]
    return {
        "ece": sum(b["share"] * abs(b["confidence"] - b["right"]) for b in filled),
        "bins": filled,
        "brier": float(np.mean((1 - probabilities) ** 2)),
        "log_loss": float(-np.log(np.clip(probabilities, 1e-12, 1)).mean()),
    }


def cluster_recovery(weights: Floats, types: Sequence[str]) -> dict[str, float]:
    """Do the cluster weights [n_users, K] know the users' true types?

    `ari` is the adjusted Rand index (1 is perfect, 0 is chance) of each user's heaviest cluster against the types,
    `purity` the share of users whose type is the most frequent one of their cluster, `entropy` the mean entropy of the
    weights in nats (at most log K).
    """
    heaviest = weights.argmax(axis=1)
    purity = sum(
        Counter(kind for kind, h in zip(types, heaviest, strict=True) if h == k).most_common(1)[0][1]
        for k in np.unique(heaviest)
    ) / len(types)
    entropy = -(weights * np.log(np.clip(weights, 1e-12, 1))).sum(axis=1).mean()
    ari = adjusted_rand_score(list(types), heaviest.tolist())
    return {"ari": float(ari), "purity": float(purity), "entropy": float(entropy)}
