"""Words stay words: what personalizing does to the language is measured, and a bundle that loops is not exported."""

import json

import pytest
import torch
import yaml

from idiolect_cli.main import app
from idiolect_training.errors import BadRunConfig, CheckpointMismatch, LoopingReplies, NotEvaluated
from idiolect_training.evaluate.language import check_loops, repeated
from idiolect_training.evaluate.replies import GENERIC, _Penalty
from tests.parts.tiny import tiny_model, tiny_run


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("", 0.0),
        ("too short", 0.0),
        ("every word of this sentence stands here once", 0.0),
        ("again and again and again and again", 0.5),
        ("Case does not matter here: CASE DOES NOT MATTER here:", 2 / 7),
        ("la " * 50, 46 / 47),
    ],
)
def test_repeated_is_the_share_of_4grams_that_were_there_before(text, share):
    assert repeated(text) == pytest.approx(share)


def test_a_user_may_loop_as_much_as_the_generic_one_and_a_little_more():
    measured = {GENERIC: {"looping": 0.1}, "ann": {"looping": 0.15}, "ben": {"looping": 0.0}}
    check_loops(measured, 0.05)
    with pytest.raises(LoopingReplies, match="15% of ann's replies loop, more than the 14%"):
        check_loops(measured, 0.04)


def test_the_penalty_counts_what_the_reply_has_already():
    scores = _Penalty(0.5)(torch.tensor([[1, 1, 3], [0, 0, 0]]), torch.ones(2, 4))
    assert scores.tolist() == [[1, 0, 1, 0.5], [-0.5, 1, 1, 1]]


@pytest.fixture
def run_file(tmp_path, model_path):
    """A tiny random model, which repeats itself for ever, whoever asks."""
    (tmp_path / "prompts.txt").write_text("Why?\n\n  Where to?  \nWhen?\n", encoding="utf-8-sig")
    model = tiny_model(tmp_path / "model", model_path)
    wanted = {"prompts": tmp_path / "prompts.txt", "n_prompts": 2, "max_new_tokens": 12}
    run = tiny_run(tmp_path, model, epochs=1, generate=wanted)
    stated = run.model_dump(mode="json", include=run.model_fields_set - {"log_with"})
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(stated))
    return tmp_path / "run.yaml"


def command(*arguments: object) -> None:
    app(list(map(str, arguments)), standalone_mode=False)


@pytest.mark.slow
def test_prompts_of_another_source_are_asked_and_their_replies_measured(tmp_path, run_file):
    command("train", run_file, "--out", tmp_path / "out")
    evaluation = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert set(evaluation["language"]) == {GENERIC, "long", "short"}
    assert all(one["n"] == 2 and one["base_nll"] > 0 for one in evaluation["language"].values())
    replies = [json.loads(line) for line in (tmp_path / "out" / "replies.jsonl").open()]
    assert {reply["chat"][-1]["content"] for reply in replies} == {"Why?", "Where to?"}


@pytest.mark.slow
def test_export_refuses_users_who_loop_unless_told_otherwise(tmp_path, run_file):
    out, bundle = tmp_path / "out", tmp_path / "out" / "bundle"
    with pytest.raises(CheckpointMismatch, match="not a run folder"):
        command("export", run_file, "--out", out)
    command("train", run_file, "--out", out)
    written = bundle / "manifest.json"
    written.unlink()
    evaluation = json.loads((out / "evaluation.json").read_text())
    for user_id, share in ((GENERIC, 0.0), ("long", 0.5), ("short", 0.05)):
        evaluation["language"][user_id]["looping"] = share
    (out / "evaluation.json").write_text(json.dumps(evaluation))
    with pytest.raises(LoopingReplies, match="50% of long's replies loop"):
        command("export", run_file, "--out", out)
    assert not written.exists()
    command("export", run_file, "--out", out, "--allow-loops")
    assert written.exists()
    (out / "evaluation.json").unlink()
    with pytest.raises(NotEvaluated):
        command("export", run_file, "--out", out)


@pytest.mark.slow
@pytest.mark.parametrize("content", [None, "\n  \n"])
def test_prompts_that_cannot_be_read_are_an_error_of_the_run(tmp_path, run_file, content):
    file = tmp_path / "prompts.txt"
    file.unlink()
    if content is not None:
        file.write_text(content)
    with pytest.raises(BadRunConfig, match=r"generate\.prompts"):
        command("train", run_file, "--out", tmp_path / "out")
