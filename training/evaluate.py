"""What a trained policy knows of its users, on held-out comparisons.

Preference accuracy is how often a user's implicit reward ranks `chosen` higher: measured for each user with the
user's own tokens, and once more with the generic tokens (what a stranger gets).
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from training.batch import Pair, chat_layout, tokenize
from training.config import RunConfig
from training.loss import margins
from training.metrics import Floats, accuracy_by_user, calibration, summarize
from training.policy import Policy

Tensor = torch.Tensor

MAX_CONFUSED_USERS = 12
"""Everybody's tokens on everybody's pairs costs users x pairs: only for worlds this small."""


def evaluate(run: RunConfig, policy: Policy, user_rows: dict[str, int]) -> dict[str, Any]:
    """The evaluation of the run's held-out comparisons, as JSON; users unknown to the policy get generic tokens."""
    _, preferences = run.data()
    if run.alpha == 0:
        user_rows = {}  # pooled training never touches the users' rows: everybody is generic
    layout = chat_layout(policy.tokenizer, run.placement)
    pairs = tokenize(preferences, policy.tokenizer, layout, user_rows, run.max_prompt_tokens, run.max_reply_tokens)
    ids = [preference.user_id for preference in preferences]
    size = 2 * run.batch_pairs
    reference = policy.reference(pairs, size)
    own = policy.score(pairs, [pair.row for pair in pairs], size, "own tokens")
    generic = own if not user_rows else policy.score(pairs, [0] * len(pairs), size, "generic tokens")
    own_margins, generic_margins = (_margins(run, pairs, logps, reference) for logps in (own, generic))

    accuracy, generic_accuracy = accuracy_by_user(ids, own_margins), accuracy_by_user(ids, generic_margins)
    counts = Counter(ids)
    n_chosen = sum(len(pair.chosen_ids) for pair in pairs)
    seen = {user_id: value for user_id, value in accuracy.items() if user_id in user_rows}
    unseen = {user_id: value for user_id, value in accuracy.items() if user_id not in user_rows}
    result = {
        "n_pairs": len(pairs),
        "n_users": len(accuracy),
        "accuracy": summarize(accuracy),
        "generic_accuracy": summarize(generic_accuracy),
        "seen": summarize(seen) if seen else None,
        "unseen": summarize(unseen) if unseen else None,
        "calibration": calibration(1 / (1 + np.exp(-run.beta * own_margins))),
        # The personalization tax: what following preferences costs in likelihood of the chosen replies, nats a token.
        "nll": {
            name: float(-logps[:, 0].sum() / n_chosen)
            for name, logps in (("base", reference), ("generic", generic), ("own", own))
        },
        "users": {
            user_id: {
                "n_pairs": counts[user_id],
                "seen": user_id in user_rows,
                "accuracy": accuracy[user_id],
                "generic_accuracy": generic_accuracy[user_id],
            }
            for user_id in accuracy
        },
    }
    if 1 < len(user_rows) <= MAX_CONFUSED_USERS:
        result["confusion"] = _confusion(run, policy, user_rows, ids, pairs, reference)
    return result


def _confusion(
    run: RunConfig,
    policy: Policy,
    user_rows: dict[str, int],
    ids: Sequence[str],
    pairs: Sequence[Pair],
    reference: Tensor,
) -> dict[str, Any]:
    """Accuracy of each user's tokens (outer) on each user's pairs (inner)."""
    users = sorted(user_rows, key=user_rows.__getitem__)
    known = [place for place, user_id in enumerate(ids) if user_id in user_rows]
    asked = [pairs[place] for _ in users for place in known]
    rows = [user_rows[user_id] for user_id in users for _ in known]
    logps = policy.score(asked, rows, 2 * run.batch_pairs, "everybody's tokens")
    found = _margins(run, asked, logps, reference[known].repeat(len(users), 1)).reshape(len(users), -1)
    owners = [ids[place] for place in known]
    by_tokens = [accuracy_by_user(owners, row) for row in found]
    return {"users": users, "accuracy": [[by_pairs.get(user) for user in users] for by_pairs in by_tokens]}


def _margins(run: RunConfig, pairs: Sequence[Pair], logps: Tensor, reference: Tensor) -> Floats:
    """Margins [n] as the run's objective sees them."""
    if run.length_normalized:
        lengths = torch.tensor([(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs])
        logps, reference = logps / lengths, reference / lengths
    return margins(logps, reference).double().numpy()
