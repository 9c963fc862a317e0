"""Personalized preference losses: pure functions of log-probabilities, and the margins of a run.

A margin is Delta(x, y_w, y_l, u) of arXiv 2402.05133, equation 6: how much more than the reference the policy, seeing
the user's tokens, prefers `chosen`. Definitions follow TRL's DPOTrainer, where TRL has them; tests compare with values
worked out by hand.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from idiolect.votes import DEFAULT_TIES
from idiolect_training.config import Objective, RunConfig
from idiolect_training.fit.batch import Pair


def margins(logps: Tensor, reference: Tensor) -> Tensor:
    """Implicit reward differences over beta, [B], of log-probabilities (chosen, rejected), [B, 2]."""
    ratios = logps - reference
    return ratios[:, 0] - ratios[:, 1]


def pair_margins(run: RunConfig, pairs: Sequence[Pair], logps: Tensor, reference: Tensor) -> Tensor:
    """Margins [B] of the pairs as the run takes them: a token when it is `length_normalized`, else a reply.

    The one rule for loss, accuracy, early stop, evaluation and question bank. `logps` and `reference` are of whole
    replies, [B, 2]; those of the side that a thumb lacks are 0, by the token too.
    """
    if run.length_normalized:
        lengths = reply_lengths(pairs).clamp(min=1).to(logps.device)
        logps, reference = logps / lengths, reference / lengths
    return margins(logps, reference)


def reply_lengths(pairs: Sequence[Pair]) -> Tensor:
    """Tokens of (chosen, rejected), [B, 2]."""
    return torch.tensor([(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in pairs])


def preference_loss(margin: Tensor, objective: Objective, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Loss of each pair, [B], of its margin [B]; `label_smoothing` is the share e of votes thought to be wrong.

    sigmoid   -(1 - e) log s(bm) - e log s(-bm)                  DPO, 2305.18290; conservative DPO when e > 0
    robust    [-(1 - e) log s(bm) + e log s(-bm)] / (1 - 2e)     unbiased under noise, 2403.00409
    hinge     max(0, 1 - bm)                                     SLiC, 2305.10425
    ipo       (m - 1 / 2b)^2                                     2310.12036; TRL takes length-normalized margins here
    """
    right, wrong = -F.logsigmoid(beta * margin), -F.logsigmoid(-beta * margin)
    match objective:
        case "sigmoid":
            return (1 - label_smoothing) * right + label_smoothing * wrong
        case "robust":
            return ((1 - label_smoothing) * right - label_smoothing * wrong) / (1 - 2 * label_smoothing)
        case "hinge":
            return torch.relu(1 - beta * margin)
        case "ipo":
            return (margin - 1 / (2 * beta)) ** 2


def tie_loss(margin: Tensor, beta: float) -> Tensor:
    """Loss of each pair, [B], of which neither reply was preferred: -log P(tie) of Davidson (1970), whatever objective.

    P(tie) = v / (e^(bm/2) + e^(-bm/2) + v), as in DPO-D of 2409.17431, with v = 1. A user who may have no preference
    and chooses has the objective of a choice: among choices Davidson's odds are those of DPO.
    """
    half = beta * margin / 2
    ties = torch.full_like(half, math.log(DEFAULT_TIES))
    return torch.logsumexp(torch.stack([half, -half, ties]), 0) - ties


def nll_loss(chosen_logps: Tensor, n_tokens: Tensor) -> Tensor:
    """The chosen reply's loss per token, [B]; 0 without one, as after a thumb down.

    DPO alone is content when both replies become unlikely, as long as the rejected one does so faster; a small
    model then says something else altogether. This term keeps the chosen reply likely (as in arXiv 2404.19733).
    """
    return -chosen_logps / n_tokens.clamp(min=1)


def mix(rows: Tensor, alpha: float, generator: torch.Generator | None) -> tuple[Tensor, Tensor, Tensor]:
    """The alpha mix of a batch's user rows [B]: (place in the batch, row, weight) of each loss term, [N] each.

    P-DPO is alpha * loss(user) + (1 - alpha) * loss(generic). Without a generator every pair gives both terms, as in
    the paper. With one, a draw decides which of the two a pair gives: the same expectation at half the cost.

    >>> mix(torch.tensor([7, 8]), 0.75, None)
    (tensor([0, 1, 0, 1]), tensor([7, 8, 0, 0]), tensor([0.7500, 0.7500, 0.2500, 0.2500]))
    """
    places = torch.arange(len(rows))
    if generator is not None:
        keep = torch.rand(rows.shape, generator=generator) < alpha
        return places, torch.where(keep, rows, 0), torch.ones(rows.shape)
    terms = [(row, weight) for row, weight in ((rows, alpha), (torch.zeros_like(rows), 1 - alpha)) if weight > 0]
    return (
        places.repeat(len(terms)),
        torch.cat([row for row, _ in terms]),
        torch.cat([torch.full(rows.shape, weight) for _, weight in terms]),
    )
