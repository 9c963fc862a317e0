"""The P-DPO loss against values worked out by hand."""

import math

import torch

from training.loss import dpo_loss, draw_rows, margins, nll_loss


def test_a_policy_that_equals_its_reference_has_loss_log_2():
    logps = torch.tensor([-3.0, -8.0])
    margin = margins(logps, logps - 1, logps, logps - 1)
    assert margin.tolist() == [0.0, 0.0]
    assert math.isclose(dpo_loss(margin, 0.1).item(), math.log(2), rel_tol=1e-6)


def test_a_worked_example():
    margin = margins(*(torch.tensor([x]) for x in (-10.0, -14.0, -11.0, -13.0)))
    assert margin.item() == 2.0  # (-10 + 14) - (-11 + 13)
    assert math.isclose(dpo_loss(margin, 0.5).item(), math.log(1 + math.exp(-1)), rel_tol=1e-6)


def test_swapping_a_pair_negates_its_margin():
    chosen, rejected, ref_chosen, ref_rejected = torch.randn(4, 6)
    there = margins(chosen, rejected, ref_chosen, ref_rejected)
    assert torch.allclose(there, -margins(rejected, chosen, ref_rejected, ref_chosen))


def test_nll_is_a_mean_over_tokens_then_pairs():
    assert nll_loss(torch.tensor([-4.0, -9.0]), torch.tensor([2, 3])).item() == 2.5


def test_alpha_is_the_share_of_user_rows():
    rows = torch.arange(1, 10_001)
    generator = torch.Generator().manual_seed(0)
    kept = draw_rows(rows, 0.3, generator)
    assert set(kept.unique().tolist()) <= {0, *rows.tolist()}
    assert abs((kept > 0).float().mean().item() - 0.3) < 0.02
    assert (draw_rows(rows, 0.0, generator) == 0).all()
    assert (draw_rows(rows, 1.0, generator) == rows).all()
