"""Splits: nothing shared between the sides, nothing moved by what is added."""

from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from idiolect_training.config import RunConfig
from idiolect_training.data.preferences import Message, Preference, read_preferences
from idiolect_training.data.split import By, overlap, plain, split
from idiolect_training.errors import BadRunConfig
from tests.live import ROOT
from tests.parts.odd_files import line

SHARE = 0.3
WORDS = st.sampled_from([f"word {i}" for i in range(12)])
SEEDS = st.integers(0, 2**31 - 1)
BYS = st.sampled_from(["prompt", "user", "pair"])
HELD_OUT = {
    "prompt": ["u1", "u2", "u3", "u4", "u5", "u7", "u8", "u10"],
    "user": ["u1", "u3", "u4", "u6", "u7", "u8"],
    "pair": ["u2", "u3", "u11"],
}
"""Of twelve users at a share of 0.4, as first drawn."""


@st.composite
def preferences(draw: st.DrawFn) -> Preference:
    chosen, rejected = draw(st.lists(WORDS, min_size=2, max_size=2, unique=True))
    fields = {"user_id": draw(WORDS), "chosen": chosen, "rejected": rejected, "profile": draw(st.none() | WORDS)}
    prompt = draw(WORDS)
    if draw(st.booleans()):
        return Preference(**fields, prompt=prompt)
    turns = [Message(role="system", content=draw(WORDS)), Message(role="user", content=prompt)]
    later = [Message(role="assistant", content=draw(WORDS)), Message(role="user", content=draw(WORDS))]
    return Preference(**fields, messages=(*turns, *(later if draw(st.booleans()) else [])))


def key(preference: Preference, by: By) -> object:
    if by == "user":
        return preference.user_id
    if by == "pair":
        return frozenset((preference.chosen, preference.rejected))
    return preference.prompt or preference.messages[1].content


def sides(items: list[Preference], by: By, seed: int) -> tuple[list[Preference], list[Preference]]:
    try:
        return split(items, by, SHARE, seed)
    except BadRunConfig:
        assume(False)
        raise


@given(st.lists(preferences(), min_size=10, max_size=40), BYS, SEEDS)
def test_no_key_is_on_both_sides_and_nothing_is_lost(items: list[Preference], by: By, seed: int):
    train, test = sides(items, by, seed)
    assert not {key(p, by) for p in train} & {key(p, by) for p in test}
    held_out = {key(p, by) for p in test}
    assert train == [p for p in items if key(p, by) not in held_out]
    assert test == [p for p in items if key(p, by) in held_out]


@pytest.mark.slow
@given(
    st.lists(preferences(), min_size=10, max_size=40), st.lists(preferences(), max_size=20), BYS, SEEDS, st.randoms()
)
def test_what_is_added_moves_nothing(items: list[Preference], more: list[Preference], by: By, seed: int, random):
    train, test = sides(items, by, seed)
    everything = [*items, *more]
    random.shuffle(everything)
    later_train, later_test = split(everything, by, SHARE, seed)
    assert set(train) <= set(later_train)
    assert set(test) <= set(later_test)


def test_a_prompt_and_the_same_words_as_messages_go_together():
    for number in range(50):
        replies = {"user_id": "ada", "chosen": "a", "rejected": "b"}
        plain = Preference(**replies, prompt=f"Q{number}")
        chat = Preference(**replies, messages=(Message(role="user", content=f"Q{number}"),))
        with pytest.raises(BadRunConfig, match="empty"):
            split([plain, chat], "prompt", 0.5, 7)


def test_the_share_is_met_and_the_seed_matters():
    items = [Preference(user_id=f"u{i}", prompt=f"p{i}", chosen=f"a{i}", rejected=f"b{i}") for i in range(4000)]
    by_seed = []
    for by in ("prompt", "user", "pair"):
        for seed in (0, 1):
            _, test = split(items, by, 0.25, seed)
            assert len(test) == pytest.approx(1000, abs=110)  # four standard deviations
            by_seed.append({p.user_id for p in test})
    assert len(set(map(frozenset, by_seed))) == len(by_seed)


