"""From comparisons to pairs: what is left out on the way is counted and named, and both replies end alike."""

import logging
from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from idiolect.prompt.end_mark import end_marks
from idiolect.prompt.layout import Layout
from idiolect_training.data.preferences import Preference
from idiolect_training.errors import BadPreference
from idiolect_training.evaluate.evaluate import evaluate
from idiolect_training.fit.batch import tokenize
from idiolect_training.fit.loop import fit
from tests.parts.odd_files import line
from tests.parts.tiny import tiny_model, tiny_run

NOWHERE = Layout(placement="after_bos", anchor=(1,))
LONG = {"prompt": "Why? " * 60}


@pytest.fixture
def tokenizer(model_path: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(model_path)


def votes(*changes: dict[str, str]) -> list[Preference]:
    """One good comparison at place 1, and one for each of the changes."""
    good = {"user_id": "ada", "prompt": "Hi", "chosen": "yes", "rejected": "no"}
    return [Preference(**{**good, **change}).at(f"v:{n}") for n, change in enumerate([{}, *changes], start=1)]


def read(tokenizer, preferences, bad_lines="stop", max_reply_tokens=8):
    return tokenize(preferences, tokenizer, NOWHERE, {"ada": 1}, 64, max_reply_tokens, bad_lines)


def test_a_long_prompt_is_a_bad_line_like_any_other(tokenizer, caplog):
    with pytest.raises(BadPreference, match=r"^v:2: prompt has \d+ tokens, more than max_prompt_tokens"):
        read(tokenizer, votes(LONG, {}))
    kept, pairs = read(tokenizer, votes(LONG, {}), "skip")
    assert [preference.source for preference in kept] == ["v:1", "v:3"]
    assert [pair.index for pair in pairs] == [0, 1]
    assert caplog.messages[0].startswith("skipped v:2: prompt has")
    assert "comparisons: skipped 1 bad lines of 3" in caplog.messages


def test_what_the_template_refuses_is_a_bad_line(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('roles must alternate') if messages[0].content == 'No' else 'x' }}"
    refused = votes({"prompt": "No"})
    with pytest.raises(BadPreference, match=r"^v:2: the chat template .*: roles must alternate"):
        tokenize(refused, tokenizer, NOWHERE, {}, 64, 8)
    assert len(tokenize(refused, tokenizer, NOWHERE, {}, 64, 8, "skip")[1]) == 1


EQUAL = [
    {"chosen": "word " * 20 + "yes", "rejected": "word " * 20 + "no"},
    {"chosen": "caf\u00e9", "rejected": "cafe\u0301"},
    {"chosen": "\uac00", "rejected": "\u1100\u1161"},
    {"chosen": "yes<|im_end|>", "rejected": "yes"},
    {"chosen": "yes<|im_end|>\n", "rejected": "yes<|im_end|> <|im_end|>"},
]


@pytest.mark.parametrize("same", EQUAL)
def test_replies_that_are_equal_in_the_end_prefer_nothing(tokenizer, caplog, same):
    kept, pairs = read(tokenizer, votes(same, {}))
    assert [preference.source for preference in kept] == ["v:1", "v:3"]
    assert len(pairs) == 2
    (told,) = [message for message in caplog.messages if message.startswith("left out 1 of 3 comparisons")]
    assert told.endswith(": v:2")


def test_only_the_first_few_places_are_named_and_nothing_left_is_an_error(tokenizer, caplog):
    read(tokenizer, votes(*EQUAL, *EQUAL))
    assert any(text.endswith(": v:2, v:3, v:4, v:5, v:6, ...") for text in caplog.messages)
    with pytest.raises(BadPreference, match=r"^v:2, v:3, .*no comparison is left"):
        read(tokenizer, votes(*EQUAL)[1:])
    assert read(tokenizer, []) == ([], [])


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", "<|im_end|><|im_end|>", "<|im_end|>\n<|im_end|> "])
def test_a_mark_that_a_reply_brings_is_taken_off(tokenizer, caplog, end):
    caplog.set_level(logging.INFO)
    kept, (plain, marked) = read(tokenizer, votes({"chosen": "yes" + end}))
    assert plain.chosen_ids == marked.chosen_ids
    assert kept[1].chosen == "yes"
    assert "and 1 lost a mark of their end" in caplog.text


def test_a_mark_elsewhere_stays_and_a_reply_of_nothing_else_is_a_bad_line(tokenizer):
    kept, _ = read(tokenizer, votes({"chosen": "a<|im_end|>b ", "rejected": "end\n"}))
    assert (kept[1].chosen, kept[1].rejected) == ("a<|im_end|>b ", "end\n")
    with pytest.raises(BadPreference, match="v:2: a reply is nothing but the mark of its end"):
        read(tokenizer, votes({"rejected": "<|im_end|>\n"}))


def test_the_marks_are_the_templates_and_the_end_token(tokenizer):
    assert end_marks(tokenizer) == ("<|im_end|>",)
    tokenizer.eos_token = "<|endoftext|>"
    assert end_marks(tokenizer) == ("<|endoftext|>", "<|im_end|>")
    turn = "{% for m in messages %}{{ m.content }}"
    for written, marks in (
        ("</turn>\n", {"</turn>"}),
        ("<|im_end|>\n<|endoftext|>", {"<|im_end|>\n<|endoftext|>", "<|im_end|>"}),
        ("\n", set()),
    ):
        tokenizer.chat_template = turn + "{% if m.role == 'assistant' %}{{ '" + written + "' }}{% endif %}{% endfor %}"
        assert set(end_marks(tokenizer)) == {"<|endoftext|>", *marks}
    tokenizer.chat_template = "{{ raise_exception('no assistant') }}"
    assert end_marks(tokenizer) == ("<|endoftext|>",)


def test_the_number_of_cut_replies_is_told(tokenizer, caplog):
    caplog.set_level(logging.INFO)
    read(tokenizer, votes({"chosen": "long " * 9, "rejected": "longer " * 9}, {"chosen": "long " * 9}))
    assert "3 comparisons; of their replies 3 were cut at max_reply_tokens" in caplog.text


def test_a_run_goes_on_without_what_is_left_out(tmp_path, model_path, caplog):
    run = tiny_run(tmp_path, tiny_model(tmp_path / "model", model_path), bad_lines="skip", max_prompt_tokens=64)
    more = [{**EQUAL[1], "user_id": "mute", "prompt": "Hi"}, {"user_id": "a", "chosen": "a", "rejected": "b", **LONG}]
    run.train.write_bytes(b"".join(map(line, more)) + run.train.read_bytes())
    policy = fit(run, tmp_path / "out")
    assert "2 users have no comparison left, and stay generic: a, mute" in caplog.messages
    found, _ = evaluate(run, policy, {"a": 1, "long": 2, "mute": 3, "short": 4})
    assert (found["n_pairs"], found["left_out"], found["n_users"]) == (12, 2, 2)
    assert found["in_training"] == 14  # the test file is the training file
