"""The engine itself: the trainer's numbers through both injections, adapter and merged; and what the cache shares."""

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import psutil
import pytest
import torch
from safetensors.torch import load_file

from idiolect.bundle import Bundle
from idiolect.merge import merge_bundle
from idiolect.prompt.chat import prompt_ids
from idiolect.prompt.layout import Layout
from idiolect_server.engine.base import Adapter, Chunk, EngineConfig, Sampling
from idiolect_server.engine.launch import INTEL_OPENMP
from idiolect_server.engine.time_slice import LONGEST_NS, get_turn
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import Placed, UserTokens
from idiolect_training.config import RunConfig
from idiolect_training.fit.batch import Pair, collate
from idiolect_training.fit.policy import Policy
from tests.conftest import read_lines
from tests.live import DEMO_BUNDLE

N_TRIPLES = 24
TOLERANCE = 1e-3
BFLOAT16_TOLERANCE = 0.05
"""Of the mean; 0.025 was measured on a Xeon with AMX."""
COMPUTES = 0.2
"""Of the busiest thread's time: one with more is one that others might wait for."""
PAIRS = read_lines(DEMO_BUNDLE.parent / "test.jsonl")


@pytest.fixture(scope="module")
def policy(demo_bundle: Bundle) -> Policy:
    """The trainer's policy with the demo bundle's weights."""
    policy = Policy(RunConfig.read(DEMO_BUNDLE.parent / "run.yaml"), n_users=len(demo_bundle.user_ids))
    adapter = load_file(DEMO_BUNDLE / "adapter" / "adapter_model.safetensors")
    with torch.no_grad():
        for name, parameter in policy.lora_parameters().items():
            parameter.copy_(adapter[name.replace(".default.", ".")])
    policy.model.eval()
    return policy


@dataclass
class Running:
    """An engine and the loop that it lives in."""

    engine: VllmEngine
    adapter: Adapter | None
    loop: asyncio.AbstractEventLoop
    label: str

    def run(self, awaitable):
        return self.loop.run_until_complete(awaitable)

    def generate(self, placed: Placed, sampling: Sampling, name: str) -> AsyncGenerator[Chunk, None]:
        return self.engine.generate(placed, sampling, name, adapter=self.adapter)

    def encode(self, messages: list[dict[str, str]]) -> list[int]:
        return prompt_ids(messages, self.engine.tokenizer)


