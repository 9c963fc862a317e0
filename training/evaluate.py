"""Preference accuracy: on held-out comparisons, how often a user's implicit reward ranks `chosen` higher.

Measured for each user with the user's own tokens, and once more with the generic tokens (what a stranger gets).
"""

from collections import defaultdict
from pathlib import Path
from statistics import mean

from training.batch import chat_layout, tokenize
from training.config import RunConfig
from training.loss import margins
from training.policy import Policy
from training.preferences import read_preferences


def evaluate(run: RunConfig, policy: Policy, user_rows: dict[str, int], data: Path) -> dict[str, object]:
    """Accuracy of the policy on the comparisons in `data`; users unknown to the policy get generic tokens."""
    preferences = read_preferences(data)
    layout = chat_layout(policy.tokenizer, run.placement)
    if run.alpha == 0:
        user_rows = {}  # pooled training never touches the users' rows: everybody is generic
    pairs = tokenize(preferences, policy.tokenizer, layout, user_rows, run.max_prompt_tokens, run.max_reply_tokens)
    size = 2 * run.batch_pairs
    reference = policy.score(pairs, None, size, "reference")
    own = policy.score(pairs, [pair.row for pair in pairs], size, "own tokens")
    generic = policy.score(pairs, [0] * len(pairs), size, "generic tokens")
    own_margins, generic_margins = (margins(*s.T, *reference.T).tolist() for s in (own, generic))

    by_user: dict[str, list[int]] = defaultdict(list)
    for place, preference in enumerate(preferences):
        by_user[preference.user_id].append(place)
    users = {
        user_id: {
            "n_pairs": len(places),
            "accuracy": round(mean(float(own_margins[i] > 0) for i in places), 4),
            "generic_accuracy": round(mean(float(generic_margins[i] > 0) for i in places), 4),
            "mean_margin": round(mean(own_margins[i] for i in places), 3),
        }
        for user_id, places in sorted(by_user.items())
    }
    return {
        "n_pairs": len(pairs),
        "n_users": len(users),
        "accuracy": round(mean(user["accuracy"] for user in users.values()), 4),
        "generic_accuracy": round(mean(user["generic_accuracy"] for user in users.values()), 4),
        "users": users,
    }
