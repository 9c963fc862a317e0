"""What a trained policy knows of its users, on held-out comparisons.

Preference accuracy is how often a user's implicit reward ranks `chosen` higher: measured for each user with the
user's own tokens, and once more with the generic tokens (what a stranger gets). Ties have no side that could rank
higher: they are counted, and no part of any figure.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from idiolect_training.config import RunConfig
from idiolect_training.data.split import overlap
from idiolect_training.errors import BadPreference
from idiolect_training.evaluate.language import language
from idiolect_training.evaluate.metrics import accuracy_by_user, calibration, summarize
from idiolect_training.evaluate.replies import Reply, generate
from idiolect_training.evaluate.reply_style import style
from idiolect_training.fit.batch import Pair, tokenize
from idiolect_training.fit.loss import pair_margins
from idiolect_training.fit.policy import Policy

MAX_CONFUSED_USERS = 12
"""Everybody's tokens on everybody's pairs costs users x pairs: only for worlds this small."""


def evaluate(run: RunConfig, policy: Policy, user_rows: dict[str, int]) -> tuple[dict[str, Any], list[Reply]]:
    """The evaluation of the run's held-out comparisons, as JSON, and the replies it looked at, if the run wants any.

    Users unknown to the policy get generic tokens.
    """
    train, held_out = run.data()
    if run.alpha == 0:
        user_rows = {}  # pooled training never touches the users' rows: everybody is generic
    layout = policy.layout
    limits = run.max_prompt_tokens, run.max_reply_tokens, run.bad_lines
    chosen = [preference for preference in held_out if preference.kind != "tie"]
    if not chosen:
        raise BadPreference("every held-out vote is a tie: there is no choice to be predicted")
    preferences, pairs = tokenize(chosen, policy.tokenizer, layout, user_rows, *limits)
    ids = [preference.user_id for preference in preferences]
    size = 2 * run.batch_pairs
    reference = policy.reference(pairs, size)
    users = sorted(user_rows, key=user_rows.__getitem__)
    few = 1 < len(users) <= MAX_CONFUSED_USERS
    if few:
        by_row = _everybody(policy, pairs, [0, *(user_rows[user] for user in users)], size)
        own, generic = by_row[[pair.row for pair in pairs], torch.arange(len(pairs))], by_row[0]
    else:
        own = policy.score(pairs, [pair.row for pair in pairs], size, "own tokens")
        generic = own if not user_rows else policy.score(pairs, [0] * len(pairs), size, "generic tokens")
    own_margins, generic_margins = (
        pair_margins(run, pairs, logps, reference).double().numpy() for logps in (own, generic)
    )

    accuracy, generic_accuracy = accuracy_by_user(ids, own_margins), accuracy_by_user(ids, generic_margins)
    counts = Counter(ids)
    n_chosen = max(1, sum(len(pair.chosen_ids) for pair in pairs))  # thumbs down have no chosen reply
    seen = {user_id: value for user_id, value in accuracy.items() if user_id in user_rows}
    unseen = {user_id: value for user_id, value in accuracy.items() if user_id not in user_rows}
    result = {
        "n_pairs": len(pairs),
        "left_out": len(chosen) - len(pairs),
        "ties": len(held_out) - len(chosen),
        "in_training": len(overlap(train, held_out)),
        "n_users": len(accuracy),
        "accuracy": summarize(accuracy),
        "generic_accuracy": summarize(generic_accuracy),
        "seen": summarize(seen) if seen else None,
        "unseen": summarize(unseen) if unseen else None,
        "calibration": calibration(1 / (1 + np.exp(-run.beta * own_margins))),
        # The personalization tax: what following preferences costs in likelihood of the chosen replies, nats per token.
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
    if few:
        everybody = [pair_margins(run, pairs, logps, reference).double().numpy() for logps in by_row[1:]]
        confused = [accuracy_by_user(ids, each) for each in everybody]
        result["confusion"] = {"users": users, "accuracy": [[row.get(user) for user in users] for row in confused]}
    replies = generate(run, policy, user_rows, preferences)
    if replies:
        result["style"] = style((reply.user_id, reply.text) for reply in replies)
        result["language"] = language(policy, replies, size)
    return result, replies


def _everybody(policy: Policy, pairs: Sequence[Pair], rows: Sequence[int], batch_pairs: int) -> Tensor:
    """Log-probabilities of all pairs with the tokens of each row, [rows, pairs, 2].

    Opposed users often judge the same two replies: those are scored once.
    """
    distinct: dict[tuple[object, ...], int] = {}
    place = [
        distinct.setdefault((p.prompt_ids, *sorted((p.chosen_ids, p.rejected_ids))), n) for n, p in enumerate(pairs)
    ]
    kept = sorted(set(place))
    each = [row for row in rows for _ in kept]
    found = policy.score([pairs[n] for n in kept] * len(rows), each, batch_pairs, "everybody's tokens")
    found = found.reshape(len(rows), -1, 2)[:, np.searchsorted(kept, place)]
    swapped = torch.tensor([pairs[n].chosen_ids != p.chosen_ids for n, p in zip(place, pairs, strict=True)])
    return torch.where(swapped[:, None], found.flip(-1), found)
