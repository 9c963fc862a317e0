"""Published forms: small files written as published, and the real data where it lies beside the repository."""

import gzip
import json
import logging
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from idiolect.learning import MAX_DAILY_VOTES
from idiolect_training.data.formats import FORMATS, Format, anthropic_persona, p_soups, read_format, tldr
from idiolect_training.data.preferences import Preference
from idiolect_training.data.split import split
from idiolect_training.errors import BadPreference
from tests.live import ROOT

DATA = Path(__file__).parents[5] / "shared" / "data"


def real(name: str) -> Path:
    if not (DATA / name).is_dir():
        pytest.skip(f"the {name} data are not at {DATA / name}")
    return DATA / name


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.open(path)]


def write(path: Path, *lines: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(line) + "\n" for line in lines)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_every_form_has_a_reader():
    assert set(get_args(Format)) == FORMATS.keys()


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_place_without_data_is_an_error(tmp_path: Path, name: Format):
    for path in (tmp_path / "absent", tmp_path, write(tmp_path / "file.jsonl", {"not": "it"})):
        with pytest.raises(BadPreference, match=str(path)):
            read_format(name, path)


FILES = {
    "jsonl": ("x.jsonl",),
    "tldr": ("x.json",),
    "feedback": ("x.ndjson",),
    "p_soups": tuple(f"x/{user}.json" for user in p_soups.SENTENCES),
    "prism": ("x/survey.jsonl", "x/conversations.jsonl"),
    "llmfao": ("x/prompts.jsonl", "x/responses.jsonl", "x/labels.jsonl"),
    "ukp_convarg": ("x/topics.jsonl", "x/arguments.jsonl", "x/pairs.jsonl", "x/labels.jsonl"),
    "anthropic_persona": ("x/statements.jsonl",),
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@pytest.mark.parametrize("name", sorted(FORMATS))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=40)
@given(content=st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_rubbish_is_refused_with_its_file(tmp_path: Path, name: Format, content: bytes):
    for file in FILES[name]:
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_bytes(content)
    for bad_lines in ("stop", "skip"):
        with pytest.raises(BadPreference, match=str(tmp_path)):
            read_format(name, tmp_path / FILES[name][0].split("/")[0], bad_lines)


# TL;DR


def comparison(worker: str, first: str, second: str, split: str = "train", **more: Any) -> dict[str, Any]:
    """A line as openai/summarize-from-feedback publishes it."""
    policies = more.pop("policies", ("sup2", "sup4"))
    info = {"id": "t3_1", "post": "I lost my cat.", "title": "Cat", "subreddit": "pets"}
    return {
        "info": more.pop("info", info),
        "summaries": [
            {"text": text, "policy": policy, "note": None}
            for text, policy in zip((first, second), policies, strict=True)
        ],
        "choice": 0,
        "worker": worker,
        "batch": "batch9",
        "split": split,
        "extra": {"confidence": 8},
    } | more


def tldr_folder(folder: Path) -> Path:
    """Twelve annotators w01 to w12, the first with most training pairs; each pair is (long, short)."""
    lines = []
    for rank in range(1, 13):
        lines += [comparison(f"w{rank:02}", f" a long one {i}", f" short {i}") for i in range(20 - rank)]
        lines += [comparison(f"w{rank:02}", f" a long one {i}", f" short {i}", "valid2") for i in range(2)]
    lines += [comparison("w11", f" a long one {i}", f" short {i}", "valid1") for i in range(40)]
    # Were these or w11's validation pairs counted, the tastes of everybody would shift.
    lines += [comparison("w12", "aa", "b", policies=("sup4_ppo_rm3_kl10", "sup4"))] * 90
    lines += [comparison("w12", "aa", "b", policies=("sup4", "ref"))] * 90
    article = {"id": "1", "site": "dailymail", "title": "News", "article": "It rained."}
    lines += [comparison("w12", "aa", "b", "valid1", policies=("cnndm_sup1", "sup2"), info=article)] * 90
    write(folder / "batch3.json", *lines[::2])
    write(folder / "batch22.json.gz", *lines[1::2])
    return folder


def test_tldr_users_are_the_papers(tmp_path: Path):
    preferences = read_format("tldr", tldr_folder(tmp_path / "comparisons"))
    taste = defaultdict(set)
    for preference in preferences:
        taste[preference.user_id].add("shorter" if len(preference.chosen) < len(preference.rejected) else "longer")
    shorter = {"w04", "w05", "w06"}
    assert taste == {f"w{i:02}": {"shorter" if f"w{i:02}" in shorter else "longer"} for i in range(1, 11)}
    assert Counter(p.user_id for p in preferences) == {f"w{i:02}": 20 - i for i in range(1, 11)}
    assert preferences[0].prompt == "SUBREDDIT: r/pets\nTITLE: Cat\nPOST: I lost my cat.\nTL;DR:"
    assert tldr.prefers_shorter(10) == [False] * 3 + [True] * 3 + [False] * 4


def test_tldr_validation_has_strangers_too(tmp_path: Path):
    preferences = tldr.read(tldr_folder(tmp_path / "comparisons"), part="validation")
    assert Counter(p.user_id for p in preferences) == {f"w{i:02}": 42 if i == 11 else 2 for i in range(1, 13)}


def test_tldr_length_is_in_characters_and_the_first_wins_a_draw(tmp_path: Path):
    lines = [
        comparison("ada", " a b c d", " incomprehensibilities"),
        comparison("ada", " same", " size"),
        comparison("ada", " twin", " twin"),
        comparison("ada", "", " empty"),
    ]
    preferences = read_format("tldr", write(tmp_path / "batch3.json", *lines))
    assert [p.chosen for p in preferences] == [" incomprehensibilities", " same"]


def test_tldr_bad_lines(tmp_path: Path):
    good = comparison("ada", "long", "s")
    for bad, reason in (
        (good | {"summaries": good["summaries"][:1]}, "summaries"),
        (good | {"worker": ""}, "worker"),
        (good | {"worker": "x/profile"}, "worker"),
        (good | {"info": {"post": "a\f"}}, "info.post"),
        (comparison("w01", "c\x7f", "d"), "summaries.0.text"),
        (good | {"split": "test"}, "split"),
        (good | {"info": {"id": "1", "title": "t"}}, "neither post nor article"),
    ):
        path = write(tmp_path / "batch3.json", good, bad)
        with pytest.raises(BadPreference, match=f"batch3.json:2: .*{reason}"):
            read_format("tldr", path)
        assert len(read_format("tldr", path, "skip")) == 1


# Personalized Soups


def soups_folder(folder: Path, as_array: bool) -> Path:
    for user_id, sentence in p_soups.SENTENCES.items():
        row = {"user_input": f"Why is the sky blue? {sentence}", "completion_a": f"for {user_id}", "completion_b": "no"}
        items = [row, row, row | {"completion_b": "for " + user_id}, row | {"completion_a": "other"}]
        path = folder / f"{user_id}.json"
        write(path, items) if as_array else write(path, *items)
    return folder


@pytest.mark.parametrize("as_array", [True, False])
def test_p_soups(tmp_path: Path, as_array: bool, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    folder = soups_folder(tmp_path / "rm_training", as_array)
    preferences = read_format("p_soups", folder)
    assert Counter(p.user_id for p in preferences) == dict.fromkeys(("P1A", "P1B", "P2A", "P2B", "P3A", "P3B"), 2)
    assert {p.prompt for p in preferences} == {"Why is the sky blue?"}
    assert preferences[0].chosen == "for P1A"
    assert preferences[0].source == f"{folder}/P1A.json:{'item ' if as_array else ''}1"
    assert "12 comparisons by 6 users; left out: 6 duplicates, 6 identical replies" in caplog.text


def test_p_soups_bad_rows(tmp_path: Path):
    folder = soups_folder(tmp_path, as_array=True)
    items = json.loads((folder / "P2A.json").read_text())
    write(folder / "P2A.json", [*items, {"user_input": 7}])
    with pytest.raises(BadPreference, match=r"P2A\.json:item 5: user_input: "):
        read_format("p_soups", folder)
    assert len(read_format("p_soups", folder, "skip")) == 12
    (folder / "P2A.json").write_text('[{"user_input": "a", "user_input": "b"}]')
    with pytest.raises(BadPreference, match=r"P2A\.json: user_input: given twice"):
        read_format("p_soups", folder, "skip")
    (folder / "P2A.json").write_text('[{"user_input": "a"')
    with pytest.raises(BadPreference, match=r"P2A\.json: "):
        read_format("p_soups", folder, "skip")
    (folder / "P2A.json").unlink()
    with pytest.raises(BadPreference, match=r"P2A\.json: No such file"):
        read_format("p_soups", folder, "skip")


# PRISM

ANSWERS = {
    "user_id": "user0",
    "survey_only": False,
    "num_completed_conversations": 6,
    "consent": "Yes, I consent to take part",
    "lm_familiarity": "Somewhat familiar",
    "self_description": "Family first.",
    "system_string": "Be kind.",
    "age": "25-34 years old",
    "gender": "Female",
    "employment_status": "Working full-time",
    "education": "Vocational",
    "marital_status": "Never been married",
    "english_proficiency": "Native speaker",
    "study_id": "x",
    "religion": {"self_described": "none", "categorised": "Non-religious", "simplified": "No Affiliation"},
    "location": {"birth_country": "Chile", "special_region": "Latin America and the Caribbean"},
    "lm_usecases": {"homework_assistance": 1, "other_text": None},
    "stated_prefs": {
        "values": 10,
        "creativity": 81,
        "fluency": 74,
        "factuality": 100,
        "diversity": 81,
        "safety": None,
        "personalisation": 5.5,
        "helpfulness": 99,
        "other": 100,
        "other_text": "short",
    },
    "order_stated_prefs": {
        "values": 1,
        "creativity": 4,
        "fluency": 2,
        "factuality": 5,
        "diversity": 6,
        "safety": 7,
        "personalisation": 3,
        "helpfulness": 8,
        "other": 9,
    },
    "included_in_balanced_subset": True,
}


def said(turn: int, content: str, chosen: bool | None = None) -> dict[str, Any]:
    """An utterance of conversation_history, by the user when nothing could be chosen."""
    is_user = chosen is None
    return {
        "turn": turn,
        "role": "user" if is_user else "model",
        "content": content,
        "model_provider": None if is_user else "cohere",
        "model_name": None if is_user else "command",
        "score": None if is_user else 40,
        "if_chosen": chosen,
        "within_turn_id": None if is_user else 0,
    }


HISTORY = [
    said(0, "Hello?"),
    said(0, "Hi.", False),
    said(0, "Hello!", True),
    said(0, "EMPTY STRING", False),
    said(0, "Yes?", False),
    said(1, "What is rain?"),
    said(1, "Water.", True),
    said(1, "Rain is water.", False),
    said(2, "And snow?"),
    said(2, "Ice.", True),
    said(2, "Ice.", True),
]


def conversation(**more: Any) -> dict[str, Any]:
    return {
        "conversation_id": "c0",
        "user_id": "user0",
        "included_in_balanced_subset": True,
        "conversation_type": "unguided",
        "opening_prompt": "Hello?",
        "conversation_turns": 3,
        "conversation_history": HISTORY,
        "performance_attributes": {"values": 50, "fluency": None},
        "choice_attributes": {"values": 50},
        "open_feedback": "fine",
        "generated_datetime": "2023-11-28 16:39:33",
        "timing_duration_s": 456.38,
        "timing_duration_mins": 7.61,
    } | more


# By stated_prefs; the three that order_stated_prefs has first are those which the survey showed first.
PROFILE = (
    "preference: factuality, helpfulness, creativity; self_description: Family first.; age: 25-34 years old; "
    "gender: Female; education: Vocational; employment: Working full-time; marital: Never been married; "
    "english_proficiency: Native speaker"
)


def prism_folder(folder: Path, *conversations: object) -> Path:
    silent = ANSWERS | {"user_id": "user1", "survey_only": True, "self_description": "EMPTY STRING"}
    write(folder / "survey.jsonl", ANSWERS, silent)
    write(folder / "conversations.jsonl.gz", *conversations)
    return folder


def test_prism_pairs_context_and_profile(tmp_path: Path):
    preferences = read_format("prism", prism_folder(tmp_path, conversation()))
    assert [(p.chosen, p.rejected) for p in preferences] == [
        ("Hello!", "Hi."),
        ("Hello!", "Yes?"),
        ("Water.", "Rain is water."),
    ]
    assert preferences[2].turns() == [
        {"role": "user", "content": "Hello?"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "What is rain?"},
    ]
    assert {(p.user_id, p.profile) for p in preferences} == {("user0", PROFILE)}
    assert preferences[2].chat()[0]["content"] == f"About me: {PROFILE}\n\nHello?"


def test_prism_stops_where_nothing_was_chosen(tmp_path: Path):
    unchosen = [u | {"if_chosen": False} if u["turn"] == 1 and u["role"] == "model" else u for u in HISTORY]
    preferences = read_format("prism", prism_folder(tmp_path, conversation(conversation_history=unchosen)))
    assert [p.rejected for p in preferences] == ["Hi.", "Yes?"]


def test_prism_bad_lines(tmp_path: Path):
    for bad, reason in (
        (conversation(user_id="user9"), "user_id: user9 is not known"),
        (conversation(conversation_history=[said(0, "x") | {"role": "system"}]), "conversation_history.0.role"),
        (conversation(conversation_history=None), "conversation_history"),
    ):
        folder = prism_folder(tmp_path, conversation(), bad)
        with pytest.raises(BadPreference, match=f"conversations.jsonl.gz:2: {reason}"):
            read_format("prism", folder)
        assert len(read_format("prism", folder, "skip")) == 3


# Votes over stored replies: LLMFAO and UKPConvArg


def llmfao_folder(folder: Path, *labels: dict[str, Any]) -> Path:
    write(folder / "prompts.jsonl", {"id": 8, "text": "A haiku?", "type": "reflexion", "slug": "k8s"})
    texts = ("one", "two", "two", "")
    responses = [{"prompt": 8, "model": i, "model_name": f"M{i}", "text": text} for i, text in enumerate(texts)]
    write(folder / "responses.jsonl.gz", *responses)
    write(folder / "labels.jsonl.gz", *labels)
    return folder


def label(a: int, b: int, choice: str, **more: Any) -> dict[str, Any]:
    return {"pair_id": 0, "prompt": 8, "model_a": a, "model_b": b, "user": "w1", "choice": choice} | more


def test_llmfao(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    labels = [label(0, 1, "a"), label(0, 1, "b"), label(0, 1, "tie"), label(1, 2, "a"), label(3, 0, "b")]
    preferences = read_format("llmfao", llmfao_folder(tmp_path, *labels))
    assert preferences == [
        Preference(user_id="w1", prompt="A haiku?", chosen=chosen, rejected=rejected, kind=kind)
        for chosen, rejected, kind in (
            ("one", "two", "comparison"),
            ("two", "one", "comparison"),
            ("one", "two", "tie"),
        )
    ]
    assert preferences[1].source == f"{tmp_path}/labels.jsonl.gz:2"
    assert "3 comparisons, of which 1 ties, by 1 users; left out: 1 empty replies, 1 identical replies" in caplog.text


def test_llmfao_bad_lines(tmp_path: Path):
    for bad, reason in (
        (label(0, 9, "a"), r"model_b: \(8, 9\) is not known"),
        (label(0, 1, "a", prompt=1), "prompt: 1 is not known"),
        (label(0, 1, "c"), "choice"),
        (label(0, 1, "a", user=""), "user"),
    ):
        folder = llmfao_folder(tmp_path, label(0, 1, "a"), bad)
        with pytest.raises(BadPreference, match=f"labels.jsonl.gz:2: {reason}"):
            read_format("llmfao", folder)
        assert len(read_format("llmfao", folder, "skip")) == 1


def test_only_identical_replies_are_no_comparisons(tmp_path: Path):
    with pytest.raises(BadPreference, match="no comparison"):
        read_format("llmfao", llmfao_folder(tmp_path, label(1, 2, "tie")))


def test_llmfao_as_stored():
    folder = real("llmfao")
    text = {(row["prompt"], row["model"]): row["text"] for row in rows(folder / "responses.jsonl.gz")}
    usable = [
        row
        for row in rows(folder / "labels.jsonl.gz")
        if text[row["prompt"], row["model_a"]]
        and text[row["prompt"], row["model_b"]]
        and text[row["prompt"], row["model_a"]] != text[row["prompt"], row["model_b"]]
    ]
    preferences = read_format("llmfao", folder)
    assert len(preferences) == len(usable) > 5000
    assert sum(p.kind == "tie" for p in preferences) / len(usable) == pytest.approx(0.396, abs=0.001)
    assert Counter(p.user_id for p in preferences) == Counter(row["user"] for row in usable)
    assert len({p.prompt for p in preferences}) == 13
    for preference, row in zip(preferences, usable, strict=True):
        a, b = text[row["prompt"], row["model_a"]], text[row["prompt"], row["model_b"]]
        assert (preference.chosen, preference.rejected) == ((b, a) if row["choice"] == "b" else (a, b))
        assert (preference.kind == "tie") == (row["choice"] == "tie")


@pytest.mark.slow
def test_ukp_convarg_as_stored():
    folder = real("ukp_convarg")
    text = {row["arg_id"]: row["text"] for row in rows(folder / "arguments.jsonl.gz")}
    pairs = {row["pair_id"]: row for row in rows(folder / "pairs.jsonl.gz")}
    topics = {row["topic_id"]: row for row in rows(folder / "topics.jsonl.gz")}
    assert (len(text), len(pairs), len(topics)) == (1052, 16927, 32)
    usable = []
    for row in rows(folder / "labels.jsonl.gz"):
        pair = pairs[row["pair_id"]]
        if text[pair["arg_a"]] != text[pair["arg_b"]]:
            usable.append((row, pair))
    preferences = read_format("ukp_convarg", folder)
    assert len(preferences) == len(usable) > 50_000
    assert len({p.user_id for p in preferences}) == len({row["user"] for row, _ in usable}) > 3000
    assert len({p.prompt for p in preferences}) == 32
    for preference, (row, pair) in zip(preferences, usable, strict=True):
        topic = topics[pair["topic_id"]]
        assert preference.prompt == f"{topic['topic']}: {topic['stance']}"
        assert preference.chosen == text[pair["arg_b" if row["choice"] == "b" else "arg_a"]]
        assert (preference.kind == "tie") == (row["choice"] == "tie")


def test_ukp_convarg_names_the_bad_line(tmp_path: Path):
    write(tmp_path / "topics.jsonl", {"topic_id": 0, "topic": "Bottles", "stance": "No", "file": "b_no"})
    arguments = [{"arg_id": f"0:arg{i}", "topic_id": 0, "text": f"because {i}", "votes_up": 3} for i in range(2)]
    write(tmp_path / "arguments.jsonl", *arguments)
    pairs = [{"pair_id": i, "topic_id": i, "arg_a": "0:arg0", "arg_b": f"0:arg{1 + i}"} for i in range(2)]
    write(tmp_path / "pairs.jsonl", *pairs)
    vote = {"pair_id": 0, "user": "u3", "choice": "b", "stance": None, "day": "2016-01-31"}
    write(tmp_path / "labels.jsonl", vote, vote | {"choice": "tie"})
    expected = Preference(user_id="u3", prompt="Bottles: No", chosen="because 1", rejected="because 0")
    tie = Preference(user_id="u3", prompt="Bottles: No", chosen="because 0", rejected="because 1", kind="tie")
    assert read_format("ukp_convarg", tmp_path) == [expected, tie]
    for bad, reason in (({"pair_id": 7}, "pair_id: 7 is not known"), ({"pair_id": 1}, "topic_id: 1 is not known")):
        write(tmp_path / "labels.jsonl", vote, vote | bad)
        with pytest.raises(BadPreference, match=f"labels.jsonl:2: {reason}"):
            read_format("ukp_convarg", tmp_path)


# Persona users


def persona_folder(folder: Path) -> Path:
    statements = [
        {"persona": persona, "statement": f"{'I do' if matches else 'I never do'} {persona} {i}", "matches": matches}
        for persona in ("art", "music", "sports")
        for matches in (True, False)
        for i in range(20)
    ]
    statements += [{"persona": "music", "statement": f"I do art {i}", "matches": False} for i in range(20)]  # again
    write(folder / "statements.jsonl.gz", *(row | {"conf": 0.97} for row in statements))
    return folder


def simulate(folder: Path, n_users: int = 8, n_votes: int = 30, seed: int = 0) -> list[Preference]:
    personas, mixtures = (
        ("art", "music", "sports"),
        (("art",), ("music", "sports"), ("art", "music", "sports"), ("music",)),
    )
    return anthropic_persona.simulate_persona_users(folder, personas, mixtures, n_users, n_votes, seed)


def test_persona_users_vote_by_what_they_hold(tmp_path: Path):
    preferences = simulate(persona_folder(tmp_path))
    assert Counter(p.user_id for p in preferences) == dict.fromkeys(
        [f"{held}-{n}" for n in (1, 2) for held in ("art", "music+sports", "art+music+sports", "music")], 30
    )
    for preference in preferences:
        persona = preference.chosen.split()[-2]
        assert persona == preference.rejected.split()[-2]
        held = persona in preference.user_id.split("-")[0].split("+")
        assert preference.chosen.startswith("I do") is held
        assert preference.rejected.startswith("I never do") is held


def test_persona_questions_are_shared_by_a_round_and_no_statement_by_two_questions(tmp_path: Path):
    folder = persona_folder(tmp_path)
    asked = defaultdict(list)
    for preference in simulate(folder):
        asked[preference.user_id].append((frozenset((preference.chosen, preference.rejected)), preference.prompt))
    assert all(len(set(own)) == 30 for own in asked.values())
    for one, other in pairwise(asked):
        assert (asked[one] == asked[other]) == (one[-1] == other[-1])
    everything = simulate(folder, n_users=1, n_votes=60)
    assert len({text for p in everything for text in (p.chosen, p.rejected)}) == 2 * 60


def test_persona_users_depend_on_the_seed_alone(tmp_path: Path):
    folder = persona_folder(tmp_path)
    assert simulate(folder) == simulate(folder)
    assert simulate(folder) != simulate(folder, seed=1)
    assert simulate(folder, n_users=12)[: 8 * 30] == simulate(folder)


def test_impossible_persona_worlds_are_refused(tmp_path: Path):
    folder = persona_folder(tmp_path)
    for personas, mixtures, n_votes, reason in (
        (("art",), (("music",),), 5, "music is not among the personas"),
        (("chess",), (("chess",),), 5, "persona: chess lacks statements"),
        (("art",), (("art",),), 21, "21 is more than the 20 questions"),
    ):
        with pytest.raises(BadPreference, match=reason):
            anthropic_persona.simulate_persona_users(folder, personas, mixtures, 3, n_votes, 0)


def test_the_default_persona_world_leaves_a_pooled_model_at_half():
    folder = real("anthropic_persona")
    stored = rows(folder / "statements.jsonl.gz")
    assert set(Counter(row["persona"] for row in stored).values()) == {1000}
    persona_of = {row["statement"]: row["persona"] for row in stored if row["persona"] in anthropic_persona.PERSONAS}
    matches = {row["statement"]: row["matches"] for row in stored if row["persona"] in anthropic_persona.PERSONAS}
    preferences = read_format("anthropic_persona", folder)
    assert len(preferences) == 56 * 100
    assert set(Counter(p.user_id for p in preferences).values()) == {100}
    wins: dict[frozenset[str], Counter[str]] = defaultdict(Counter)
    for preference in preferences:
        assert persona_of[preference.chosen] == persona_of[preference.rejected]
        assert matches[preference.chosen] != matches[preference.rejected]
        held = preference.user_id.rpartition("-")[0].split("+")
        assert matches[preference.chosen] == (persona_of[preference.chosen] in held)
        wins[frozenset((preference.chosen, preference.rejected))][preference.chosen] += 1
    # Whoever knows all votes, but not whose they are, is right on exactly half of each question's.
    assert all(len(set(votes.values())) == 1 and len(votes) == 2 for votes in wins.values())
    train, test = split(preferences, "pair", 0.2, 0)
    assert not {t for p in train for t in (p.chosen, p.rejected)} & {t for p in test for t in (p.chosen, p.rejected)}


# The service's own export

STORED = {
    "user_id": "ada",
    "messages": [{"role": "user", "content": "Hi"}],
    "profile": None,
    "chosen": "a",
    "rejected": "b",
    "generation_id": None,
}


def test_feedback_reads_what_the_service_stores(tmp_path: Path):
    service = {
        "vote_id": "12-1700000000000-0",
        "time": 1.7e9,
        "bundle": "abc",
        "bundle_id": "abc",
        "generation_id": "g",
    }
    path = write(tmp_path / "votes.ndjson", STORED, STORED | service | {"rejected": "c", "profile": "likes tea"})
    plain, full = read_format("feedback", path)
    assert type(plain) is type(full) is Preference
    assert plain.turns() == [{"role": "user", "content": "Hi"}]
    assert (full.turns(), full.profile, full.source) == (plain.turns(), "likes tea", f"{path}:2")


def test_feedback_refuses_what_the_service_does_not_store(tmp_path: Path):
    for bad, reason in (
        ({"mood": 1}, "mood"),
        ({"rejected": "a"}, "chosen equals rejected"),
        ({"user_id": 1}, "user_id"),
        ({"time": float("nan")}, "time"),
        ({"time": 1e308}, "time"),
    ):
        with pytest.raises(BadPreference, match=rf"votes\.ndjson:2: .*{reason}"):
            read_format("feedback", write(tmp_path / "votes.ndjson", STORED, STORED | bad))


def test_feedback_keeps_the_votes_that_the_service_counts(tmp_path: Path, caplog):
    """A changed mind replaces, a doubled click is one, a flood is cut; the file's order says nothing of time."""
    changed = {"chosen": "b", "rejected": "a", "time": 20.0}
    flood = [STORED | {"user_id": "bot", "rejected": f"{n:03}", "time": 1.0} for n in range(MAX_DAILY_VOTES + 10)]
    path = write(tmp_path / "votes.ndjson", STORED | changed, STORED | {"time": 10.0}, *flood, STORED | changed)
    with caplog.at_level("INFO"):
        votes = read_format("feedback", path)
    assert [(vote.chosen, vote.source) for vote in votes if vote.user_id == "ada"] == [
        ("b", f"{path}:{len(flood) + 3}")
    ]
    assert sum(vote.user_id == "bot" for vote in votes) == MAX_DAILY_VOTES
    assert f"{len(flood) + 3 - len(votes)} votes do not count" in caplog.text


def test_feedback_counts_a_vote_that_was_exported_twice_once(tmp_path: Path):
    """Else exports put together would use up the daily limit with repeats."""
    votes = [
        STORED | {"rejected": f"{n:03}", "time": 1.7e9 + n / 1000, "vote_id": f"12-{1_700_000_000_000 + n}-0"}
        for n in range(MAX_DAILY_VOTES)
    ]
    path = write(tmp_path / "votes.ndjson", *votes[:40], *votes)
    assert [vote.source for vote in read_format("feedback", path)] == [
        f"{path}:{n}" for n in (*range(1, 41), *range(81, 41 + MAX_DAILY_VOTES))
    ]


def test_feedback_knows_the_last_of_two_answers_in_one_millisecond(tmp_path: Path):
    one = STORED | {"time": 1.7e9, "vote_id": "12-1700000000000-10"}
    other = STORED | {"chosen": "b", "rejected": "a", "time": 1.7e9, "vote_id": "12-1700000000000-9"}
    (kept,) = read_format("feedback", write(tmp_path / "votes.ndjson", one, other))
    assert kept.chosen == "a"


def test_feedback_fields_are_those_of_the_route():
    source = (ROOT / "server" / "idiolect_server" / "users" / "vote.py").read_text()
    for field in STORED.keys() - {"user_id"}:
        assert f'"{field}": ' in source
