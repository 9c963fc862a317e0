"""The trainer on a tiny random model: the path is real, only the weights do not matter."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from idiolect.base_model import identify
from idiolect.bundle import Bundle
from idiolect.errors import BaseModelMismatch
from idiolect.merge import merge_bundle
from tests.unit.tiny import tiny_model, tiny_run
from training.batch import chat_layout, collate, tokenize
from training.errors import BadPreference, CheckpointMismatch
from training.evaluate import evaluate
from training.export import export
from training.fit import CHECKPOINT, LOG, fit, restore
from training.policy import Policy
from training.preferences import index_users, read_preferences


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


def prepare(run, policy):
    preferences = read_preferences(run.train)
    layout = chat_layout(policy.tokenizer, run.placement)
    return tokenize(preferences, policy.tokenizer, layout, index_users(preferences), 128, 32)


@pytest.mark.parametrize("placement", ["after_system", "after_bos"])
def test_batches_put_user_tokens_and_replies_in_their_places(tmp_path, model, placement):
    run = tiny_run(tmp_path, model, placement=placement)
    policy = Policy(run, n_users=2)
    pairs = prepare(run, policy)
    batch = collate(pairs[:3], n_user_tokens=2, pad_id=2)
    for i, pair in enumerate(pairs[:3]):
        for half, reply in ((0, pair.chosen_ids), (3, pair.rejected_ids)):
            row = i + half
            assert batch.user_mask[row].nonzero().flatten().tolist() == [pair.offset, pair.offset + 1]
            assert batch.ids[row][batch.reply_mask[row]].tolist() == list(reply)
            real = batch.ids[row][batch.attention_mask[row] & ~batch.user_mask[row]].tolist()
            assert real == [*pair.prompt_ids, *reply]
    assert pairs[0].chosen_ids[-1] == policy.tokenizer.eos_token_id


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


def test_scores_do_not_depend_on_batching(tmp_path, model):
    run = tiny_run(tmp_path, model)
    policy = Policy(run, n_users=2)
    pairs = prepare(run, policy)
    rows = [pair.row for pair in pairs]
    one, many = (policy.score(pairs, rows, size, "score") for size in (1, 8))
    assert torch.allclose(one, many, atol=1e-4)
    swapped = policy.score([p for p in pairs if p.row == 1], [2] * 6, 4, "score")
    assert torch.allclose(
        swapped, policy.score([p for p in pairs if p.row == 2], [2] * 6, 4, "score").flip(1), atol=1e-4
    )


def test_opposed_users_are_learnt_and_pooled_training_cannot(tmp_path, model):
    run = tiny_run(tmp_path, model, epochs=15, beta=1.0, lora={"rank": 4, "alpha": 16})
    learnt = evaluate(run, fit(run, tmp_path / "out"), {"long": 1, "short": 2}, run.test)
    assert learnt["accuracy"] == 1.0
    pooled_run = run.model_copy(update={"alpha": 0.0})
    pooled = evaluate(pooled_run, fit(pooled_run, tmp_path / "pooled"), {"long": 1, "short": 2}, run.test)
    assert pooled["accuracy"] == 0.5


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_a_resumed_run_equals_a_straight_one(tmp_path, model, kind, monkeypatch):
    run = tiny_run(tmp_path, model, user_model={"kind": kind, "n_user_tokens": 2, "n_clusters": 3})
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    fit(run, straight)

    class Stopped(Exception):
        pass

    def save_then_stop(path, step, *rest):
        save(path, step, *rest)
        if step == 4:
            raise Stopped

    import training.fit as module

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
    steps = [json.loads(line)["step"] for line in (resumed / LOG).read_text().splitlines()]
    assert steps == [1, 2, 3, 4, 5, 6]


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
    preferences = read_preferences(run.train)
    layout = chat_layout(policy.tokenizer, run.placement)
    with pytest.raises(BadPreference, match="max_prompt_tokens"):
        tokenize(preferences, policy.tokenizer, layout, {}, 10, 32)
    cut = tokenize(preferences, policy.tokenizer, layout, {}, 128, 2)
    assert all(len(pair.chosen_ids) <= 2 and policy.tokenizer.eos_token_id not in pair.chosen_ids for pair in cut)
    assert {pair.row for pair in cut} == {0}


@pytest.mark.parametrize("kind", ["individual", "cluster"])
def test_the_bundle_repeats_the_trainer(tmp_path, model, kind):
    """Exported, read and merged: user tokens equal bit for bit, merged weights equal PEFT's own merge."""
    run = tiny_run(tmp_path, model, user_model={"kind": kind, "n_user_tokens": 2, "n_clusters": 3})
    fit(run, tmp_path / "out")
    policy, rows = restore(run, tmp_path / "out")
    bundle = export(run, policy, rows, tmp_path / "bundle")
    assert Bundle.read(tmp_path / "bundle").bundle_id == bundle.bundle_id
    for user_id, code in bundle.users():
        trained = policy.users(torch.tensor([rows[user_id]]))[0].detach().numpy()
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


def test_merging_into_another_model_is_refused(tmp_path, model, model_path):
    run = tiny_run(tmp_path, model)
    fit(run, tmp_path / "out")
    bundle = export(run, *restore(run, tmp_path / "out"), tmp_path / "bundle")
    with pytest.raises(BaseModelMismatch):
        merge_bundle(bundle, model_path, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_a_fingerprint_notices_one_changed_weight(tmp_path, model):
    copy = tmp_path / "copy"
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