WAYS = {"passthrough-merged": True, "mixed-adapter": True, "passthrough-adapter": False, "mixed-merged": False}
"""Injection and weights; whether each run of the tests starts such an engine, or only one that keeps evidence."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "running" in metafunc.fixturenames:
        every = metafunc.config.getoption("--evidence")
        ways = [way for way, always in WAYS.items() if always or every]
        metafunc.parametrize("running", ways, indirect=True, scope="module")


@pytest.fixture(scope="module")
def running(request, demo_bundle: Bundle, model_path: Path, tmp_path_factory) -> Iterator[Running]:
    injection, weights = request.param.split("-")
    model, adapter = model_path, Adapter(demo_bundle.bundle_id, demo_bundle.path / "adapter")
    if weights == "merged":
        merged = merge_bundle(demo_bundle, model_path, tmp_path_factory.mktemp("merged") / "bundle")
        model, adapter = merged.model_path, None
    config = EngineConfig(str(model), adapter, injection=injection, max_model_len=2048, max_num_seqs=32)
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(VllmEngine.start(config))
    yield Running(engine, adapter, loop, request.param)
    engine.close()
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()


def triples(bundle: Bundle, running: Running, n: int) -> list[tuple[UserTokens, list[int], list[int]]]:
    """Random users (the generic one too), prompts and replies."""
    rng = random.Random(0)
    codes = [bundle.user_model.generic_code, *bundle.codes]
    chosen = []
    for _ in range(n):
        pair = rng.choice(PAIRS)
        tokens = UserTokens(bundle.user_model.user_tokens(rng.choice(codes)), bundle.bundle_id)
        prompt = running.encode([{"role": "user", "content": pair["prompt"]}])
        reply = running.engine.tokenizer(rng.choice((pair["chosen"], pair["rejected"])), add_special_tokens=False)
        chosen.append((tokens, prompt, [*reply["input_ids"], running.engine.tokenizer.eos_token_id]))
    return chosen


def apart(policy: Policy, placed: Placed, start: int, served: list[float]) -> list[float]:
    """How far the engine's log-probability of each reply token is from the trainer's."""
    prompt, reply = tuple(placed.token_ids[:start]), tuple(placed.token_ids[start:])
    batch = collate([Pair(0, 0, prompt, reply, reply, placed.offset)], len(placed.user_tokens.rows), 2)
    with torch.no_grad():
        expected = policy.token_logps(batch, torch.from_numpy(placed.user_tokens.rows)[None])[: len(reply)]
    return (expected - torch.tensor(served)).abs().tolist()


_worst: dict[str, float] = {}


def test_log_probabilities_equal_the_trainers(request, running: Running, policy: Policy, demo_bundle: Bundle, evidence):
    """A3: every reply token of every triple, within 1e-3 in fp32."""
    n = N_TRIPLES if request.config.getoption("--evidence") else N_TRIPLES // 4
    layout = demo_bundle.manifest.layout
    worst = 0.0
    for number, (tokens, prompt, reply) in enumerate(triples(demo_bundle, running, n)):
        placed = Placed([*prompt, *reply], layout.offset(prompt), tokens)
        served = running.run(running.engine.score(placed, len(prompt), f"score-{number}", running.adapter))
        assert len(served) == len(reply)
        worst = max(worst, *apart(policy, placed, len(prompt), served))
    assert worst <= TOLERANCE
    _worst[running.label] = worst
    if len(_worst) == len(WAYS):
        value = {"triples_each": N_TRIPLES, "max_abs_difference": {k: float(f"{v:.2g}") for k, v in _worst.items()}}
        evidence("A3", value)


def test_plain_and_personalized_requests_share_a_batch(running: Running, demo_bundle: Bundle):
    """A plain prompt between personalized ones gets its solo reply, and the engine survives (vLLM issue 51121)."""
    layout = demo_bundle.manifest.layout
    prompt = running.encode([{"role": "user", "content": "What is a tide pool?"}])
    codes = demo_bundle.codes[:3]
    users = [UserTokens(demo_bundle.user_model.user_tokens(code), demo_bundle.bundle_id) for code in codes]
    requests = [Placed(prompt), *(Placed(prompt, layout.offset(prompt), user) for user in users)]

    async def reply(placed: Placed, name: str) -> list[int]:
        sampling = Sampling(max_tokens=8)
        return [t async for chunk in running.generate(placed, sampling, name) for t in chunk.token_ids]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(reply(placed, f"both-{i}") for i, placed in enumerate(requests))))

    solo = [running.run(reply(placed, f"solo-{i}")) for i, placed in enumerate(requests)]
    assert running.run(together()) == solo


def test_seeded_replies_do_not_depend_on_how_their_prompts_are_cut(running: Running):
    """vLLM draws after each part of a prompt and takes it back; on a CPU that ended the engine for everybody."""
    long = running.encode([{"role": "user", "content": "Count the boats, please. " * 180}])
    assert len(long) > 2 * 512  # three parts at least
    prompts = [long, running.encode([{"role": "user", "content": "Why?"}]), [*long[:-1], *long[-9:]]]

    async def reply(number: int, name: str) -> list[int]:
        sampling = Sampling(max_tokens=6, temperature=1.0, seed=number)
        chunks = running.generate(Placed(prompts[number]), sampling, f"{name}-{number}")
        return [token async for chunk in chunks for token in chunk.token_ids]

    async def together() -> list[list[int]]:
        return list(await asyncio.gather(*(reply(number, "seeded-both") for number in range(3))))

    solo = [running.run(reply(number, "seeded")) for number in range(3)]
    assert running.run(together()) == solo
    assert running.engine.alive


def test_a_shared_system_prompt_is_computed_once(running: Running, demo_bundle: Bundle, evidence):
    """A5: after_system lets a second user reuse the system part; the paper's placement cannot."""
    trained = demo_bundle.manifest.layout
    layouts = {
        name: Layout(placement=name, anchor=trained.anchor, bos_id=trained.bos_id)
        for name in ("after_system", "after_bos")
    }
    users = [
        UserTokens(demo_bundle.user_model.user_tokens(code), demo_bundle.bundle_id) for code in demo_bundle.codes[:2]
    ]

    async def cached(placed: Placed, name: str) -> int:
        n = 0
        async for chunk in running.generate(placed, Sampling(max_tokens=1), name):
            n = chunk.n_cached_tokens
        return n

    found = {}
    for name, layout in layouts.items():
        # Another system prompt for each layout, so that neither profits from what the other has computed.
        system = f"You follow the {name} house rules. " + "Be exact, be polite, and cite what you rely on. " * 25
        messages = [{"role": "system", "content": system}, {"role": "user", "content": "What is a glacier?"}]
        prompt = running.encode(messages)
        n_system = layouts["after_system"].offset(prompt)
        assert n_system >= 200
        counts = [
            running.run(cached(Placed(prompt, layout.offset(prompt), user), f"{name}-{i}"))
            for i, user in enumerate(users)
        ]
        found[name] = {"system_tokens": n_system, "cached_for_second_user": counts[1]}
    shared = found["after_system"]
    assert shared["cached_for_second_user"] >= shared["system_tokens"] - 32  # whole blocks of 32 only
    assert found["after_bos"]["cached_for_second_user"] == 0
    if running.label == "passthrough-merged":
        evidence("A5", found)


