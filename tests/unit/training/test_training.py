"""The trainer on a tiny random model: the path is real, only the weights do not matter."""

import json
import logging
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from idiolect.bank import pair_id
from idiolect.base_model import identify
from idiolect.bundle import Bundle
from idiolect.errors import BaseModelMismatch
from idiolect.merge import merge_bundle
from idiolect.trained_votes import digest
from idiolect_training.config import upgraded
from idiolect_training.data.preferences import index_users
from idiolect_training.data.split import split
from idiolect_training.errors import BadPreference, CheckpointMismatch, Diverged
from idiolect_training.evaluate.evaluate import evaluate
from idiolect_training.export.bundle import export
from idiolect_training.fit.batch import CHOSEN, PROMPT, REJECTED, Pair, collate, shuffled, tokenize
from idiolect_training.fit.loop import BEST, CHECKPOINT, _accuracy, fit, restore, trained_votes
from idiolect_training.fit.policy import Policy
from idiolect_training.fit.run_log import LOG, read_curve
from tests.live import ROOT
from tests.parts.tiny import tiny_model, tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


def prepare(run, policy):
    preferences, _ = run.data()
    layout = policy.layout
    return tokenize(preferences, policy.tokenizer, layout, index_users(preferences), 128, 32)[1]


@pytest.mark.parametrize("placement", ["after_system", "after_bos"])
def test_batches_put_user_tokens_and_replies_in_their_places(tmp_path, model, placement):
    run = tiny_run(tmp_path, model, placement=placement)
    policy = Policy(run, n_users=2)
    pairs = prepare(run, policy)
    batch = collate(pairs[:3], n_user_tokens=2, pad_id=2)
    for i, pair in enumerate(pairs[:3]):
        assert batch.user_mask[i].nonzero().flatten().tolist() == [pair.offset, pair.offset + 1]
        assert batch.ids[i][(batch.part[i] == PROMPT) & ~batch.user_mask[i]].tolist() == list(pair.prompt_ids)
        for side, reply in ((CHOSEN, pair.chosen_ids), (REJECTED, pair.rejected_ids)):
            assert batch.ids[i][batch.part[i] == side].tolist() == list(reply)
            assert batch.target[batch.reply == 2 * i + side - CHOSEN].tolist() == list(reply)
            first = len(pair.prompt_ids) + 2
            assert batch.positions[i][batch.part[i] == side].tolist() == list(range(first, first + len(reply)))
    assert pairs[0].chosen_ids[-1] == policy.tokenizer.eos_token_id


def test_votes_on_the_same_replies_share_a_batch(tmp_path, model):
    """Whoever chose which: so a batch's gradient is about its users, and draws stay those of the seed."""
    pairs = prepare(tiny_run(tmp_path, model), Policy(tiny_run(tmp_path, model), n_users=2))
    batches = [list(shuffled(pairs, 4, torch.Generator().manual_seed(seed))) for seed in (3, 3, 4)]
    for batch in batches[0]:
        asked = [pair.prompt_ids for pair in batch]
        assert all(asked.count(prompt) == 2 for prompt in asked)
        assert {pair.row for pair in batch} == {1, 2}
    assert sorted(pair.index for batch in batches[0] for pair in batch) == list(range(len(pairs)))
    assert batches[0] == batches[1] != batches[2]


def test_a_shared_prompt_gives_what_separate_sequences_give(tmp_path, model):
    """Both replies in one row against plain causal sequences through the model's own forward."""
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=2)
    pairs = prepare(run, policy)
    packed = policy.score(pairs, None, 5, "packed")
    for pair, (chosen, rejected) in zip(pairs, packed.tolist(), strict=True):
        for reply, expected in ((pair.chosen_ids, chosen), (pair.rejected_ids, rejected)):
            ids = torch.tensor([[*pair.prompt_ids, *reply]])
            with torch.no_grad(), policy.model.disable_adapter():
                logps = policy.model(ids).logits.log_softmax(-1)
            start = len(pair.prompt_ids)
            plain = sum(logps[0, start + i - 1, token].item() for i, token in enumerate(reply))
            assert plain == pytest.approx(expected, abs=1e-3)