def test_where_an_item_falls_is_for_ever():
    items = [Preference(user_id=f"u{i}", prompt=f"p{i}", chosen=f"a{i}", rejected=f"b{i}") for i in range(12)]
    places = {by: [p.user_id for p in split(items, by, 0.4, 0)[1]] for by in ("prompt", "user", "pair")}
    assert places == HELD_OUT


VARIANTS = ["{}", " {}", "{}\n", "\u00a0{}\t ", "{}\r\n"]


def test_variants_of_a_prompt_are_on_one_side():
    """Of 200 prompts with white space around or within, composed or not."""
    texts = [(f"Caf\u00e9 {i}, please?", f"Cafe\u0301 {i},  \u2003please?") for i in range(200)]
    items = [
        Preference(user_id="ada", prompt=variant.format(text), chosen="a", rejected="b")
        for pair in texts
        for text in pair
        for variant in VARIANTS
    ]
    train, test = split(items, "prompt", SHARE, 0)
    assert not {plain(p.prompt or "") for p in train} & {plain(p.prompt or "") for p in test}
    assert len(test) % (2 * len(VARIANTS)) == 0


def test_variants_of_a_pair_are_on_one_side():
    for number in range(50):
        one = Preference(user_id="ada", prompt="Q", chosen=f"a {number}", rejected=f"b {number}")
        other = Preference(user_id="ada", prompt="Q", chosen=f"b  {number}\n", rejected=f" a\t{number}")
        with pytest.raises(BadRunConfig, match="empty"):
            split([one, other], "pair", 0.5, 7)
        assert overlap([one], [other]) == [other]


def test_the_demo_is_plain_and_so_keeps_its_places():
    for name in ("train", "test"):
        prompts = {p.prompt for p in read_preferences(ROOT / "training" / "runs" / "demo" / f"{name}.jsonl")}
        assert len(prompts) > 40
        assert all(prompt == plain(prompt) for prompt in prompts)


def test_users_who_lose_all_to_the_split_are_named(caplog: pytest.LogCaptureFixture):
    items = [Preference(user_id=f"u{i:02}", prompt=f"p{i}", chosen="a", rejected="b") for i in range(40)]
    _, test = split(items, "prompt", SHARE, 0)
    lost = [p.user_id for p in test]
    assert len(lost) > 5
    named = ", ".join(lost[:5])
    assert caplog.messages == [f"split by prompt: all comparisons of {len(lost)} users are held out: {named}, ..."]
    caplog.clear()
    split(items, "user", SHARE, 0)
    split([p.model_copy(update={"user_id": "ada"}) for p in items], "prompt", SHARE, 0)
    assert caplog.messages == []


def test_a_test_file_that_is_in_the_training_data_is_said_to_be(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    vote = {"user_id": "ada", "prompt": "Hi  there", "chosen": "a", "rejected": "b"}
    turned = {"user_id": "zoe", "messages": [{"role": "user", "content": "Hi there\n"}], "chosen": "b", "rejected": "a"}
    others = [vote | {"prompt": "Hi where"}, vote | {"chosen": "c"}]
    (tmp_path / "train.jsonl").write_bytes(line(vote))
    (tmp_path / "test.jsonl").write_bytes(b"".join(map(line, [*others, turned])))
    run = RunConfig(train=tmp_path / "train.jsonl", test=tmp_path / "test.jsonl")
    train, test = run.data()
    assert overlap(train, test) == [test[2]]
    place = f"{tmp_path / 'test.jsonl'}:3"
    assert caplog.messages == [f"1 of 3 test comparisons are in the training data, too: {place}"]
    caplog.clear()
    (tmp_path / "test.jsonl").write_bytes(b"".join(map(line, others)))
    run.data()
    assert caplog.messages == []


@pytest.mark.parametrize(("share", "side"), [(0.0, "test"), (1.0, "training")])
def test_an_empty_side_is_an_error(share: float, side: str):
    items = [Preference(user_id="ada", prompt=str(i), chosen="a", rejected="b") for i in range(20)]
    with pytest.raises(BadRunConfig, match=f"split by prompt: 20 comparisons leave the {side} side empty"):
        split(items, "prompt", share, 0)
    with pytest.raises(BadRunConfig, match="split by user"):
        split(items, "user", 0.5, 0)
    with pytest.raises(BadRunConfig, match="0 comparisons"):
        split([], "user", 0.5, 0)
