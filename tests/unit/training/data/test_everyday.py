"""The data set data/everyday, checked as its README says: form, length, duplicates, shortcuts, spelling."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from spellchecker import SpellChecker
from transformers import AutoTokenizer

from idiolect_training.data import everyday
from idiolect_training.data.everyday import AXES, REPLIES, TASTES, Row, read, shared, taste_of

ITEM = re.compile(r"^(- |\d\. )")
WORDS = REPLIES.with_name("words.txt")
"""What the spelling dictionary does not know and people do."""


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read()


@pytest.fixture(scope="module")
def texts(rows) -> list[tuple[str, str]]:
    """(taste, reply)."""
    return [(taste, text) for row in rows for taste, text in row["replies"].items()]


def test_there_are_enough_prompts_of_every_form_and_none_twice(rows):
    assert len(rows) >= 300
    assert {row["split"] for row in rows} == {"train", "test"}
    assert len({re.sub(r"\W+", " ", row["prompt"].lower()).strip() for row in rows}) == len(rows)
    forms = Counter(row["form"] for row in rows)
    assert set(forms) == {"question", "advice", "explanation", "writing", "small talk"}
    assert min(forms.values()) >= 40


def test_every_reply_shows_its_taste_and_is_plain_text(rows):
    for row in rows:
        assert tuple(row["replies"]) == TASTES
        for taste, text in row["replies"].items():
            assert taste_of(text) == taste, text
            assert text.isascii()
            assert text == text.strip()
            items = [line for line in text.split("\n") if ITEM.match(line)]
            assert len(items) in (range(2, 6) if "-list-" in taste else (0,)), text
            assert "\n\n" not in text
            assert "list" in taste or "\n" not in text


def test_replies_have_15_to_70_tokens(texts, model_path):
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    lengths = {text: len(tokenizer.encode(text, add_special_tokens=False)) for _, text in texts}
    assert not {text: n for text, n in lengths.items() if not 15 <= n <= 70}


def test_no_reply_repeats_another_or_begins_like_its_neighbors(rows, texts):
    assert len({text for _, text in texts}) == len(texts)
    for row in rows:
        openings = Counter(" ".join(text.lower().split()[:3]) for text in row["replies"].values())
        assert max(openings.values()) == 1, row["prompt"]
        assert not any(a != b and b.startswith(a) for a in row["replies"].values() for b in row["replies"].values())


def test_no_sentence_is_a_formula(texts):
    sentences = Counter(
        sentence for _, text in texts for sentence in set(re.split(r"(?<=[.!?:])\s+", text.lower())) if "!" in sentence
    )
    assert max(sentences.values()) <= 4, sentences.most_common(3)


@pytest.mark.parametrize("axis", range(len(AXES)))
def test_the_first_word_does_not_give_a_taste_away(rows, axis):
    """The best guess of a taste from the first word, learnt on other prompts, is right in at most 70 % of replies.

    A list whose first word is its dash is no shortcut but the taste itself: those are left out.
    """
    seen: Counter[tuple[str, str]] = Counter()
    samples = {"train": [], "test": []}
    for row in rows:
        for taste, text in row["replies"].items():
            if not ITEM.match(text):
                samples[row["split"]].append((text.split()[0].lower(), taste.split("-")[axis]))
    seen.update(samples["train"])
    prior = Counter(word for _, word in samples["train"]).most_common(1)[0][0]

    def guess(first: str) -> str:
        one, other = AXES[axis]
        if seen[first, one] == seen[first, other]:
            return prior
        return one if seen[first, one] > seen[first, other] else other

    right = sum(guess(first) == word for first, word in samples["test"]) / len(samples["test"])
    assert right <= 0.7, right


def test_words_are_spelt_as_people_spell_them(rows):
    checker = SpellChecker()
    checker.word_frequency.load_words(WORDS.read_text().split())
    words = {
        word.lower().strip("'").removesuffix("'s")
        for row in rows
        for text in (row["prompt"], *row["replies"].values())
        for word in re.findall(r"[A-Za-z][A-Za-z']*", text)
    }
    assert not checker.unknown(words)


def test_comparisons_of_the_demo_run_are_made_from_it(tmp_path: Path):
    everyday.main(tmp_path)
    run = Path(everyday.__file__).parents[2] / "runs" / "demo"
    for name in ("train.jsonl", "test.jsonl"):
        assert (tmp_path / name).read_text() == (run / name).read_text()
    prompts = [{json.loads(line)["prompt"] for line in (tmp_path / f"{n}.jsonl").open()} for n in ("train", "test")]
    assert not prompts[0] & prompts[1]


def test_a_rule_user_prefers_the_reply_that_shares_more(rows):
    assert shared("short-list-warm", "thorough-prose-plain") == 0
    for votes in (everyday.train_votes(5, rows[0]), everyday.test_votes(5, rows[0])):
        for vote in votes:
            taste = vote["user_id"].rsplit("-", 1)[0]
            assert shared(taste, taste_of(vote["chosen"])) > shared(taste, taste_of(vote["rejected"]))