def test_untrained_policy_without_user_tokens_is_the_reference(tmp_path, model):
    """LoRA's B starts at zero, so with no user tokens in the batch both must give the same numbers."""
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=2)
    pairs = prepare(run, policy)
    batch = collate(pairs, 0, 2)
    with torch.no_grad():
        reference = policy.token_logps(batch, None)
        bare = policy.token_logps(batch, torch.zeros(len(pairs), 0, 16))
    assert torch.allclose(reference, bare, atol=1e-5)


@pytest.mark.slow
def test_references_are_computed_once(tmp_path, model, monkeypatch):
    monkeypatch.setenv("IDIOLECT_CACHE_DIR", str(tmp_path / "cache"))
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=2)
    pairs = prepare(run, policy)
    first = policy.reference(pairs, 4)
    assert torch.equal(first, policy.score(pairs, None, 4, "again"))
    again = Policy(run.model_copy(update={"seed": 1}), n_users=2)
    monkeypatch.setattr(again, "score", None)  # it must not be asked
    assert torch.equal(again.reference(pairs, 4), first)


def test_scores_do_not_depend_on_batching(tmp_path, model):
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=2)
    policy.rows.values[1:].normal_()
    pairs = prepare(run, policy)
    rows = [pair.row for pair in pairs]
    one, many = (policy.score(pairs, rows, size, "score") for size in (1, 8))
    assert torch.allclose(one, many, atol=1e-4)
    swapped = policy.score([p for p in pairs if p.row == 1], [2] * 6, 4, "score")
    assert torch.allclose(
        swapped, policy.score([p for p in pairs if p.row == 2], [2] * 6, 4, "score").flip(1), atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["individual", "cluster", "low_rank"])
def test_opposed_users_are_learnt_and_pooled_training_cannot(tmp_path, model, kind):
    run = tiny_run(tmp_path, model, user_model={"kind": kind, "n_user_tokens": 2}, epochs=15, beta=1.0, row_lr=0.2)
    learnt, replies = evaluate(run, fit(run, tmp_path / "out"), {"long": 1, "short": 2})
    assert not replies  # none asked for
    assert learnt["accuracy"]["mean"] == 1.0
    assert learnt["confusion"] == {"users": ["long", "short"], "accuracy": [[1.0, 0.0], [0.0, 1.0]]}
    pooled_run = run.pooled()
    pooled, _ = evaluate(pooled_run, fit(pooled_run, tmp_path / "pooled"), {"long": 1, "short": 2})
    assert pooled["accuracy"]["mean"] == 0.5


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"objective": "ipo", "length_normalized": True, "beta": 0.5},
        {"objective": "hinge", "alpha_mix": "both"},
        {"objective": "robust", "label_smoothing": 0.1},
        {"user_model": {"kind": "uniform", "n_user_tokens": 2}, "alpha": 0.0},
        {"precision": "bf16", "gradient_checkpointing": True, "user_rows": "file"},
    ],
)
def test_every_setting_trains(tmp_path, model, changes):
    run = tiny_run(tmp_path, model, epochs=8, **changes)
    policy = fit(run, tmp_path / "out")
    losses = [record["loss"] for record in read_curve(tmp_path / "out")]
    assert losses[-1] < losses[0]
    assert export(run, policy, {"long": 1, "short": 2}, tmp_path / "bundle").manifest.user_model.n_users == 2


@pytest.mark.slow
@pytest.mark.parametrize("user_model", [{"kind": "individual"}, {"kind": "cluster", "n_clusters": 3, "start": "votes"}])
def test_few_votes_stay_near_generic(tmp_path, model, user_model):
    """At as many steps, users go the farther the more they voted, and less far the more the prior is worth."""
    distances = {}
    for prior in (0.5, 8.0):
        changes = {"user_model": user_model | {"n_user_tokens": 2}, "prior": prior}
        run = tiny_run(tmp_path / f"{prior}", model, epochs=4, **changes)
        lines = [
            {"user_id": f"voted-{n}", "prompt": f"Question {k}?", "chosen": f"yes {k}", "rejected": f"no way {k}"}
            for n in (1, 4, 16)
            for k in range(n)
        ]
        run.train.write_text("".join(json.dumps(line) + "\n" for line in lines))
        policy = fit(run, tmp_path / f"out-{prior}")
        distances[prior] = policy.rows.values[1:].norm(dim=1)
    for far in distances.values():
        assert 0 < far[0] < far[1] < far[2]
    assert (distances[8.0] < distances[0.5]).all()


