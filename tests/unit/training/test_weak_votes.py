"""Thumbs and edits in training: read, tokenized and weighed, with losses worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from idiolect.bank import NO_REPLY, pair_id
from idiolect.learning import WEIGHTS
from idiolect_training.config import RunConfig
from idiolect_training.data.formats import read_format
from idiolect_training.data.preferences import Preference, index_users, read_preferences
from idiolect_training.errors import BadPreference, BadRunConfig
from idiolect_training.evaluate.evaluate import evaluate
from idiolect_training.export.questions import build_bank
from idiolect_training.fit.batch import CHOSEN, REJECTED, Pair, collate, tokenize
from idiolect_training.fit.loop import _step, fit
from idiolect_training.fit.loss import nll_loss, pair_margins, preference_loss, reply_lengths
from idiolect_training.fit.policy import Policy
from idiolect_training.users.cluster_start import user_votes
from tests.parts.tiny import tiny_model, tiny_run

UP = {"user_id": "ada", "prompt": "Why?", "chosen": "So.", "rejected": NO_REPLY, "kind": "thumb"}
DOWN = UP | {"chosen": NO_REPLY, "rejected": "So."}
EDIT = UP | {"rejected": "Well.", "kind": "edit"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


def write(path: Path, *rows: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def weak(folder: Path) -> Path:
    """Of two users who want opposite things, thumbs at every reply; and an edit each."""
    rows = []
    for number in range(6):
        yes, no = f"yes {number}", f"no way {number} at all"
        for user_id, liked, disliked in (("short", yes, no), ("long", no, yes)):
            said = {"user_id": user_id, "prompt": f"Question {number}?", "kind": "thumb"}
            rows += [{**said, "chosen": liked, "rejected": ""}, {**said, "chosen": "", "rejected": disliked}]
            if number == 0:
                rows.append({**said, "kind": "edit", "chosen": liked, "rejected": disliked})
    return write(folder / "weak.jsonl", *rows)


def test_lines_say_their_kind(tmp_path):
    lines = write(tmp_path / "votes.jsonl", UP, DOWN, EDIT, EDIT | {"kind": "comparison"})
    votes = read_preferences(lines)
    assert [vote.kind for vote in votes] == ["thumb", "thumb", "edit", "comparison"]
    pair = pair_id([{"role": "user", "content": "Why?"}], "So.", NO_REPLY)
    assert [vote.answer for vote in votes[:2]] == [(pair, False), (pair, True)]  # no reply comes first
    assert read_format("feedback", write(tmp_path / "one.jsonl", UP, EDIT)) == [votes[0], votes[2]]
    assert "kind" in votes[2].model_dump()
    assert "kind" not in votes[3].model_dump()  # as before: a run knows its data by it


def test_the_last_thumb_at_a_reply_counts(tmp_path):
    timed = [{**said, "time": float(second)} for second, said in enumerate((UP, DOWN, UP))]
    votes = read_format("feedback", write(tmp_path / "votes.jsonl", *timed[:2]))
    assert [vote.rejected for vote in votes] == ["So."]
    votes = read_format("feedback", write(tmp_path / "votes.jsonl", *timed))
    assert [vote.chosen for vote in votes] == ["So."]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (UP | {"kind": "comparison"}, "rejected\n  String should have at least 1 character"),
        (EDIT | {"chosen": NO_REPLY}, "chosen\n  String should have at least 1 character"),
        (UP | {"rejected": "Well."}, "a thumb has one reply"),
        (UP | {"chosen": NO_REPLY}, "chosen equals rejected"),
        (UP | {"kind": "shrug"}, "Input should be 'comparison', 'edit', 'thumb' or 'tie'"),
    ],
)
def test_a_line_that_is_of_no_kind_is_bad(tmp_path, said, reason):
    with pytest.raises(ValidationError, match=reason):
        Preference.model_validate(said)
    with pytest.raises(BadPreference):
        read_preferences(write(tmp_path / "votes.jsonl", said))


def test_a_side_without_a_reply_has_no_tokens(tmp_path, model):
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=1)
    votes = [Preference.model_validate(said) for said in (UP, DOWN, EDIT)]
    kept, pairs = tokenize(votes, policy.tokenizer, policy.layout, {"ada": 1}, 128, 32)
    assert kept == votes
    up, down, edit = pairs
    assert up.rejected_ids == down.chosen_ids == ()
    assert up.chosen_ids == down.rejected_ids == edit.chosen_ids
    assert [pair.weight for pair in pairs] == [WEIGHTS["thumb"], WEIGHTS["thumb"], WEIGHTS["edit"]]
    batch = collate(pairs, 2, policy.pad_id)
    assert [(batch.part == side).sum(1).tolist() for side in (CHOSEN, REJECTED)] == reply_lengths(pairs).T.tolist()
    assert len(batch.reply) == len(batch.source) == len(batch.target) == int(reply_lengths(pairs).sum())

    policy.prove(pairs)
    whole = policy.score(pairs, None, 3, "whole")
    assert whole[0, 0] == pytest.approx(whole[2, 0].item(), abs=1e-4)  # the other side is not seen
    assert whole[0].tolist() == whole[1].flip(0).tolist()
    assert whole[0, 1] == 0
    assert torch.equal(policy.reference(pairs, 3), policy.reference(pairs, 3))  # from the cache the second time


LENGTHS = [Pair(0, 1, (1,), (5,) * 4, (), 0), Pair(1, 1, (1,), (), (5,) * 4, 0)]
LOGPS, REFERENCE = torch.tensor([[-6.0, 0], [0, -6.0]]), torch.tensor([[-8.0, 0], [0, -8.0]])
"""A reply of four tokens that the user's tokens make likelier by 2 nats: liked, and not liked."""


