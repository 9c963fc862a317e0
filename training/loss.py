"""The P-DPO loss: a pure function of log-probabilities."""

import torch
from torch.nn import functional as F

Tensor = torch.Tensor


def margins(
    chosen_logps: Tensor, rejected_logps: Tensor, ref_chosen_logps: Tensor, ref_rejected_logps: Tensor
) -> Tensor:
    """Implicit reward difference over beta, [B]: how much more than the reference the policy prefers `chosen`.

    Delta(x, y_w, y_l, u) of arXiv 2402.05133, equation 6. All arguments are summed log-probabilities, [B].
    """
    return (chosen_logps - rejected_logps) - (ref_chosen_logps - ref_rejected_logps)


def dpo_loss(margin: Tensor, beta: float) -> Tensor:
    """Mean of -log sigmoid(beta * margin), a scalar; log 2 when policy and reference agree."""
    return -F.logsigmoid(beta * margin).mean()


def nll_loss(chosen_logps: Tensor, n_tokens: Tensor) -> Tensor:
    """Mean over pairs of the chosen reply's loss a token, a scalar.

    DPO alone is content when both replies become unlikely, as long as the rejected one does so faster; a small
    model then says something else altogether. This term keeps the chosen reply likely (as in arXiv 2404.19733).
    """
    return -(chosen_logps / n_tokens).mean()


def draw_rows(rows: Tensor, alpha: float, generator: torch.Generator) -> Tensor:
    """User rows [B] with each one turned into the generic row 0 with probability 1 - alpha.

    P-DPO is alpha * loss(user) + (1 - alpha) * loss(generic). Drawing which of the two a pair trains has the same
    expectation at half the cost of computing both.
    """
    keep = torch.rand(rows.shape, generator=generator) < alpha
    return torch.where(keep, rows, torch.zeros_like(rows))