@pytest.mark.slow
def test_eight_micro_batches_equal_one_batch(tmp_path, model):
    """B7: 8 x 1 equals 1 x 8."""
    weights = []
    for micro in (1, 8):
        run = tiny_run(tmp_path, model, batch_pairs=8, micro_batch_pairs=micro)
        fit(run, tmp_path / str(micro))
        weights.append(load_file(tmp_path / str(micro) / CHECKPOINT))
    for name, value in weights[0].items():
        assert torch.allclose(value, weights[1][name], atol=1e-4), name


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path, model):
    """two processes over gloo on this CPU: the same curve as a single process."""
    run = tiny_run(tmp_path, model)
    fit(run, tmp_path / "one")
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    subprocess.run(
        [*launch, "-m", "idiolect_cli", "train", str(config), "--out", str(tmp_path / "two")],
        check=True, timeout=300, cwd=ROOT, env=os.environ | {"ACCELERATE_USE_CPU": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    one, two = read_curve(tmp_path / "one"), read_curve(tmp_path / "two")
    assert len(one) == len(two) == 6
    assert [record["loss"] for record in one] == pytest.approx([record["loss"] for record in two], abs=1e-4)


@pytest.mark.slow
def test_early_stop_keeps_the_best_step(tmp_path, model):
    stop = {"share": 0.4, "every_steps": 1, "patience": 2}
    run = tiny_run(tmp_path, model, epochs=40, early_stop=stop)
    fit(run, tmp_path / "out")
    accuracies = [record["held_out_accuracy"] for record in read_curve(tmp_path / "out")]
    assert len(accuracies) < 40
    assert max(accuracies[-2:]) <= max(accuracies[:-2])
    with safe_open(tmp_path / "out" / BEST, framework="pt") as file:
        assert int(file.metadata()["step"]) == 1 + accuracies.index(max(accuracies))
    restore(run, tmp_path / "out")
    votes = trained_votes(run, tmp_path / "out")
    assert votes is not None
    held_out = {digest(p.user_id, *p.answer) for p in split(run.data()[0], "prompt", 0.4, run.seed)[1]}
    assert held_out
    assert not held_out & set(votes.digests.tolist())


@pytest.mark.parametrize("kind", ["individual", "cluster", "low_rank"])
def test_votes_that_trained_a_row_are_kept_and_no_others(tmp_path, model, kind):
    """Of users who voted once each: the rows that moved are those of the votes that were not drawn for the generic one.

    Replies lose the mark of their end on the way; their votes are known as they were given.
    """
    run = tiny_run(tmp_path, model, user_model={"kind": kind, "n_user_tokens": 2}, alpha=0.5, epochs=1)
    votes = [
        {"user_id": f"user {n:02}", "prompt": f"Question {n}?", "chosen": f"yes {n}<|im_end|>", "rejected": "no"}
        for n in range(24)
    ]
    run.train.write_text("".join(json.dumps(vote) + "\n" for vote in votes))
    policy = fit(run, tmp_path / "out")
    moved = set(policy.rows.touched()["index"].tolist()) - {0}
    assert 0 < len(moved) < len(votes)
    pairs = [pair_id([{"role": "user", "content": v["prompt"]}], v["chosen"], v["rejected"]) for v in votes]
    wanted = {digest(votes[row - 1]["user_id"], pairs[row - 1], False) for row in moved}
    found = trained_votes(run, tmp_path / "out")
    assert found is not None
    assert set(found.digests.tolist()) == wanted
    assert export(run, policy, index_users(run.data()[0]), tmp_path / "bundle", found).trained_votes is not None


def test_a_run_that_trains_nobodys_row_has_no_trained_votes(tmp_path, model):
    run = tiny_run(tmp_path, model, alpha=0, epochs=1)
    fit(run, tmp_path / "out")
    assert trained_votes(run, tmp_path / "out") is None


def test_users_who_start_from_their_votes_were_trained_on_all_of_them(tmp_path, model):
    clusters = {"kind": "cluster", "n_user_tokens": 2, "n_clusters": 2, "start": "votes"}
    run = tiny_run(tmp_path, model, user_model=clusters, alpha=0.1, epochs=1)
    fit(run, tmp_path / "out")
    votes = trained_votes(run, tmp_path / "out")
    assert votes is not None
    assert len(votes.digests) == len(run.data()[0])


@pytest.mark.parametrize(("normalized", "expected"), [(False, 1.0), (True, 0.0)])
def test_early_stop_goes_by_the_margins_of_the_run(tmp_path, model, normalized, expected):
    """Longer chosen replies that gained more in all and less a token: right only for a run that counts replies."""
    run = tiny_run(tmp_path, model, length_normalized=normalized)
    policy = Policy(run, n_users=2)
    pairs = [Pair(0, 1, (1, 4), (5,) * 40, (6,) * 2, 1)]
    gained = torch.tensor([[10.0, 1.0]])
    reference = policy.score(pairs, [1], 1, "score") - gained
    assert _accuracy(run, policy, pairs, reference) == expected


def test_a_diverging_run_stops_and_keeps_its_last_checkpoint(tmp_path, model):
    run = tiny_run(tmp_path, model, lora_lr=1e4, user_lr=1e4, epochs=20, checkpoint_steps=1)
    with pytest.raises(Diverged, match=r"at step \d+"):
        fit(run, tmp_path / "out")
    kept = load_file(tmp_path / "out" / CHECKPOINT)
    assert all(torch.isfinite(value).all() for value in kept.values())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["individual", "cluster", "low_rank"])
def test_a_resumed_run_equals_a_straight_one(tmp_path, model, kind, monkeypatch):
    run = tiny_run(tmp_path, model, user_model={"kind": kind, "n_user_tokens": 2})
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    fit(run, straight)

    class Stopped(Exception):
        pass

    def save_then_stop(path, step, *rest):
        save(path, step, *rest)
        if step == 4:
            raise Stopped

    import idiolect_training.fit.loop as module

    save = module.save_checkpoint
    monkeypatch.setattr(module, "save_checkpoint", save_then_stop)
    with pytest.raises(Stopped):
        fit(run, resumed)
    monkeypatch.undo()
    fit(run, resumed)
    one, two = (load_file(out / CHECKPOINT) for out in (straight, resumed))
    assert one.keys() == two.keys()
    for name in one:
        assert torch.allclose(one[name], two[name], atol=1e-6), name
    assert (resumed / LOG).read_text() == (straight / LOG).read_text()


@pytest.mark.slow
def test_a_killed_run_resumes_to_an_identical_log(tmp_path, model):
    """SIGKILL between checkpoints: the steps after the last one are done again, to the same numbers."""
    run = tiny_run(tmp_path, model, epochs=60, checkpoint_steps=7)
    fit(run, tmp_path / "straight")
    config, killed = tmp_path / "run.yaml", tmp_path / "killed"
    config.write_text(yaml.safe_dump(run.model_dump(mode="json")))
    process = subprocess.Popen(
        [sys.executable, "-m", "idiolect_cli", "train", str(config), "--out", str(killed)], cwd=ROOT
    )
    while process.poll() is None and len(read_curve(killed)) < 20:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert 20 <= len(read_curve(killed)) < 180
    fit(run, killed)
    assert (killed / LOG).read_text() == (tmp_path / "straight" / LOG).read_text()


def test_the_loss_follows_the_committed_trajectory(tmp_path, model):
    """B7: trajectory.json, written by this very run; a changed loss, draw or optimizer shows here."""
    fit(tiny_run(tmp_path, model, epochs=4), tmp_path / "out")
    losses = [record["loss"] for record in read_curve(tmp_path / "out")]
    assert losses == pytest.approx(json.loads((ROOT / "tests/unit/training/trajectory.json").read_text()), abs=2e-3)


def test_a_checkpoint_of_an_earlier_version_is_continued(tmp_path, model):
    """It lacks the settings that came later, which then are their defaults; anything else that differs is refused."""
    run = tiny_run(tmp_path, model, user_model={"kind": "cluster", "n_clusters": 3, "n_user_tokens": 2})
    now = run.portable() | {"train_sha256": "0"}
    earlier = json.loads(json.dumps(now))
    del earlier["user_model"]["start"], earlier["gradient_checkpointing"]
    assert earlier != now
    assert upgraded(earlier) == now
    earlier["user_model"]["n_clusters"] = 4
    assert upgraded(earlier) != now
    assert upgraded({"no": "run"}) == {"no": "run"}


@pytest.mark.slow
def test_a_checkpoint_of_another_run_is_refused(tmp_path, model):
    run = tiny_run(tmp_path, model)
    fit(run, tmp_path / "out")
    before = {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    with pytest.raises(CheckpointMismatch):
        fit(run.model_copy(update={"beta": 0.9}), tmp_path / "out")
    run.train.write_text(run.train.read_text().replace("short", "shirt"))
    with pytest.raises(CheckpointMismatch):
        fit(run, tmp_path / "out")
    assert {file.name: file.read_bytes() for file in (tmp_path / "out").iterdir()} == before


def test_a_long_prompt_is_refused_and_a_long_reply_is_cut_without_a_stop(tmp_path, model):
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=2)
    preferences, _ = run.data()
    layout = policy.layout
    with pytest.raises(BadPreference, match=r"pairs.jsonl:1: .* max_prompt_tokens"):
        tokenize(preferences, policy.tokenizer, layout, {}, 10, 32)
    _, cut = tokenize(preferences, policy.tokenizer, layout, {}, 128, 2)
    assert all(len(pair.chosen_ids) <= 2 and policy.tokenizer.eos_token_id not in pair.chosen_ids for pair in cut)
    assert {pair.row for pair in cut} == {0}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["individual", "cluster", "low_rank"])
