"""Studies on a tiny random model: replies, style, and a report with a pooled baseline in it."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from idiolect.prompt.chat import place
from idiolect_cli.main import app
from idiolect_training.errors import CheckpointMismatch
from idiolect_training.evaluate.replies import GENERIC, _decode, generate
from idiolect_training.evaluate.reply_style import style
from idiolect_training.fit.policy import Policy
from tests.parts.tiny import tiny_model, tiny_run


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, model_path: Path) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"), model_path)


@pytest.mark.parametrize("placement", ["after_system", "after_bos"])
def test_batched_replies_equal_the_papers_protocol(tmp_path, model, placement):
    """One prompt at a time, no cache, the whole sequence again for each token (paper_and_peers: generation)."""
    policy = Policy(tiny_run(tmp_path, model, placement=placement), n_users=2)
    policy.rows.values[1:].normal_()
    policy.model.eval()
    decoder = policy.model.get_base_model()
    # With tied embeddings a random model repeats one word for ever, whoever asks.
    decoder.lm_head.weight = torch.nn.Parameter(torch.randn(decoder.lm_head.weight.shape))
    chats = [[{"role": "user", "content": "Why? " * n}] for n in (1, 4, 9)]
    prompts = [place(chat, policy.layout, policy.tokenizer) for chat in chats]
    rows = [1, 2, 0]
    batched = _decode(policy, prompts, policy.user_tokens(rows), max_new_tokens=6)
    for (ids, cut), row, text in zip(prompts, rows, batched, strict=True):
        embed = decoder.get_input_embeddings()
        tokens = policy.user_tokens([row])[0]
        sequence = torch.cat([embed(torch.tensor(ids[:cut])), tokens, embed(torch.tensor(ids[cut:]))])
        new: list[int] = []
        while len(new) < 6 and (not new or new[-1] != policy.tokenizer.eos_token_id):
            with torch.no_grad():
                logits = decoder(inputs_embeds=torch.cat([sequence, embed(torch.tensor(new, dtype=torch.long))])[None])
            new.append(int(logits.logits[0, -1].argmax()))
        assert text == policy.tokenizer.decode(new, skip_special_tokens=True).strip()
    assert len(set(batched)) == 3


def test_replies_are_to_the_same_prompts_and_profiles_go_along(tmp_path, model):
    run = tiny_run(tmp_path, model, generate={"n_prompts": 2, "max_new_tokens": 4})
    policy = Policy(run, n_users=2)
    _, held_out = run.data()
    held_out = [p.model_copy(update={"profile": "I am short."}) if p.user_id == "short" else p for p in held_out]
    replies = generate(run, policy, {"long": 1, "short": 2}, held_out)
    assert [reply.user_id for reply in replies] == [GENERIC] * 2 + ["long"] * 2 + ["short"] * 2
    asked = [reply.chat[-1]["content"] for reply in replies]
    assert asked[:2] == asked[2:4] == ["Question 0?", "Question 1?"]
    assert asked[4:] == ["About me: I am short.\n\nQuestion 0?", "About me: I am short.\n\nQuestion 1?"]


def test_style_counts_what_a_reader_sees():
    replies = [("ada", "1. one\n2. two"), ("ada", "Shall we?"), ("bob", "A 3. here is no list."), ("bob", "Yes!")]
    assert style(replies) == {
        "ada": {"n": 2, "median_words": 3.0, "list": 0.5, "question": 0.5, "exclamation": 0.0},
        "bob": {"n": 2, "median_words": 3.5, "list": 0.0, "question": 0.0, "exclamation": 0.5},
    }


@pytest.mark.slow
def test_a_study_has_its_baseline_and_is_not_done_twice(tmp_path, model):
    """The command itself: run file in, report and plots out."""
    run = tiny_run(tmp_path, model, epochs=1, generate={"n_prompts": 2, "max_new_tokens": 4})
    stated = run.model_dump(mode="json", include=tiny_settings(run))
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(stated))
    out = tmp_path / "study"
    arguments = ["study", str(tmp_path / "tiny.yaml"), "--seeds", "2", "--out", str(out)]
    app(arguments, standalone_mode=False)
    written = {file.name for file in out.iterdir() if file.is_file()}
    assert {"report.md", "study.json", "users.png", "users.svg", "curves.svg", "confusion.svg"} <= written
    numbers = json.loads((out / "study.json").read_text())
    assert set(numbers) == {"tiny", "pooled"}
    assert len(numbers["tiny"]["mean"]) == 2
    steps = [len((out / name / "log.jsonl").read_text().splitlines()) for name in ("tiny-0", "pooled-0", "tiny-1")]
    assert len(set(steps)) == 1  # equal updates
    report = (out / "report.md").read_text()
    assert "| tiny |" in report
    assert "| pooled |" in report
    assert "2 seeds" in report
    assert len((out / "tiny-0" / "replies.jsonl").read_text().splitlines()) == 6
    evaluations = {folder: (out / folder / "evaluation.json").stat().st_mtime_ns for folder in ("tiny-0", "pooled-1")}
    app(arguments, standalone_mode=False)
    assert evaluations == {folder: (out / folder / "evaluation.json").stat().st_mtime_ns for folder in evaluations}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(stated | {"beta": 0.7}))
    with pytest.raises(CheckpointMismatch):
        app(arguments, standalone_mode=False)


def tiny_settings(run) -> set[str]:
    return run.model_fields_set - {"log_with"}
