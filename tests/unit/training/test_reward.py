"""Linear user rewards on synthetic votes, where the truth is known; and the features they stand on."""

import numpy as np
import pytest

from idiolect_training.reward_track.features import SURFACE, Text, encode, surface
from idiolect_training.reward_track.heads import Basis, Cluster, Global, Heads, Individual, LowRank, Prior, Votes, climb

D = 6
PERSONAL = (Individual, LowRank, Cluster)


def vote(heads: np.ndarray, n_each: int, seed: int) -> Votes:
    """`n_each` votes of each user, drawn from the true heads [U, D]."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(len(heads)), n_each)
    x = rng.normal(size=(len(user), D)).astype(np.float32)
    prefers = rng.random(len(user)) < 1 / (1 + np.exp(-(x * heads[user]).sum(1)))
    return Votes(user, np.where(prefers[:, None], x, -x))


def opposed(n_users: int) -> np.ndarray:
    """All like feature 0; half of the users like feature 1, the others dislike it."""
    heads = np.zeros((n_users, D))
    heads[:, 0] = 1
    heads[:, 1] = np.where(np.arange(n_users) % 2, 2, -2)
    return heads


def fit(kind: type[Heads], votes: Votes, n_users: int, user: float = 1.0) -> Heads:
    return kind((D,), Prior((1.0,), (user,), n_codes=2)).fit(votes, n_users)


def accuracy(heads: Heads, votes: Votes) -> float:
    return float((heads.margins(votes) > 0).mean())


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_beats_global_where_users_differ(kind):
    train, test = vote(opposed(20), 60, seed=0), vote(opposed(20), 200, seed=1)
    assert accuracy(fit(kind, train, 20), test) > accuracy(fit(Global, train, 20), test) + 0.1


@pytest.mark.parametrize("kind", PERSONAL)
def test_personal_equals_global_within_noise_where_they_do_not(kind):
    same = np.tile([1.0, -1.0, 0.5, 0, 0, 0], (20, 1))
    train, test = vote(same, 60, seed=0), vote(same, 200, seed=1)
    personal = accuracy(fit(kind, train, 20, user=0.1), test)
    assert personal == pytest.approx(accuracy(fit(Global, train, 20), test), abs=0.015)


@pytest.mark.parametrize("kind", PERSONAL)
def test_a_user_without_votes_has_the_generic_head(kind):
    fitted = fit(kind, vote(opposed(20), 60, seed=0), 21)
    strange = vote(np.zeros((21, D)), 4, seed=2)
    nobody = strange[strange.user == 20]
    assert not fitted.codes[20].any()
    assert np.allclose(fitted.margins(nobody), fitted.margins(Votes(nobody.user * 0, nobody.x), fitted.codes[20:]))


def test_an_offset_shrinks_with_its_prior():
    train, test = vote(opposed(20), 60, seed=0), vote(opposed(20), 200, seed=1)
    pooled = fit(Global, train, 20).margins(test)
    far = [np.abs(fit(Individual, train, 20, user).margins(test) - pooled).mean() for user in (1.0, 0.1, 0.001)]
    assert far[0] > far[1] > far[2]
    assert far[2] < 0.01


@pytest.mark.parametrize("kind", [Global, *PERSONAL])
def test_the_order_of_votes_does_not_matter(kind):
    votes, test = vote(opposed(10), 40, seed=0), vote(opposed(10), 50, seed=1)
    shuffled = votes[np.random.default_rng(3).permutation(len(votes))]
    assert np.allclose(fit(kind, votes, 10).margins(test), fit(kind, shuffled, 10).margins(test), atol=0.05)


@pytest.mark.parametrize("kind", PERSONAL)
def test_a_new_user_is_inferred_from_own_votes_and_nothing_shared_moves(kind):
    fitted = fit(kind, vote(opposed(20), 60, seed=0), 20)
    shared = {name: value.clone() for name, value in fitted.shared.items()}
    new = opposed(2)
    test = vote(new, 300, seed=5)
    before, after = (
        float((fitted.margins(test, codes) > 0).mean())
        for codes in (fitted.codes[:2] * 0, fitted.infer(vote(new, 20, seed=4), 2))
    )
    assert after > before + 0.1
    assert all((fitted.shared[name] == value).all() for name, value in shared.items())


def test_a_basis_scales_blocks_alike_and_turns_wide_ones():
    rng = np.random.default_rng(0)
    blocks = [rng.normal(size=(500, 5)) * [1, 10, 100, 1, 0], rng.normal(size=(500, 40)) * 7]
    basis = Basis.fit(blocks, rank=8)
    assert basis.sizes == (5, 8)
    x = basis.apply(blocks)
    assert (x[:, :5] ** 2).sum(1).mean() == pytest.approx(1)
    assert (x[:, 5:] ** 2).sum(1).mean() == pytest.approx(1)
    assert np.isfinite(x).all()


def test_the_climb_finds_the_lowest_rung_and_measures_each_point_once():
    seen = []

    def loss(point: tuple[float, ...]) -> float:
        seen.append(point)
        return (point[0] - 3) ** 2 + (point[1] + 1) ** 2

    assert climb(loss, [(0, 1, 2, 3, 4), (-2, -1, 0)], [0, 2]) == ((3, -1), 0)
    assert len(seen) == len(set(seen))


def test_surface_counts():
    texts = [Text("Name a color.", "Red!\n- one\n- two"), Text("Name a color.", "")]
    counts = dict(zip(SURFACE, surface(texts)[0], strict=True))
    assert counts["log words"] == pytest.approx(np.log(3))
    assert counts["list items"] == pytest.approx(np.log(3))
    assert counts["exclamation marks"] == pytest.approx(np.log(2))
    assert np.isfinite(surface(texts)).all()


@pytest.mark.slow
def test_encodings_do_not_depend_on_company_and_are_kept_on_disk(model_path, tmp_path, monkeypatch):
    short, long = Text("Why is the sky blue?", "Scattering."), Text("Tell a joke.", "A man walks into a bar. " * 12)
    alone = encode([short], tmp_path / "a.sqlite", str(model_path))
    both = encode([long, short], tmp_path / "b.sqlite", str(model_path))
    assert np.allclose(alone.states[0], both.states[1], atol=1e-3)
    assert np.allclose(alone.logps[0], both.logps[1], atol=1e-3)
    assert both.states.shape[:2] == (2, 4)
    assert both.logps[0, 1] < both.logps[1, 1] < 0

    def refuse(*_: object) -> None:
        raise AssertionError("the model was loaded although everything is known")

    monkeypatch.setattr("idiolect_training.reward_track.features._Encoder", refuse)
    again = encode([short, long], tmp_path / "b.sqlite", str(model_path))
    assert np.array_equal(again.states[1], both.states[0])