@pytest.mark.parametrize(("by_token", "margin"), [(False, 2.0), (True, 0.5)])
@pytest.mark.parametrize(
    ("objective", "loss"),
    [
        ("sigmoid", lambda m: math.log(1 + math.exp(-0.25 * m))),
        ("hinge", lambda m: max(0, 1 - 0.25 * m)),
        ("ipo", lambda m: (m - 2) ** 2),  # 1 / 2 beta
    ],
)
def test_the_margin_of_a_thumb_is_the_log_ratio_of_its_reply(by_token, margin, objective, loss):
    run = RunConfig(train="pairs.jsonl", length_normalized=by_token, beta=0.25, objective=objective)
    found = pair_margins(run, LENGTHS, LOGPS, REFERENCE)
    assert found.tolist() == [margin, -margin]
    expected = [loss(margin), loss(-margin)]
    assert preference_loss(found, run.objective, run.beta).tolist() == pytest.approx(expected, rel=1e-6)


def test_only_a_chosen_reply_is_kept_likely():
    assert nll_loss(LOGPS[:, 0], reply_lengths(LENGTHS)[:, 0]).tolist() == [1.5, 0.0]  # 6 nats, 4 tokens


def test_a_step_weighs_the_loss_of_each_vote(tmp_path, model):
    """One batch of a thumb up, a thumb down and an edit, before any update, against the equation."""
    run = tiny_run(tmp_path, model, alpha=1.0, alpha_mix="both", beta=0.5, nll_weight=0.3)
    policy = Policy(run, n_users=1)
    policy.rows.values[1:].normal_(generator=torch.Generator().manual_seed(0))
    votes = [Preference.model_validate(said) for said in (UP, DOWN, EDIT)]
    _, pairs = tokenize(votes, policy.tokenizer, policy.layout, {"ada": 1}, 128, 32)
    pairs = [replace(pair, weight=weight) for pair, weight in zip(pairs, (0.5, 0.25, 1.0), strict=True)]
    reference = policy.reference(pairs, 4)
    own = policy.score(pairs, [1, 1, 1], 4, "own")
    ratio = [float(own[n, side] - reference[n, side]) for n, side in ((0, 0), (1, 1), (2, 0), (2, 1))]
    up, down, edit = ratio[0], -ratio[1], ratio[2] - ratio[3]
    nll = [-float(own[n, 0]) / len(pairs[n].chosen_ids) for n in (0, 2)]
    losses = [math.log(1 + math.exp(-0.5 * margin)) for margin in (up, down, edit)]
    expected = (0.5 * (losses[0] + 0.3 * nll[0]) + 0.25 * losses[1] + losses[2] + 0.3 * nll[1]) / 3
    outcome = _step(run, policy, pairs, 1, reference)
    assert outcome.loss == pytest.approx(expected, rel=1e-4)
    assert outcome.accuracy == pytest.approx((0.5 * (up > 0) + 0.25 * (down > 0) + (edit > 0)) / 1.75, abs=1e-4)
    assert torch.isfinite(outcome.row_gradient).all()
    assert outcome.row_gradient.abs().max() > 0


STOP = {"share": 0.3, "every_steps": 10, "patience": 50}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{}, {"length_normalized": True, "objective": "ipo", "early_stop": STOP}])
def test_thumbs_train(tmp_path, model, monkeypatch, changes):
    """Users who gave thumbs at single replies rank pairs of them as they like them."""
    monkeypatch.setenv("IDIOLECT_CACHE_DIR", str(tmp_path / "cache"))
    data = weak(tmp_path)
    run = tiny_run(tmp_path / "run", model, train=data, epochs=12, beta=1.0, row_lr=0.2, **changes)
    policy = fit(run, tmp_path / "out")
    votes, _ = run.data()
    result, _ = evaluate(run, policy, index_users(votes))  # of the comparisons, none of which was trained on
    assert result["accuracy"]["mean"] > 0.9
    result, _ = evaluate(run.model_copy(update={"test": data}), policy, index_users(votes))
    assert np.isfinite(result["nll"]["own"])


def test_a_bank_asks_for_comparisons_alone(tmp_path, model, monkeypatch):
    monkeypatch.setenv("IDIOLECT_CACHE_DIR", str(tmp_path / "cache"))
    bank = {"bank": {"n_questions": 4}}
    run = tiny_run(tmp_path / "run", model, **bank)
    both = write(tmp_path / "both.jsonl", *map(json.loads, [*weak(tmp_path).open(), *run.train.open()]))
    policy, rows = Policy(run, n_users=2), {"short": 1, "long": 2}
    found = build_bank(run.model_copy(update={"test": both}), policy, rows)
    assert found.questions == build_bank(run, policy, rows).questions
    with pytest.raises(BadRunConfig, match="nothing to ask"):
        build_bank(run.model_copy(update={"test": weak(tmp_path)}), policy, rows)


def test_where_users_start_heeds_thumbs(tmp_path, model):
    """A thumb up lies as far to one side of the mean reply as a thumb down to the other."""
    votes = [
        Preference.model_validate(said | {"user_id": user}) for user, said in (("a", UP), ("b", DOWN), ("c", EDIT))
    ]
    up, down, edit = user_votes(votes, {"a": 1, "b": 2, "c": 3}, str(model), tmp_path / "features.sqlite")
    assert up == pytest.approx(-down)
    assert np.abs(up).max() > 0
    assert edit == pytest.approx(2 * up, rel=1e-5)  # of two replies the mean is in the middle
