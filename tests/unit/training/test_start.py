"""Users of a cluster model start with those who voted alike, and a run that was cut off starts there again."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from idiolect_training.data.preferences import Preference, index_users
from idiolect_training.fit.loop import fit, restore
from idiolect_training.fit.policy import Policy
from idiolect_training.users.cluster_start import LOGIT, cluster_logits, cluster_words, group, user_votes
from tests.parts.tiny import tiny_model, tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


def votes(n_users: int) -> list[Preference]:
    """Even users want what odd ones do not."""
    found = []
    for number in range(n_users):
        for question in range(6):
            sides = (f"yes {question}", f"no way {question} at all")
            chosen, rejected = sides if number % 2 else sides[::-1]
            found.append(Preference(user_id=f"u{number}", prompt="So?", chosen=chosen, rejected=rejected))
    return found


def test_users_who_voted_alike_share_a_cluster(model: Path, tmp_path: Path):
    preferences = votes(8)
    rows = index_users(preferences)
    logits = cluster_logits(preferences, rows, 5, 0, str(model), tmp_path / "features.sqlite")
    assert logits.shape == (8, 5)
    assert Counter(logits.flatten().tolist()) == {LOGIT: 8, 0.0: 32}
    clusters = [int(logits[rows[f"u{n}"] - 1].argmax()) for n in range(8)]
    assert len(set(clusters[::2])) == len(set(clusters[1::2])) == 1
    assert clusters[0] != clusters[1]


def test_opposite_users_have_opposite_votes(model: Path, tmp_path: Path):
    preferences = votes(2)
    found = user_votes(preferences, index_users(preferences), str(model), tmp_path / "features.sqlite")
    assert found[0] == pytest.approx(-found[1])


def test_clusters_start_at_words_that_their_users_like(model: Path, tmp_path: Path):
    preferences = votes(4)
    rows = index_users(preferences)
    user_model = {"kind": "cluster", "n_user_tokens": 2, "n_clusters": 3, "start": "votes"}
    policy = Policy(tiny_run(tmp_path, model, user_model=user_model), n_users=4)
    logits = LOGIT * torch.tensor([[1.0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]])
    words = cluster_words(preferences, rows, logits, policy)
    even, odd = ({policy.tokenizer.decode([word]).strip() for word in words[k].tolist()} for k in (0, 1))
    assert even <= {"no", "way", "at", "all"}
    assert "yes" in odd
    assert words[2].tolist() == [-1, -1]  # nobody is there

    drawn = policy.users.clusters[2].clone()
    policy.place_clusters(words)
    embedding = policy.model.get_input_embeddings().weight
    assert torch.equal(policy.users.clusters[:2], embedding[words[:2]])
    assert torch.equal(policy.users.clusters[2], drawn)


def test_of_many_votes_the_first_are_looked_at(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    preferences = votes(2)
    some = [vote for vote in preferences if vote.chosen.rstrip(" atl")[-1] in "012"]
    monkeypatch.setattr("idiolect_training.users.cluster_start.USER_VOTES", 3)
    cut, whole = (
        user_votes(part, index_users(part), str(model), tmp_path / "features.sqlite") for part in (preferences, some)
    )
    assert cut == pytest.approx(whole)


def test_few_users_are_each_alone():
    assert group(np.zeros((2, 3)), 4, 0).tolist() == [0, 1]
    assert len(group(np.eye(3), 2, 0)) == 3


@pytest.mark.slow
def test_a_run_that_starts_from_votes_is_restored_whole(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IDIOLECT_CACHE_DIR", str(tmp_path / "cache"))
    user_model = {"kind": "cluster", "n_user_tokens": 2, "n_clusters": 3, "start": "votes"}
    run = tiny_run(tmp_path / "run", model, user_model=user_model, alpha=0.0, epochs=1)
    trained = fit(run, tmp_path / "out")
    placed = LOGIT * 6 / (6 + run.prior)  # six comparisons each
    assert trained.rows.values[1:].sum(1).tolist() == pytest.approx([placed] * 2)  # alpha 0 never touches a row
    again, _ = restore(run, tmp_path / "out")
    assert torch.equal(again.rows.values, trained.rows.values)
