"""How far the question bank's table is from the model, at the codes that are served to new users.

The table has the model's own margins at a few codes and is linear between them. The model is not: the code of a user
who is inferred lies where nobody has measured.
"""

import logging
from dataclasses import replace

import numpy as np
import torch

from idiolect.bank import Bank, pair_id
from idiolect.votes import Votes
from idiolect_training.config import RunConfig
from idiolect_training.data.preferences import Preference
from idiolect_training.fit.batch import Pair, tokenize
from idiolect_training.fit.loss import pair_margins
from idiolect_training.fit.policy import Policy
from idiolect_training.progress import progress

log = logging.getLogger(__name__)

N_ANSWERS = 5
N_CODES = 8


def margin_error(run: RunConfig, policy: Policy, bank: Bank, user_rows: dict[str, int]) -> dict[str, float]:
    """The table against the model on all questions, at the codes of `n_codes` users after five held-out answers each.

    `rms_nats` is the root mean square of the difference, `model_rms_nats` that of the model's own margins, and
    `sides_changed` the share of margins whose sign differs. Only `n_codes` when no user has answered a question.
    """
    asked, own = _answers(run, policy, bank, user_rows)
    user_model = policy.users.export()
    prior = bank.prior(user_model)
    places, pairs = list(asked), list(asked.values())
    reference = policy.reference(pairs, 2 * run.batch_pairs)
    codes = [row for row, said in own.items() if len(said) >= N_ANSWERS][:N_CODES] or list(own)[:N_CODES]
    differences, margins = [], []
    for row in progress(codes, "margins at inferred codes"):
        said = list(own[row].items())[:N_ANSWERS]
        of, signs = [place for place, _ in said], np.array([sign for _, sign in said])
        votes = Votes.of(signs[:, None] * bank.slopes[of], signs * bank.offsets[of])
        belief = prior.infer(votes, bank.likelihood)
        tokens = torch.from_numpy(user_model.user_tokens(bank.code(user_model, belief)))
        logps = policy.score_tokens(pairs, tokens, 2 * run.batch_pairs)
        margins.append(pair_margins(run, pairs, logps, reference).double().numpy())
        differences.append(bank.table.margins(belief.code)[places] - margins[-1])
    if not margins:
        return {"n_codes": 0}
    model, difference = np.concatenate(margins), np.concatenate(differences)
    error = {
        "n_codes": len(codes),
        "rms_nats": round(float(np.sqrt((difference**2).mean())), 4),
        "model_rms_nats": round(float(np.sqrt((model**2).mean())), 4),
        "sides_changed": round(float((np.sign(model + difference) != np.sign(model)).mean()), 4),
    }
    log.info("the bank's margins at inferred codes, against the model's own: %s", error)
    return error


def _answers(
    run: RunConfig, policy: Policy, bank: Bank, user_rows: dict[str, int]
) -> tuple[dict[int, Pair], dict[int, dict[int, float]]]:
    """The bank's questions by their place, as pairs that prefer `first`; and users' held-out answers, 1 for `first`."""
    _, held_out = run.data()
    limits = run.max_prompt_tokens, run.max_reply_tokens, run.bad_lines
    preferences, pairs = tokenize(held_out, policy.tokenizer, policy.layout, user_rows, *limits)
    asked: dict[int, Pair] = {}
    own: dict[int, dict[int, float]] = {}
    for preference, pair in zip(preferences, pairs, strict=True):
        place = _place(bank, preference)
        if place is None:
            continue
        first = preference.chosen < preference.rejected
        swapped = replace(pair, chosen_ids=pair.rejected_ids, rejected_ids=pair.chosen_ids)
        asked.setdefault(place, pair if first else swapped)
        if pair.row and not pair.tied:
            own.setdefault(pair.row, {})[place] = 1.0 if first else -1.0
    return asked, own


def _place(bank: Bank, preference: Preference) -> int | None:
    """Of the comparison among the bank's questions. None as well under a profile, which is part of no question."""
    if preference.profile is not None:
        return None
    return bank.index.get(pair_id(preference.turns(), preference.chosen, preference.rejected))
