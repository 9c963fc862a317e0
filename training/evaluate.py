"""Preference accuracy: on held-out comparisons, how often a user's implicit reward ranks `chosen` higher.

Measured for each user with the user's own tokens, and once more with the generic tokens (what a stranger gets).
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

import torch
from tqdm import tqdm

from training.batch import Pair, chat_layout, tokenize
from training.config import RunConfig
from training.policy import Policy
from training.preferences import read_preferences


@torch.no_grad()
def evaluate(run: RunConfig, policy: Policy, user_rows: dict[str, int], data: Path) -> dict[str, object]:
    """Accuracy of the policy on the comparisons in `data`; users unknown to the policy get generic tokens."""
    preferences = read_preferences(data)
    layout = chat_layout(policy.tokenizer, run.placement)
    pairs = tokenize(preferences, policy.tokenizer, layout, user_rows, run.max_prompt_tokens, run.max_reply_tokens)
    reference = policy.reference_logps(pairs, 2 * run.batch_pairs)
    own = _margins(policy, pairs, reference, 2 * run.batch_pairs, [pair.row for pair in pairs])
    generic = _margins(policy, pairs, reference, 2 * run.batch_pairs, [0] * len(pairs))

    by_user: dict[str, list[int]] = defaultdict(list)
    for place, preference in enumerate(preferences):
        by_user[preference.user_id].append(place)
    users = {
        user_id: {
            "n_pairs": len(places),
            "accuracy": round(mean(float(own[i] > 0) for i in places), 4),
            "generic_accuracy": round(mean(float(generic[i] > 0) for i in places), 4),
            "mean_margin": round(mean(float(own[i]) for i in places), 3),
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


def _margins(
    policy: Policy, pairs: Sequence[Pair], reference: torch.Tensor, batch_pairs: int, rows: Sequence[int]
) -> list[float]:
    """Implicit reward differences over beta, in the order of `pairs`."""
    order = sorted(range(len(pairs)), key=lambda i: pairs[i].n_tokens)
    result = [0.0] * len(pairs)
    for start in tqdm(range(0, len(order), batch_pairs), desc="evaluate"):
        places = order[start : start + batch_pairs]
        chosen, rejected = policy.pair_logps([pairs[i] for i in places], torch.tensor([rows[i] for i in places]))
        ref = reference[places].to(chosen.device)
        for place, margin in zip(places, ((chosen - rejected) - (ref[:, 0] - ref[:, 1])).tolist(), strict=True):
            result[place] = margin
    return result
