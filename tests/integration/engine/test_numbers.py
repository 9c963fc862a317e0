"""The numbers of the trainer, from the engine: through both injections, adapter and merged, and in bfloat16."""

import asyncio
import json
import random
from pathlib import Path
from statistics import fmean

import pytest
import torch
from safetensors.torch import load_file

from idiolect.bundle import Bundle
from idiolect.merge import merge_bundle
from idiolect_server.engine.base import EngineConfig
from idiolect_server.engine.vllm import VllmEngine
from idiolect_server.prompt import Placed, UserTokens
from idiolect_training.config import RunConfig
from idiolect_training.fit.batch import Pair, collate
from idiolect_training.fit.policy import Policy
from tests.conftest import read_lines
from tests.integration.engine.conftest import WAYS, Running
from tests.live import DEMO_BUNDLE

N_TRIPLES = 24
TOLERANCE = 1e-3
BFLOAT16_TOLERANCE = 0.05
"""Of the mean; 0.025 was measured on a Xeon with AMX."""
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
