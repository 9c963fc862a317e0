"""The question bank: built from a trained run, written and read, and good for telling a new user's wish."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from idiolect.bank import Bank, pair_id
from idiolect.bundle import Bundle
from idiolect.errors import BundleCorrupt, BundleMissing, BundleShapeMismatch, IdiolectError
from idiolect.files.folder import QUESTIONS, TABLE, Folder
from idiolect.inference.priors import Gaussian, Mixture, next_question
from idiolect.votes import DEFAULT_TIES, Likelihood, Votes
from idiolect_training.data.preferences import index_users
from idiolect_training.export.bundle import export
from idiolect_training.export.margin_error import margin_error
from idiolect_training.export.questions import Coordinates, choose, fit_likelihood, fit_population, margin_table
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.loop import fit
from idiolect_training.fit.loss import pair_margins
from tests.parts.tiny import tiny_model, tiny_run

USERS = {"long": 1, "short": 2}
KINDS = ("individual", "cluster", "low_rank")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


@pytest.fixture(scope="module", params=KINDS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, model: Path):
    """A run that has learnt its two opposed users, its policy and its bundle."""
    folder = tmp_path_factory.mktemp(request.param)
    user_model = {"kind": request.param, "n_user_tokens": 2}
    run = tiny_run(folder, model, user_model=user_model, epochs=15, beta=1.0, row_lr=0.2, bank={"n_questions": 4})
    policy = fit(run, folder / "out")
    return run, policy, export(run, policy, USERS, folder / "bundle")


@pytest.mark.slow
def test_the_table_holds_what_the_policy_says(trained):
    """Clusters: at every vertex exactly. Others: at the generic user exactly, and near at the trained ones."""
    run, policy, bundle = trained
    preferences, _ = run.data()
    layout = policy.layout
    _, pairs = tokenize(preferences, policy.tokenizer, layout, index_users(preferences), 128, 32)
    coordinates = Coordinates.of(policy)
    table = margin_table(run, policy, pairs, coordinates)
    reference = policy.reference(pairs, 8)
    if run.user_model.kind == "cluster":
        points, exact = np.eye(4), True
    else:
        points, exact = np.concatenate([np.zeros((1, table.slopes.shape[1])), coordinates.points]), False
    for number, z in enumerate(points):
        tokens = torch.from_numpy(bundle.user_model.user_tokens(coordinates.code(z)))
        true = pair_margins(run, pairs, policy.score_tokens(pairs, tokens, 8), reference).numpy()
        if exact or number == 0:
            assert table.margins(z) == pytest.approx(true, abs=1e-3)
        else:
            assert (np.sign(table.margins(z)) == np.sign(true)).mean() > 0.9


@pytest.mark.slow
def test_the_bundle_states_the_error_of_the_table(trained):
    """At the codes of users after five answers; a table that is wrong has a greater one."""
    run, policy, bundle = trained
    stated = bundle.manifest.training["margin_error"]
    assert stated["n_codes"] == 2
    assert stated == margin_error(run, policy, bundle.bank, USERS)
    assert 0 < stated["rms_nats"] < stated["model_rms_nats"]
    wrong = replace(bundle.bank, offsets=bundle.bank.offsets + 100)
    assert margin_error(run, policy, wrong, USERS)["rms_nats"] > 50
    unknown = margin_error(run, policy, bundle.bank, {})
    assert unknown == {"n_codes": 0}


def test_a_new_user_is_told_by_a_few_answers(trained):
    """Somebody who wants what `short` wants, and whom the trainer never saw."""
    _, _, bundle = trained
    bank = bundle.bank
    prior = bank.prior(bundle.user_model)
    wants = {side: +1 if "way" not in side else -1 for q in bank.questions for side in (q.first, q.second)}
    slopes, offsets, asked = [], [], np.zeros(len(bank.questions), bool)
    belief = prior.infer(Votes.none(len(bank.mean)), bank.likelihood)
    before = belief.spread
    while (place := next_question(prior.gain(belief, bank.table, bank.likelihood), asked, 1e-4)) is not None:
        asked[place] = True
        sign = 1 if wants[bank.questions[place].first] > 0 else -1
        slopes.append(sign * bank.slopes[place])
        offsets.append(sign * bank.offsets[place])
        belief = prior.infer(Votes.of(np.array(slopes), np.array(offsets)), bank.likelihood)
    assert 1 <= asked.sum() <= 4
    assert belief.spread < before
    code = bank.code(bundle.user_model, belief)
    short, long = (bundle.codes[list(bundle.user_ids).index(user)] for user in ("short", "long"))
    assert np.linalg.norm(code - short) < np.linalg.norm(code - long)


def test_a_bank_survives_the_disk(trained, tmp_path):
    _, _, bundle = trained
    bundle.bank.write(tmp_path)
    again = Bank.read(Folder.as_it_is(tmp_path), 4, len(bundle.bank.mean), bundle.user_model.code_size)
    assert again.questions == bundle.bank.questions
    assert again.likelihood == bundle.bank.likelihood
    for name in ("slopes", "offsets", "origin", "directions", "mean", "covariance"):
        assert np.array_equal(getattr(again, name), getattr(bundle.bank, name))
    question = again.questions[0]
    assert again.index[pair_id(question.messages, question.second, question.first)] == 0


def test_bundles_from_before_there_were_ties_have_the_default(trained, tmp_path):
    bank, code_size = trained[2].bank, trained[2].user_model.code_size
    for ties, n_numbers in ((DEFAULT_TIES, 4), (2.5, 5)):
        replace(bank, likelihood=replace(bank.likelihood, ties=ties)).write(tmp_path)
        assert load_file(tmp_path / TABLE)["likelihood"].shape == (n_numbers,)
        assert Bank.read(Folder.as_it_is(tmp_path), 4, len(bank.mean), code_size).likelihood.ties == ties


def test_separators_that_json_leaves_alone_end_no_question(trained, tmp_path):
    bank = trained[2].bank
    odd = bank.questions[0].model_copy(update={"first": "a\u2028b\u2029c", "second": "b"})
    replace(bank, questions=(odd, *bank.questions[1:])).write(tmp_path)
    assert Bank.read(Folder.as_it_is(tmp_path), 4, len(bank.mean), trained[2].user_model.code_size).questions[0] == odd


def rewrite(folder, change):
    rows = [json.loads(line) for line in (folder / QUESTIONS).read_text().splitlines()]
    (folder / QUESTIONS).write_text("".join(f"{json.dumps(row)}\n" for row in change(rows)))


def flipped(row):
    return {**row, "first": row["second"], "second": row["first"]}


@pytest.mark.parametrize(
    ("damage", "error"),
    [
        (lambda path: (path / QUESTIONS).write_text("no\n" * 4), BundleCorrupt),
        (
            lambda path: (path / QUESTIONS).write_text("\n".join((path / QUESTIONS).read_text().splitlines()[:-1])),
            BundleShapeMismatch,
        ),
        (lambda path: (path / TABLE).write_bytes(b"\0" * 40), BundleCorrupt),
        (lambda path: rewrite(path, lambda rows: [rows[0], *rows[:-1]]), BundleCorrupt),
        (lambda path: rewrite(path, lambda rows: [flipped(row) for row in rows]), BundleCorrupt),
        (lambda path: rewrite(path, lambda rows: [{**row, "first": "\u0085"} for row in rows]), BundleCorrupt),
        (
            lambda path: rewrite(path, lambda rows: [{**row, "messages": [{"role": "x"}]} for row in rows]),
            BundleCorrupt,
        ),
    ],
    ids=["nonsense", "short", "table", "twice", "order", "control", "role"],
)
def test_a_damaged_bank_is_refused(trained, tmp_path, damage, error):
    bank = trained[2].bank
    bank.write(tmp_path)
    damage(tmp_path)
    with pytest.raises(error):
        Bank.read(Folder.as_it_is(tmp_path), 4, len(bank.mean), trained[2].user_model.code_size)


@pytest.mark.parametrize("covariance", [lambda c: -c, lambda c: c + np.nan])
def test_an_impossible_population_is_refused(trained, tmp_path, covariance):
    bank = trained[2].bank
    replace(bank, covariance=covariance(bank.covariance)).write(tmp_path)
    with pytest.raises(BundleCorrupt):
        Bank.read(Folder.as_it_is(tmp_path), 4, len(bank.mean), trained[2].user_model.code_size)


def test_a_bundle_must_have_the_bank_that_it_names(trained):
    bundle = trained[2]
    kept = (bundle.path / TABLE).read_bytes()
    (bundle.path / TABLE).unlink()
    with pytest.raises(BundleMissing):
        Bundle.read(bundle.path)
    (bundle.path / TABLE).write_bytes(kept)
    values = json.loads((bundle.path / "manifest.json").read_text())
    assert values["bank"] == {"n_questions": 4, "n_coordinates": len(bundle.bank.mean)}
    assert isinstance(Bundle.read(bundle.path).bank, Bank)
    assert issubclass(BundleMissing, IdiolectError)


def test_a_pair_is_one_question_whatever_the_profiles_of_those_who_answered(tmp_path, model):
    run = tiny_run(tmp_path, model, bank={"n_questions": 40}, epochs=1)
    rows = [json.loads(line) for line in run.train.read_text().splitlines()]
    run.train.write_text("".join(json.dumps(row | more) + "\n" for row in rows for more in ({}, {"profile": "kind"})))
    bank = export(run, fit(run, tmp_path / "out"), USERS, tmp_path / "bundle").bank
    assert bank is not None
    assert 1 < len(bank.questions) == len(bank.index) <= 6


def test_the_choice_is_informative_and_not_redundant():
    table = Votes.of(np.array([[3.0, 0], [3.0, 0.01], [0, 2.0], [0.1, 0]]))
    everything = np.ones(4, bool)
    likelihood = Likelihood(0.1, 0.02)
    assert choose(table, np.zeros(2), np.eye(2), likelihood, everything, 2).tolist() in ([0, 2], [1, 2], [2, 1], [2, 0])
    assert choose(table, np.zeros(2), np.eye(2), likelihood, np.array([False, True, False, True]), 9).tolist() == [1, 3]


@pytest.mark.slow
@pytest.mark.parametrize("blended", [False, True])
def test_users_are_blends_where_their_votes_say_so(blended: bool):
    """Two dozen users of four clusters: each of one of them, or each a blend."""
    rng = np.random.default_rng(2)
    users = rng.dirichlet(np.full(4, 2.0), 24) if blended else np.eye(4)[rng.integers(4, size=24)]
    slopes = 4 * rng.standard_normal((24, 30, 4))
    signs = np.where(rng.random((24, 30)) < 1 / (1 + np.exp(-np.einsum("unc,uc->un", slopes, users))), 1, -1)
    # The trained codes of both are alike: softmax blends.
    codes = 0.7 * users + 0.3 * rng.dirichlet(np.full(4, 2.0), 24)
    votes = Votes.of(signs[..., None] * slopes)
    found, likelihood = fit_population("cluster", votes, codes.mean(0), np.cov(codes.T), 1.0)
    assert found == blended
    assert likelihood.temperature == pytest.approx(1, rel=0.5)
    assert not fit_population("low_rank", votes, codes.mean(0), np.eye(4), 1.0)[0]


def test_temperature_and_noise_are_found_again():
    rng = np.random.default_rng(0)
    margins = 4 * rng.standard_normal(20_000)
    p = 0.9 / (1 + np.exp(-margins / 2)) + 0.05
    votes = Votes.of(np.where(rng.random(20_000) < p, margins, -margins).reshape(1, -1, 1))
    found = fit_likelihood(votes, Mixture(np.ones(1)), 1.0)  # everybody is the same
    assert found.temperature == pytest.approx(2, rel=0.15)
    assert found.noise == pytest.approx(0.1, abs=0.05)


@pytest.mark.slow
def test_the_votes_of_unlike_users_are_not_taken_for_noise():
    """Forty users at random points: had they all stood at the mean, their votes would be coins."""
    rng = np.random.default_rng(1)
    slopes, users = 3 * rng.standard_normal((40, 30, 2)), rng.standard_normal((40, 2))
    margins = np.einsum("unc,uc->un", slopes, users)
    signs = np.where(rng.random(margins.shape) < 1 / (1 + np.exp(-margins)), 1, -1)
    found = fit_likelihood(Votes.of(signs[..., None] * slopes), Gaussian(np.zeros(2), np.eye(2)), 1.0)
    assert found.temperature == pytest.approx(1, rel=0.3)
    assert found.noise <= 0.05