def test_the_bundle_repeats_the_trainer(tmp_path, model, kind):
    """Exported, read and merged: user tokens equal bit for bit, merged weights equal PEFT's own merge."""
    run = tiny_run(tmp_path, model, user_model={"kind": kind, "n_user_tokens": 2})
    fit(run, tmp_path / "out")
    policy, rows = restore(run, tmp_path / "out")
    bundle = export(run, policy, rows, tmp_path / "bundle")
    assert Bundle.read(tmp_path / "bundle").bundle_id == bundle.bundle_id
    for user_id, code in bundle.users():
        trained = policy.user_tokens([rows[user_id]])[0].detach().numpy()
        np.testing.assert_allclose(bundle.user_model.user_tokens(code), trained, atol=1e-6)

    merged = merge_bundle(bundle, model, tmp_path / "merged")
    assert merged.model_path is not None
    ours = AutoModelForCausalLM.from_pretrained(merged.model_path, dtype=torch.float32).state_dict()
    theirs = policy.model.merge_and_unload().state_dict()
    assert any(
        not torch.equal(theirs[name], AutoModelForCausalLM.from_pretrained(model).state_dict()[name]) for name in theirs
    )
    for name, weight in theirs.items():
        assert torch.allclose(ours[name], weight, atol=1e-6), name


@pytest.mark.slow
def test_merging_into_another_model_is_refused(tmp_path, model, model_path):
    run = tiny_run(tmp_path, model)
    fit(run, tmp_path / "out")
    bundle = export(run, *restore(run, tmp_path / "out"), tmp_path / "bundle")
    with pytest.raises(BaseModelMismatch):
        merge_bundle(bundle, model_path, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_fingerprint_notices_one_changed_weight(tmp_path, model):
    copy = shutil.copytree(model, tmp_path / "copy")
    network = AutoModelForCausalLM.from_pretrained(model)
    network.save_pretrained(copy)
    assert identify(copy).fingerprint == identify(model).fingerprint
    with torch.no_grad():
        network.model.layers[1].mlp.up_proj.weight[0, 0] += 1
    network.save_pretrained(copy)
    assert identify(copy).fingerprint != identify(model).fingerprint


def test_progress_is_logged(tmp_path, model, caplog):
    with caplog.at_level(logging.INFO):
        fit(tiny_run(tmp_path, model, epochs=1), tmp_path / "out")
    assert "12 pairs, 2 users, 3 steps" in caplog.text
