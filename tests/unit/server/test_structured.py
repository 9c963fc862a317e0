"""Structured outputs: bounds by reading, verdicts by trial in a real process, an allowance in the engine."""

import asyncio
import json
import signal

import pytest
import torch
import xgrammar as xgr
from transformers import AutoTokenizer
from vllm.v1.structured_output import backend_xgrammar

from idiolect_server.engine.conversation import Conversations
from idiolect_server.engine.openai import OpenAI
from idiolect_server.engine.structured.allowance import START_S, Allowance
from idiolect_server.engine.structured.constraint import Constraint, constraint
from idiolect_server.engine.structured.nursery import Nursery
from idiolect_server.engine.structured.pattern import TooLarge, grammar_size, pattern_size, rests
from idiolect_server.engine.structured.watch import watch_constraints
from idiolect_server.errors import ConstraintRefused, RequestError
from tests.parts.hostile_forms import GRAMMARS, OTHERS, PATTERNS, SCHEMAS, TAKEN, format_of, outputs

N_TOKENS = 49152


@pytest.mark.parametrize(
    ("pattern", "size"),
    [
        ("", 0),
        ("abc", 3),
        (r"\d{4}-\d{2}-\d{2}", 10),
        ("[]a-z]{2}[^]]", 3),
        ("(?:ab|c){3}", 12),
        (r"\(\*\{2}", 5),
        ("a{,5}", 5),
        ("((a{3}){3}){3}", 27),
        ("a*?b+?", 2),
        ("(a", 2 - 1),
        ("a)", 2),
    ],
)
def test_sizes(pattern, size):
    assert pattern_size(pattern) == size


@pytest.mark.parametrize(
    "pattern",
    ["(((a)*)*)*", "((a{2,})+)*", "(a?){65}", "a*" * 65, "(" * 17 + ")" * 17, "a" * 2049, "((a{70}){70})", "a{5000}"],
)
def test_too_large(pattern):
    with pytest.raises(TooLarge):
        pattern_size(pattern)


def test_what_random_replies_may_not_come_to():
    assert rests("[a-y]+|z(.?){9}b") == ["[a-y]+", ".?", "(.?){9}b"]


def test_texts_and_comments_of_a_grammar_are_no_repetitions():
    assert grammar_size('root ::= "(((((((((((((((((((" # (((((((((((((((((((((\n') < 20
    with pytest.raises(TooLarge, match="rules"):
        grammar_size("a ::= b\n" * 300)


@pytest.fixture(scope="module")
def verdict(model_path):
    """verdict(constraint): what the trial says, None if nothing."""
    loop = asyncio.new_event_loop()
    nursery = Nursery(str(model_path), N_TOKENS)

    def ask(asked: Constraint) -> str | None:
        try:
            loop.run_until_complete(nursery.check(asked))
        except ConstraintRefused as error:
            return error.message
        return None

    ask.nursery, ask.loop = nursery, loop
    yield ask
    nursery.close()
    loop.run_until_complete(asyncio.sleep(0.1))
    loop.close()


ALL = {
    **{f"schema: {name}": (format_of(asked), statuses) for name, (asked, statuses) in SCHEMAS.items()},
    **{f"regex: {name}": (outputs(regex=asked), statuses) for name, (asked, statuses) in PATTERNS.items()},
    **{f"grammar: {name}": (outputs(grammar=asked), statuses) for name, (asked, statuses) in GRAMMARS.items()},
    **{name: case for name, case in OTHERS.items() if "tools" not in case[0]},
}


@pytest.mark.parametrize("name", [name for name, case in ALL.items() if 200 not in case[1] or case[1] == TAKEN])
def test_bombs_are_refused_and_common_forms_taken(verdict, name):
    asked, statuses = ALL[name]
    try:
        found = constraint(asked.get("response_format"), asked.get("structured_outputs"))
        problem = found and verdict(found)
    except RequestError as error:
        problem = error.message
    assert (problem is None) == (statuses == TAKEN), problem


