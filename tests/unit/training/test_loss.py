"""The personalized losses against values worked out by hand."""

import math

import pytest
import torch

from idiolect_training.config import RunConfig
from idiolect_training.fit.batch import Pair
from idiolect_training.fit.loss import margins, mix, nll_loss, pair_margins, preference_loss


def test_a_worked_margin():
    logps, reference = torch.tensor([[-10.0, -14.0]]), torch.tensor([[-11.0, -13.0]])
    assert margins(logps, reference).item() == 2.0  # (-10 + 11) - (-14 + 13)


def test_margins_of_a_run_are_of_a_reply_or_of_a_token():
    """40 tokens from -100 to -90, against 2 from -10 to -9: more in all, less a token."""
    pairs = [Pair(0, 0, (1,), (5,) * 40, (6,) * 2, 0)]
    logps, reference = torch.tensor([[-90.0, -9.0]]), torch.tensor([[-100.0, -10.0]])
    run = RunConfig(train="pairs.jsonl")
    assert pair_margins(run, pairs, logps, reference).item() == 9.0
    normalized = run.model_copy(update={"length_normalized": True})
    assert pair_margins(normalized, pairs, logps, reference).item() == pytest.approx(-0.25)


def test_swapping_a_pair_negates_its_margin():
    logps, reference = torch.randn(6, 2), torch.randn(6, 2)
    assert torch.allclose(margins(logps, reference), -margins(logps.flip(1), reference.flip(1)))


@pytest.mark.parametrize(
    ("objective", "beta", "smoothing", "expected"),
    [
        ("sigmoid", 0.5, 0.0, math.log(1 + math.exp(-1))),  # margin 2, beta margin 1
        ("sigmoid", 0.5, 0.1, 0.9 * math.log(1 + math.exp(-1)) + 0.1 * math.log(1 + math.exp(1))),
        ("robust", 0.5, 0.1, (0.9 * math.log(1 + math.exp(-1)) - 0.1 * math.log(1 + math.exp(1))) / 0.8),
        ("hinge", 0.25, 0.0, 0.5),
        ("hinge", 0.5, 0.0, 0.0),
        ("ipo", 0.1, 0.0, 9.0),  # (2 - 5)^2
    ],
)
def test_losses_by_hand(objective, beta, smoothing, expected):
    loss = preference_loss(torch.tensor([2.0]), objective, beta, smoothing)
    assert loss.shape == (1,)
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_a_policy_that_equals_its_reference_has_loss_log_2():
    assert preference_loss(torch.zeros(1), "sigmoid", 0.1).item() == pytest.approx(math.log(2))


def test_nll_is_a_mean_over_tokens():
    assert nll_loss(torch.tensor([-4.0, -9.0]), torch.tensor([2, 3])).tolist() == [2.0, 3.0]


def test_alpha_is_the_share_of_user_rows():
    rows = torch.arange(1, 10_001)
    generator = torch.Generator().manual_seed(0)
    places, kept, weights = mix(rows, 0.3, generator)
    assert places.tolist() == list(range(10_000))
    assert (weights == 1).all()
    assert set(kept.unique().tolist()) <= {0, *rows.tolist()}
    assert abs((kept > 0).float().mean().item() - 0.3) < 0.02
    assert (mix(rows, 0.0, generator)[1] == 0).all()
    assert (mix(rows, 1.0, generator)[1] == rows).all()


def test_both_terms_as_in_the_paper():
    places, rows, weights = mix(torch.tensor([7, 8]), 0.75, None)
    assert (places.tolist(), rows.tolist(), weights.tolist()) == ([0, 1, 0, 1], [7, 8, 0, 0], [0.75, 0.75, 0.25, 0.25])
    places, rows, _ = mix(torch.tensor([7, 8]), 1.0, None)
    assert (places.tolist(), rows.tolist()) == ([0, 1], [7, 8])
