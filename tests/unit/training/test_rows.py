"""Users' rows: Adam where a batch touches them, nothing anywhere else."""

import resource
import time

import pytest
import torch

from idiolect_training.users.user_rows import Rows


def test_equals_adam_when_every_row_is_touched():
    torch.manual_seed(0)
    rows = Rows(4, 3)
    parameter = torch.nn.Parameter(torch.zeros(4, 3))
    adam = torch.optim.Adam([parameter], lr=0.03)
    everybody = torch.arange(1, 5)
    for _ in range(20):
        gradient = torch.randn(4, 3)
        parameter.grad = gradient.clone()
        adam.step()
        rows.update(everybody, gradient, 0.03)
    assert torch.allclose(rows.gather(everybody), parameter, atol=1e-6)


def test_absent_users_do_not_move_and_row_0_never_does():
    rows = Rows(5, 2)
    rows.update(torch.tensor([0, 2]), torch.ones(2, 2), 0.1)
    before = rows.gather(torch.tensor([2])).clone()
    for _ in range(10):
        rows.update(torch.tensor([0, 4]), torch.ones(2, 2), 0.1)
    assert torch.equal(rows.gather(torch.tensor([2])), before)
    assert rows.gather(torch.tensor([0, 1, 3, 5])).abs().sum() == 0


def test_users_go_as_far_as_their_comparisons_deserve():
    """n / (n + prior) of the way, wherever they start; the steps themselves are Adam's on what lies under the share."""
    prior, n_votes = 4.0, torch.tensor([0, 1, 4, 36])
    share = torch.tensor([[1 / 5], [1 / 2], [9 / 10]])
    start, rows = torch.randn(3, 2), Rows(3, 2)
    rows.shrink(n_votes, prior)
    rows.place(start)
    parameter = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([parameter], lr=0.03)
    everybody = torch.arange(1, 4)
    for _ in range(20):
        gradient = torch.randn(3, 2)
        parameter.grad = share * gradient  # of a loss of share * parameter
        adam.step()
        rows.update(everybody, gradient, 0.03)
    assert torch.allclose(rows.gather(everybody), share * parameter, atol=1e-5)
    assert rows.gather(torch.tensor([0])).abs().sum() == 0


def test_placed_rows_that_no_step_has_touched_outlive_two_checkpoints():
    rows = Rows(3, 2)
    rows.place(torch.ones(3, 2))
    rows.update(torch.tensor([2]), torch.ones(1, 2), 0.1)
    for _ in range(2):
        kept = {name: value.clone() for name, value in rows.touched().items()}
        rows = Rows(3, 2)
        rows.restore(kept)
    assert rows.gather(torch.tensor([1, 3])).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("where", ["memory", "file"])
def test_what_was_touched_restores_the_table(tmp_path, where):
    folder = tmp_path if where == "file" else None
    rows = Rows(1000, 8, folder)
    rows.update(torch.tensor([3, 700]), torch.randn(2, 8), 0.1)
    touched = rows.touched()
    assert touched["index"].tolist() == [3, 700]
    kept = {name: value.clone() for name, value in touched.items()}
    again = Rows(1000, 8, folder)
    assert again.values.abs().sum() == 0
    again.restore(kept)
    assert all(torch.equal(value, again.touched()[name]) for name, value in kept.items())


@pytest.mark.slow
def test_memory_follows_the_rows_touched_not_the_users(tmp_path):
    """A million users of 2,304 numbers would be 27 GB with their moments; 1,000 touched ones are 28 MB."""
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.monotonic()
    for folder in (None, tmp_path):
        rows = Rows(1_000_000, 2304, folder)
        for batch in torch.randperm(1_000_000)[:1000].add(1).split(50):
            rows.update(batch, torch.ones(len(batch), 2304), 0.1)
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before) / 1024
    assert grown_mib < 300
    assert time.monotonic() - began < 60