def parentheses(n: int) -> Constraint:
    return Constraint("json", json.dumps({"type": "string", "pattern": "(" * n + "a" + ")" * n}))


@pytest.mark.parametrize(
    "asked",
    [
        parentheses(30_000),  # ends a process that compiles it
        Constraint(
            "grammar",
            "\n".join(["root ::= r0", *(f'r{n} ::= r{n + 1} | "a"' for n in range(50_000)), 'r50000 ::= "b"']),
        ),
        Constraint("regex", "(" * 900 + "a+" + ")*" * 900),
    ],
    ids=["crash", "memory", "time"],
)
def test_what_passes_the_bounds_dies_alone(verdict, asked):
    """As if the bounds had let them pass."""
    problem = verdict(asked)
    assert problem
    assert verdict.nursery._process.returncode is None
    assert verdict(Constraint("regex", f"[ab]+{len(asked.text)}")) is None


def test_a_process_that_was_killed_is_started_anew(verdict):
    assert verdict(Constraint("regex", "before")) is None
    process = verdict.nursery._process
    process.send_signal(signal.SIGKILL)
    verdict.loop.run_until_complete(process.wait())
    assert verdict(Constraint("regex", "after")) is None
    assert verdict(Constraint("regex", "before")) is None  # kept


def test_many_at_once_have_a_verdict_each(verdict):
    asked = [Constraint("regex", f"[ab]{{{n}}}" if n % 2 else "(") for n in range(1, 17)]

    async def check() -> list[BaseException | None]:
        checks = (verdict.nursery.check(one) for one in [*asked, *asked])
        return await asyncio.gather(*checks, return_exceptions=True)

    found = verdict.loop.run_until_complete(check())
    assert [one is None for one in found] == [one.text != "(" for one in [*asked, *asked]]


def test_one_that_was_condemned_is_refused(verdict):
    asked = Constraint("regex", "condemned")
    assert verdict(asked) is None
    verdict.nursery.condemn(asked)
    assert "too long per token" in verdict(asked)


def test_an_allowance_is_spent_by_computing_only():
    allowance = Allowance(0.01)
    with allowance.step():
        pass
    assert not allowance.is_spent
    with allowance.step():
        sum(range(3_000_000))
    assert allowance.is_spent


def test_a_request_that_spends_its_allowance_fails_alone(model_path):
    watch_constraints()
    info = xgr.TokenizerInfo.from_huggingface(AutoTokenizer.from_pretrained(model_path), vocab_size=N_TOKENS)
    compiled = xgr.GrammarCompiler(info, max_threads=1).compile_regex("(" * 900 + "a+" + ")*" * 900)
    grammar = backend_xgrammar.XgrammarGrammar(matcher=xgr.GrammarMatcher(compiled), vocab_size=N_TOKENS, ctx=compiled)
    mask, token = xgr.allocate_token_bitmask(1, N_TOKENS), info.decoded_vocab.index(b"a")
    n_steps = 0
    while n_steps < 1000:
        grammar.fill_bitmask(mask, 0)
        if not grammar.accept_tokens("r", [token]):
            break
        n_steps += 1
    assert n_steps < 20 * START_S / 0.001
    grammar.fill_bitmask(mask, 0)
    assert bool(torch.all(mask == -1))  # at no cost


@pytest.mark.parametrize("asked", [{"response_format": {"type": "json_object"}}, outputs(choice=["a", "b"])])
def test_without_a_nursery_all_are_refused(model_path, asked):
    api = object.__new__(OpenAI)  # refused before anything else of it is needed
    api._nursery, api._conversations = None, Conversations(AutoTokenizer.from_pretrained(model_path), 2048)
    with pytest.raises(ConstraintRefused, match="off"):
        asyncio.run(api.chat({"messages": [{"role": "user", "content": "x"}], **asked}, None))
