"""Ties in training: read, learnt as indifference, left out of accuracy, and the likelihood that is fitted to them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idiolect.bank import pair_id
from idiolect.inference.priors import Mixture
from idiolect.votes import DEFAULT_TIES, Likelihood, Votes, davidson
from idiolect_training.config import BankConfig
from idiolect_training.data.formats import read_format
from idiolect_training.data.preferences import Preference, index_users, read_preferences
from idiolect_training.errors import BadPreference
from idiolect_training.evaluate.evaluate import evaluate
from idiolect_training.export.questions import build_bank, fit_likelihood
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.loop import _step, fit
from idiolect_training.fit.loss import pair_margins, tie_loss
from idiolect_training.fit.policy import Policy
from idiolect_training.users.cluster_start import user_votes
from tests.parts.tiny import tiny_model, tiny_run

CHOICE = {"user_id": "ada", "prompt": "Why?", "chosen": "So.", "rejected": "Because of that."}
TIE = CHOICE | {"kind": "tie"}
TURNED = TIE | {"chosen": "Because of that.", "rejected": "So."}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_tie_is_a_tie_whichever_reply_stands_where(tmp_path):
    pair = pair_id([{"role": "user", "content": "Why?"}], "So.", "Because of that.")
    votes = read_preferences(write(tmp_path / "votes.jsonl", TIE, TURNED))
    assert [vote.answer for vote in votes] == [(pair, None)] * 2
    assert votes[0].trimmed("So", "Because").answer == (pair, None)


@pytest.mark.parametrize(
    ("said", "counts"),
    [((CHOICE, TIE), ["tie"]), ((TIE, CHOICE), ["comparison"]), ((CHOICE, TURNED), ["tie"]), ((TIE, TURNED), ["tie"])],
)
def test_the_last_answer_counts_where_exports_are_read(tmp_path, said, counts):
    timed = [{**one, "time": float(second), "vote_id": f"3-{second}000-0"} for second, one in enumerate(said)]
    found = read_format("feedback", write(tmp_path / "votes.ndjson", *timed))
    assert [vote.kind for vote in found] == counts


def test_the_loss_of_a_tie_is_the_likelihood_that_serves():
    """-log P(tie) at a temperature of 1 / beta, by hand and as inference has it; no margin is best, to both sides."""
    margins = torch.linspace(-40, 40, 33, dtype=torch.float64)
    found = tie_loss(margins, 0.25)
    assert found[20].item() == pytest.approx(math.log(2 * math.cosh(10 * 0.125) + 1))  # margin 10
    served = Likelihood(temperature=4.0, noise=0.0, ties=DEFAULT_TIES)
    assert np.exp(-found.numpy()) == pytest.approx(served.probability(margins.numpy(), np.array(1.0)))
    assert found.argmin() == 16
    assert torch.allclose(found, found.flip(0))
    assert torch.isfinite(tie_loss(torch.tensor([-1e6, 1e6]), 1.0)).all()


def test_a_step_takes_ties_for_ties(tmp_path, model):
    """One batch of a choice and a tie before any update: no language loss for the tie, accuracy of the choice."""
    run = tiny_run(tmp_path, model, alpha=1.0, alpha_mix="both", beta=0.5, nll_weight=0.3)
    policy = Policy(run, n_users=1)
    policy.rows.values[1:].normal_(generator=torch.Generator().manual_seed(0))
    votes = [Preference.model_validate(said) for said in (CHOICE, TIE)]
    _, pairs = tokenize(votes, policy.tokenizer, policy.layout, {"ada": 1}, 128, 32)
    assert [pair.tied for pair in pairs] == [False, True]
    reference, own = policy.reference(pairs, 4), policy.score(pairs, [1, 1], 4, "own")
    margin = pair_margins(run, pairs, own, reference)
    nll = -float(own[0, 0]) / len(pairs[0].chosen_ids)
    choice = math.log(1 + math.exp(-0.5 * float(margin[0]))) + 0.3 * nll
    tie = math.log(2 * math.cosh(0.25 * float(margin[1])) + 1)
    outcome = _step(run, policy, pairs, 1, reference)
    assert outcome.loss == pytest.approx((choice + tie) / 2, rel=1e-4)
    assert outcome.nll == pytest.approx(nll / 2, rel=1e-4)
    assert outcome.accuracy == float(margin[0] > 0)
    only = _step(run, policy, [pairs[1]], 1, reference)
    assert (only.accuracy, only.nll) == (0.0, 0.0)


def test_whoever_has_no_preference_stays_between_those_who_have(tmp_path, model):
    """Three users over the same pairs: one wants the short reply, one the long, and one neither."""
    rows = []
    for number in range(6):
        short, long = f"yes {number}", f"no way {number} at all"
        said = {"prompt": f"Question {number}?"}
        rows.append({"user_id": "short", "chosen": short, "rejected": long} | said)
        rows.append({"user_id": "long", "chosen": long, "rejected": short} | said)
        rows.append({"user_id": "none", "chosen": short, "rejected": long, "kind": "tie"} | said)
    data = write(tmp_path / "votes.jsonl", *rows)
    run = tiny_run(tmp_path / "run", model, train=data, test=data, epochs=15, beta=1.0, row_lr=0.2)
    policy = fit(run, tmp_path / "out")
    votes, _ = run.data()
    users = index_users(votes)
    _, pairs = tokenize(votes[:1], policy.tokenizer, policy.layout, users, 128, 32)
    reference = policy.reference(pairs, 4)
    margin = {
        user: float(pair_margins(run, pairs, policy.score(pairs, [row], 4, user), reference)[0])
        for user, row in users.items()
    }
    assert margin["short"] > 1
    assert margin["long"] < -1
    assert abs(margin["none"]) < 0.5 * min(margin["short"], -margin["long"])
    result, _ = evaluate(run, policy, users)
    assert (result["ties"], result["n_pairs"], result["left_out"]) == (6, 12, 0)
    assert sorted(result["users"]) == ["long", "short"]
    bank = build_bank(run.model_copy(update={"bank": BankConfig(n_questions=4)}), policy, users)
    assert bank.likelihood.ties != DEFAULT_TIES


def test_ties_alone_are_nothing_to_be_measured_by(tmp_path, model):
    data = write(tmp_path / "votes.jsonl", CHOICE, TIE | {"prompt": "When?"})
    ties = write(tmp_path / "ties.jsonl", TIE)
    run = tiny_run(tmp_path / "run", model, train=data, test=ties)
    with pytest.raises(BadPreference, match="every held-out vote is a tie"):
        evaluate(run, Policy(run, n_users=1), {"ada": 1})


def test_where_users_start_does_not_heed_ties(tmp_path, model):
    votes = [
        Preference.model_validate(said) for said in (CHOICE, TURNED | {"prompt": "When?"}, TIE | {"user_id": "bob"})
    ]
    rows = {"ada": 1, "bob": 2}
    with_ties, without = (user_votes(v, rows, str(model), tmp_path / "f.sqlite") for v in (votes, votes[:1]))
    assert with_ties == pytest.approx(without)
    assert not with_ties[1].any()


@pytest.mark.parametrize("ties", [0.3, 1.0, 3.0])
def test_how_readily_people_have_no_preference_is_found_again(ties: float):
    """And temperature and noise are those of the choices, whether there are ties or not."""
    rng = np.random.default_rng(0)
    margins = 4 * rng.standard_normal(8000)
    p = np.stack(davidson(margins / 2, ties))
    said = (rng.random(8000) > np.cumsum(p, 0)).sum(0)
    signed, tied = np.where(said == 1, -margins, margins).reshape(1, -1, 1), np.where(said == 2, 1.0, -1.0)[None]
    everybody = Mixture(np.ones(1))
    found = fit_likelihood(Votes.of(signed, tied=tied), everybody, 1.0)
    assert found.ties == pytest.approx(ties, rel=0.3)
    assert found.temperature == pytest.approx(2, rel=0.15)
    choices = fit_likelihood(Votes.of(signed[:, tied[0] < 0]), everybody, 1.0)
    assert (choices.temperature, choices.noise, choices.ties) == (found.temperature, found.noise, DEFAULT_TIES)