@pytest.mark.skipif(not INTEL_OPENMP.exists(), reason="vLLM comes with Intel's OpenMP for x86 only")
def test_the_engine_computes_with_intels_openmp(running: Running):
    """It is loaded into vLLM's process, one an engine, before PyTorch brings another, though nobody asked for it."""
    engines = [child for child in psutil.Process().children(recursive=True) if child.name().startswith("VLLM::")]
    assert {engine.name() for engine in engines} == {"VLLM::EngineCore"}
    for engine in engines:
        assert str(INTEL_OPENMP) in {part.path for part in engine.memory_maps()}


@pytest.mark.skipif(get_turn(0) == 0, reason="this Linux does not know of longer turns (6.12 and later)")
def test_who_wakes_up_goes_before_the_engine(running: Running):
    """Each thread of the engine's process that computes has taken long turns, and those who started it have not."""
    assert get_turn(0) < LONGEST_NS
    engines = [child for child in psutil.Process().children() if child.name().startswith("VLLM::")]

    def user_time_s() -> dict[int, float]:
        return {thread.id: thread.user_time for engine in engines for thread in engine.threads()}

    before = user_time_s()
    for again in range(4):  # other prompts: no prefix is known
        running.run(running.engine.score(Placed([500 + again, *range(100, 400)], 0), 8, f"turns-{again}"))
    spent_s = {thread: now - before.get(thread, 0.0) for thread, now in user_time_s().items()}
    compute = [thread for thread, seconds in spent_s.items() if seconds > COMPUTES * max(spent_s.values())]
    assert len(compute) >= len(engines) > 0
    assert {get_turn(thread) for thread in compute} == {LONGEST_NS}


def test_an_adapter_folder_is_what_vllm_expects(demo_bundle: Bundle):
    assert demo_bundle.adapter_path is not None
    config = json.loads((demo_bundle.adapter_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA"


def test_bfloat16_is_close(policy: Policy, demo_bundle: Bundle, model_path: Path, tmp_path):
    """On a CPU as on a GPU: user tokens enter in the model's type, and replies' log-probabilities hardly move."""
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("this processor does not compute in bfloat16")
    merged = merge_bundle(demo_bundle, model_path, tmp_path / "bundle")
    config = EngineConfig(str(merged.model_path), max_model_len=2048, dtype="bfloat16")
    loop = asyncio.new_event_loop()
    engine = loop.run_until_complete(VllmEngine.start(config))
    try:
        assert engine.llm.model_config.dtype == torch.bfloat16
        layout, running, found = demo_bundle.manifest.layout, Running(engine, None, loop, "bfloat16"), []
        for tokens, prompt, reply in triples(demo_bundle, running, N_TRIPLES // 2):
            placed = Placed([*prompt, *reply], layout.offset(prompt), tokens)
            served = running.run(engine.score(placed, len(prompt), f"score-{len(found)}"))
            found += apart(policy, placed, len(prompt), served)
    finally:
        engine.close()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
    assert TOLERANCE < fmean(found) <= BFLOAT16_TOLERANCE, fmean(found)
